"""How a test figure differs from one part of the rows to another, and where it is surely worse."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from report.format import (
    COLUMNS,
    align_table,
    clean_line,
    format_count,
    format_number,
    format_p,
    shorten,
)

VALUE_COLUMNS = 40
TESTS = {  # by which a slice is held against all other rows
    "accuracy": "Fisher's exact test",
    "rmse": "rank sums of the errors",
}


@dataclass(frozen=True)
class SliceRow:
    """The rows that have a value in common. `figure` is their `metric` with its 95 % interval, of
    accuracy `right` the rows that are answered rightly; `others` the figure of all rows that are
    not among them, None where there are none, and `p` how likely chance alone makes them so much
    worse. `values` are how many values stand together, 1 but for the rest of a long list. `worse`:
    p is small enough for as many slices as were looked at."""

    value: str
    n: int
    metric: str
    figure: float
    low: float
    high: float
    right: int | None
    others: float | None
    p: float | None
    values: int = 1
    worse: bool = False


def name_value(row: SliceRow) -> str:
    """The value as a person reads it."""
    if row.values > 1:
        return f"({format_count(row.values)} others)"
    return clean_line(row.value) or "(none)"


def slice_cells(slices: Mapping[str, Sequence[SliceRow]]) -> list[tuple[str, ...]]:
    """A header and a row for each slice; the last two columns hold numbers and an interval."""
    metric = next(row.metric for rows in slices.values() for row in rows)
    cells: list[tuple[str, ...]] = [("slice", "", "n", metric, "95 % interval", "")]
    for column, rows in slices.items():
        for place, row in enumerate(rows):
            cells.append(
                (
                    clean_line(column) if place == 0 else "",
                    name_value(row),
                    format_count(row.n),
                    show_figure(row.figure, row.metric),
                    f"{show_figure(row.low, row.metric)} to {show_figure(row.high, row.metric)}",
                    "worse" if row.worse else "",
                )
            )
    return cells


def show_figure(value: float, metric: str) -> str:
    """A share to 1/10,000, an error in its own unit."""
    return f"{value:.4f}" if metric == "accuracy" else format_number(value)


def slice_table(slices: Mapping[str, Sequence[SliceRow]]) -> str:
    """The same aligned for a terminal."""
    cells = [
        (shorten(column, 20), shorten(value, VALUE_COLUMNS), *rest)
        for column, value, *rest in slice_cells(slices)
    ]
    return "\n".join(align_table(cells, right=(2, 3, 4)))


def worse_lines(slices: Mapping[str, Sequence[SliceRow]]) -> list[str]:
    """A line for each slice that is surely worse than all other rows together."""
    looked_at = sum(row.p is not None for rows in slices.values() for row in rows)
    lines = []
    for column, rows in slices.items():
        for row in rows:
            if not row.worse or row.others is None or row.p is None:
                continue
            name = shorten(f"{clean_line(column)} = {name_value(row)}", COLUMNS // 2)
            among = f", one of {looked_at:,} slices, by Holm" if looked_at > 1 else ""
            lines.append(
                f"{name}: {row.metric} {show_figure(row.figure, row.metric)} on "
                f"{format_count(row.n)} rows, {show_figure(row.others, row.metric)} on the others: "
                f"surely worse ({TESTS[row.metric]}, p {format_p(row.p)}{among}): bring more rows "
                "like them"
            )
    return lines
