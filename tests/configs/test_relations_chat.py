"""What is set for a chat and read by nothing is refused, and what is at its default is not."""

import pytest

from configs.read import ConfigError, parse_config
from configs.schema import Clean

BASE = {"run": {"name": "x"}, "model": {"source": "m"}, "data": {"source": "d"}}
IGNORED_BY_WORD = {"html", "spaces"}  # the reference says so: inside turns they do nothing
OTHER = {"min_chars": "2", "unicode": "NFKC"}


def read(*words):
    return parse_config(BASE, overrides=["task.kind=chat", *words])


@pytest.mark.parametrize("least", [2, 50])
def test_a_least_length_is_refused_with_the_way_out(least):
    with pytest.raises(ConfigError, match=r"--unset data\.clean\.min_chars"):
        read(f"data.clean.min_chars={least}")


def test_its_default_is_no_setting_and_labelled_texts_keep_it():
    assert read("data.clean.min_chars=1").task.kind == "chat"
    config = parse_config(BASE, overrides=["data.clean.min_chars=5"])
    assert config.data.clean.min_chars == 5


def test_it_is_named_beside_others_that_are_of_labels_alone():
    with pytest.raises(ConfigError) as caught:
        read("data.clean.min_chars=5", "data.label=stars")
    message = str(caught.value)
    assert "--unset data.label --unset data.clean.min_chars" in message


@pytest.mark.parametrize("name", sorted(Clean.model_fields.keys() - IGNORED_BY_WORD))
def test_every_way_to_clean_is_read_or_refused(name):
    from dataclasses import fields

    from data.chat.intake import ChatClean

    word = f"data.clean.{name}={OTHER.get(name, 'false')}"
    if name in {one.name for one in fields(ChatClean)}:
        assert read(word).data.clean != Clean()
    else:
        with pytest.raises(ConfigError, match=name):
            read(word)
