"""The table of a check names the tool that answered."""

from types import SimpleNamespace

import pytest

from job.exporting import export
from job.exporting.format import Parity, Written
from job.exporting.formats.gguf import Gguf


@pytest.mark.parametrize(
    ("answers", "name"),
    [
        ({"versions": {"gguf": "1.0"}, "extra": {}}, "llama.cpp 1.0"),
        ({"versions": {"gguf": "1.0"}, "extra": {"by": "another 5.0"}}, "another 5.0"),
        ({}, "llama.cpp"),
    ],
)  # fmt: skip
def test_it_is_the_one_that_answered_and_not_the_one_that_was_hoped_for(
    monkeypatch, tmp_path, answers, name
):
    monkeypatch.setattr(export, "size_of", lambda path: 1)
    source = SimpleNamespace(folder=SimpleNamespace(model=tmp_path), decision=None)
    own = SimpleNamespace(
        dtype="fp32", count=1, seconds=1.0, rows="5 prompts", unit="tokens", notes=[]
    )
    table = export.make_table(
        source, Gguf(), Written(None), own, Parity(5, 5, 0.0, 0.0), answers, 1
    )
    assert table.sides[1].name == name
