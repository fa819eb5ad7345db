"""The before/after table: alignment with any text, width, and what it refuses."""

import pytest

from report.format import COLUMNS, measure_width
from report.samples import samples_table


def column_of(line: str, word: str) -> int:
    """The terminal column in which `word` begins."""
    return measure_width(line[: line.index(word)])


def test_columns_line_up_whatever_the_script():
    texts = ["It was good.", "映画はとても面白かったです。", "Cafe\u0301 ole\u0301 🎬", "x " * 300]
    table = samples_table(texts, [("neg", 0.5)] * 4, [("positive", 0.987)] * 4).splitlines()
    assert len({column_of(line, "neg") for line in table[1:]}) == 1
    assert len({column_of(line, "positive") for line in table[1:]}) == 1
    assert column_of(table[0], "before") == column_of(table[1], "neg")
    assert column_of(table[0], "after") == column_of(table[1], "positive")


def test_table_never_exceeds_the_line():
    texts = ["映" * 400, "word " * 100]
    answers = [("a label that goes on and on, far too long to show", 1.0)] * 2
    lines = samples_table(texts, answers, answers).splitlines()
    assert max(map(measure_width, lines)) <= COLUMNS
    assert "…" in lines[1]


def test_a_text_of_several_lines_stays_one_row():
    table = samples_table(["one\ntwo\x1b[2J"], [("a", 0.5)], [("b", 0.75)])
    assert len(table.splitlines()) == 2
    assert "one two [2J" in table
    assert "\x1b" not in table


def test_probabilities_are_percentages_and_a_regression_has_none():
    line = samples_table(["t"], [("3.5", None)], [("4.25", 0.5)]).splitlines()[1]
    assert line.split() == ["t", "3.5", "-", "4.25", "50.0", "%"]


def test_a_missing_answer_is_refused():
    with pytest.raises(ValueError, match="2 texts, 1 answers before and 2 after"):
        samples_table(["a", "b"], [("x", 0.5)], [("x", 0.5)] * 2)


def test_no_texts_leave_only_the_header():
    assert samples_table([], [], []).split() == ["text", "before", "after"]
