"""What a model was expected to answer beside what it answers."""

from collections.abc import Sequence
from dataclasses import dataclass

from report.format import (
    COLUMNS,
    NONE,
    align_table,
    clean_line,
    format_share,
    measure_width,
    shorten,
)

CELL_COLUMNS = 28  # longer answers are cut, so that the text keeps most of the line
GAPS = 4 * 2  # align_table's spaces between the five columns


@dataclass(frozen=True)
class Expected:
    """One expectation. `probability` is what the model gives to what is expected, the least of
    several; beside "not …" the largest of what must not be answered; None for numbers."""

    place: str  # "expect: table 2", "checks.jsonl, line 7"
    text: str  # of a pair both
    expected: str
    got: str
    probability: float | None
    met: bool


def expectation_cells(rows: Sequence[Expected]) -> list[tuple[str, ...]]:
    """A header and a row each: met or not, expected, its probability, got, text."""
    header = ("", "expected", "its probability", "got", "text")
    cells = [
        (
            "met" if row.met else "NOT MET",
            clean_line(row.expected),
            NONE if row.probability is None else format_share(row.probability, 1),
            clean_line(row.got),
            clean_line(row.text),
        )
        for row in rows
    ]
    return [header, *cells]


def expectation_table(rows: Sequence[Expected]) -> str:
    """The same aligned for a terminal, at most 100 columns wide."""
    cells = [
        (met, shorten(expected, CELL_COLUMNS), share, shorten(got, CELL_COLUMNS), text)
        for met, expected, share, got, text in expectation_cells(rows)
    ]
    taken = sum(max(map(measure_width, column)) for column in list(zip(*cells, strict=True))[:4])
    room = COLUMNS - taken - GAPS
    return "\n".join(align_table([(*row[:4], shorten(row[4], room)) for row in cells], right=(2,)))


def expectation_lines(rows: Sequence[Expected]) -> str:
    """The table, and how many are met."""
    return f"{expectation_table(rows)}\n{count_line(rows)}"


def count_line(rows: Sequence[Expected]) -> str:
    """How many are met, as a sentence."""
    unmet = sum(not row.met for row in rows)
    if not unmet:
        return f"expectations: {'it is' if len(rows) == 1 else f'all {len(rows):,} are'} met"
    verb = "is" if unmet == 1 else "are"
    return f"expectations: {unmet:,} of {len(rows):,} {verb} not met"
