"""Formatting: units, terminal columns, wrapping, and text that cannot steer a terminal."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from report.format import (
    align_table,
    clean_line,
    format_bytes,
    format_count,
    format_number,
    format_seconds,
    format_share,
    join_names,
    measure_width,
    pad,
    shorten,
    wrap,
)


@pytest.mark.parametrize(
    ("size", "shown"),
    [(0, "0 B"), (999, "999 B"), (1536, "1.5 KiB"), (91_000_000, "86.8 MiB"), (None, "-")],
)
def test_bytes_are_shown_in_the_unit_that_fits(size, shown):
    assert format_bytes(size) == shown


def test_bytes_stay_below_four_digits_up_to_the_largest_unit():
    assert format_bytes(1020 * 1024**2) == "1.0 GiB"
    assert format_bytes(5000 * 1024**4) == "5000.0 TiB"


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.7, "1 min 0 s"),
        (252.3, "4 min 12 s"),
        (3599.6, "1 h 0 min"),
        (7384, "2 h 3 min"),
        (None, "-"),
    ],
)
def test_seconds_are_shown_in_their_two_largest_units(seconds, shown):
    assert format_seconds(seconds) == shown


def test_a_share_of_nothing_is_no_number():
    assert format_share(0, 0) == "-"
    assert format_share(1, 3) == "33.3 %"


def test_numbers_keep_four_digits_and_counts_get_commas():
    assert [format_number(x) for x in (0.912345, 3e-4, 1.0, None)] == ["0.9123", "0.0003", "1", "-"]
    assert [format_number(x) for x in (9999.4, 9999.6, -183204.4, 1.7e9, 1e16)] == [
        "9999", "10,000", "-183,204", "1,700,000,000", "1e+16",
    ]  # fmt: skip
    assert format_count(22_935_938) == "22,935,938"


def test_names_past_the_limit_are_counted():
    assert join_names(["a", "b", "c"], limit=2) == "a, b and 1 more"
    assert join_names(["a", "b"], limit=2) == "a, b"


@pytest.mark.parametrize(
    ("text", "columns"),
    [("abc", 3), ("映画", 4), ("e\u0301te\u0301", 3), ("🎬", 2), ("ｆｕｌｌ", 8), ("", 0)],
)
def test_width_counts_terminal_columns_not_characters(text, columns):
    assert measure_width(text) == columns


@settings(deadline=None)  # a busy machine is not a failure
@given(st.text(), st.integers(2, 40))
def test_shortened_text_fits_and_short_text_is_untouched(text, columns):
    short = shorten(text, columns)
    assert measure_width(short) <= columns
    assert short == text or measure_width(text) > columns


@settings(deadline=None)  # a busy machine is not a failure
@given(st.text(), st.integers(2, 40))
def test_wrapping_fits_and_loses_no_letter(text, columns):
    lines = wrap(text, columns)
    assert lines
    assert all(measure_width(line) <= columns for line in lines)
    assert "".join("".join(lines).split()) == "".join(text.split())


@settings(deadline=None)  # a busy machine is not a failure
@given(st.text(st.characters(exclude_categories=())))
def test_a_cleaned_line_is_one_printable_line(text):
    line = clean_line(text)
    line.encode("utf-8")  # no half surrogate pair is left
    assert not any(ord(character) < 32 or 127 <= ord(character) < 160 for character in line)
    assert len(line.splitlines()) <= 1
    assert "\u202e" not in line


def test_controls_separate_words_and_joiners_stay():
    assert clean_line("one\x1b[31m\ttwo\u2028three\u202e") == "one [31m two three"
    assert clean_line("👩\u200d🎤") == "👩\u200d🎤"


def test_padding_fills_to_the_column_on_either_side():
    assert pad("映", 4) == "映  "
    assert pad("7", 3, right=True) == "  7"
    assert pad("long", 2) == "long"


def test_table_columns_line_up_with_wide_characters():
    lines = align_table([("text", "n"), ("映画", "5"), ("abc", "123")], right=(1,))
    assert lines == ["text    n", "映画    5", "abc   123"]
    assert {measure_width(line) for line in lines} == {9}
