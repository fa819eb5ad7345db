"""The front matter of a card is YAML that says what it was given, whatever stands in it."""

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from report.front_matter import front_matter

WORDS = st.text(min_size=1).filter(lambda text: not any(0xD800 <= ord(c) <= 0xDFFF for c in text))
SCALARS = WORDS | st.integers(-(10**9), 10**9) | st.booleans() | st.floats(-1e9, 1e9)
VALUES = st.dictionaries(
    st.sampled_from(["license", "tags", "model-index", "base_model"]),
    SCALARS
    | st.lists(SCALARS, min_size=1)
    | st.dictionaries(st.sampled_from(["a", "b"]), SCALARS, min_size=1)
    | st.lists(st.dictionaries(st.sampled_from(["c", "d"]), SCALARS, min_size=1), min_size=1),
)


def read(text):
    begin, _, end = text.partition("---\n")[2].rpartition("---\n")
    assert (begin.startswith("---"), end) == (False, "")
    return yaml.safe_load(begin) or {}


@given(VALUES)
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_reader_of_yaml_gets_the_values_back(values):
    assert read(front_matter(values)) == values


@pytest.mark.parametrize(
    "word", ["no", "1.0", "null", "a: b", "- x", "#", "'\"", "---", "é\n🎬", "\x85\u2028\ufeff\x7f"]
)
def test_no_text_is_read_as_something_else(word):
    assert read(front_matter({"name": word, "tags": [word]})) == {"name": word, "tags": [word]}


def test_what_has_no_value_is_left_out():
    values = {"license": None, "tags": [], "datasets": (), "n": 0, "inner": {"a": None, "b": 1}}
    assert read(front_matter(values)) == {"n": 0, "inner": {"b": 1}}
