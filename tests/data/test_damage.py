"""What cleaning spoils is said, with addresses and the setting that keeps it."""

import csv

import pytest

from data.clean import CleanArgs
from data.prepare import DataArgs, load_data

PLAIN = [(f"text number {i}", "pos" if i % 2 else "neg") for i in range(40)]  # lines 2 to 41


@pytest.fixture
def load(tmp_path):
    """Load these rows as a.csv, without hold-outs."""

    def load(rows, header=("text", "label"), **named):
        path = tmp_path / "a.csv"
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([header, *rows])
        return load_data(DataArgs(str(path), validation=0, test=0, **named), tmp_path / "cache")

    return load


def warnings(data):
    return [line for line in data.report.lines() if line.startswith("WARNING: cleaning")]


@pytest.mark.parametrize(
    ("first", "second", "step", "what", "setting"),
    [
        ("<b>a</b> film", "a film", "html", "HTML tags or entities", "html = false"),
        ("a film", "a &#102;ilm", "html", "HTML tags or entities", "html = false"),
        ("a film", "a\x07film", "control", "control characters", "control = false"),
        ("cafe\u0301", "café", "unicode", "the Unicode form", 'unicode = "none"'),
        ("a film ", "a film", "spaces", "white space", "spaces = false"),
    ],
)
def test_labels_that_cleaning_sets_at_odds_are_said_with_the_setting(
    load, first, second, step, what, setting
):
    data = load([*PLAIN, (first, "pos"), (second, "neg")])
    assert warnings(data) == [
        f"WARNING: cleaning ({step}) makes 1 row equal to an earlier one with another label, "
        f"dropped: a.csv:42 and a.csv:43 differ only in {what} before cleaning; "
        f"data.clean.{setting} keeps them apart"
    ]
    assert data.report.dropped == {"conflicting_after_cleaning": 1}


def test_what_is_spoilt_is_said_before_what_is_dropped(load):
    data = load([*PLAIN, ("<br/>", "pos"), ("text number  3", "neg")])
    first, second = warnings(data)
    lines = data.report.lines()
    dropped = [i for i, line in enumerate(lines) if line.startswith("dropped:")]
    assert lines.index(second) < min(dropped)
    assert first == (
        "WARNING: cleaning (html) leaves nothing of 1 row, dropped: a.csv:42 ('<br/>'); "
        "data.clean.html = false keeps it"
    )


def test_texts_that_were_equal_before_are_not_laid_to_cleaning(load):
    rows = [("a film", "pos"), ("a film", "neg"), ("<b>b</b>", "pos"), ("<b>b</b>", "neg")]
    data = load([*PLAIN, *rows])
    assert warnings(data) == []
    assert data.report.dropped == {"duplicates_conflicting": 2}


def test_the_same_raw_text_twice_after_another_form_of_it(load):
    rows = [("a  film", "pos"), ("a film", "neg"), ("a film", "neg"), ("a film", "pos")]
    data = load([*PLAIN, *rows])
    # The third repeats the second, and differs from the first as that one does; the fourth
    # contradicts the second in the source itself.
    assert data.report.dropped == {"conflicting_after_cleaning": 2, "duplicates_conflicting": 1}


def test_equal_labels_are_no_contradiction(load):
    data = load([*PLAIN, ("text  number 3", "pos"), ("<i>text number 3</i>", "pos")])
    assert warnings(data) == []
    assert data.report.dropped == {"duplicates_after_cleaning": 2}


def test_at_most_three_examples_of_a_step_are_shown(load):
    rows = [(f"<b>text</b> number {2 * i}", "pos") for i in range(4)]
    (line,) = warnings(load([*PLAIN, *rows]))
    assert "makes 4 rows equal" in line
    assert "a.csv:2 and a.csv:42; a.csv:4 and a.csv:43; a.csv:6 and a.csv:44 differ" in line
    assert "a.csv:45" not in line


def test_rows_that_are_kept_twice_are_told_too(load):
    data = load([*PLAIN, ("text number  3", "neg")], clean=CleanArgs(duplicates=False))
    assert "kept all the same: a.csv:5 and a.csv:42 differ only in white space" in warnings(data)[0]
    assert len(data.splits["train"]) == 41


def test_pairs_are_compared_as_pairs(load):
    rows = [(text, "b", label) for text, label in PLAIN]
    rows += [("x", "<b>y</b>", "pos"), ("x", "y", "neg"), ("x", "<br>", "neg")]
    first, second = warnings(load(rows, header=("a", "b", "label"), text=("a", "b")))
    assert "a.csv:44 ('<br>')" in first
    assert "a.csv:42 and a.csv:43 differ only in HTML tags" in second


def test_a_text_that_was_too_short_before_is_not_laid_to_cleaning(load):
    rows = [("it", "pos"), (" it ", "pos"), ("<b>it</b>", "neg")]
    data = load([*PLAIN, *rows], clean=CleanArgs(min_chars=5))
    (line,) = warnings(data)
    assert "leaves fewer than data.clean.min_chars = 5 characters of 1 row" in line
    assert "a.csv:44 ('<b>it</b>')" in line
    assert data.report.dropped == {"too_short": 3}


def test_blanks_are_nothing_even_where_spaces_stay(load):
    data = load([*PLAIN, ("<b></b>", "pos")], clean=CleanArgs(spaces=False))
    assert data.report.dropped == {"too_short": 1}


SPOILT = {
    "emptied": [("<b></b>" * i, "pos" if i % 2 else "neg") for i in range(1, 6)],
    "contradictory": [(f"<b>text</b> number {2 * i}", "pos") for i in range(5)],
}


@pytest.mark.parametrize("kind", SPOILT)
def test_a_tenth_of_the_rows_spoilt_is_refused_with_the_ways_out(load, kind):
    rows = [*PLAIN, *SPOILT[kind]]
    with pytest.raises(ValueError, match=r"data\.clean: .* 5 of 45 rows of train") as caught:
        load(rows)
    assert "a.csv:42" in str(caught.value)
    assert 'set data.clean.html = false, or data.on_bad_row = "skip"' in str(caught.value)
    assert len(load(rows, on_bad_row="skip").splits["train"]) == 40
    assert len(load(rows, clean=CleanArgs(html=False)).splits["train"]) == 45


def test_leaving_out_a_third_is_never_advised(load):
    with pytest.raises(ValueError, match=r"set data\.clean\.html = false$"):
        load([*PLAIN[:6], *SPOILT["emptied"]])


def test_a_source_of_which_cleaning_leaves_nothing_is_told_so(load):
    rows = [("<b></b>", "pos"), ("<i></i>", "neg")]
    with pytest.raises(ValueError, match=r"would lose 2 of 2 rows of train"):
        load(rows)
    with pytest.raises(ValueError, match=r"no usable row for train\n  cleaning \(html\) leaves"):
        load(rows, on_bad_row="skip")


def test_a_few_spoilt_rows_of_a_tiny_table_are_only_told(load):
    assert len(warnings(load([*PLAIN[:4], ("<br>", "pos")]))) == 1
