"""The parts of a stream, its files or shards: how many rows each has, and reading from any of them.

Rows are numbered as the filter leaves them. A filter, and files that do not say how many rows they
have, take one pass over the source, whose counts are kept.
"""

import json
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path

import numpy as np

from data.cache import make_key, open_built
from data.columns import is_kept
from data.filters import Filter, parse_filter
from data.labels.reader import RowError
from data.reading.rows import BadRow, Row
from data.tables import Table
from files.read import read_json

STRIDE = 1000  # rows of a table between two marks
NEAR = 100  # rows that are passed over rather than looked up anew

Numbered = tuple[int, Row | BadRow]


@dataclass(frozen=True)
class Counted:
    """A table's rows that the filter keeps. `marks[i]` of them stand before row i * STRIDE of the
    table; there are no marks where all are kept."""

    rows: int
    marks: tuple[int, ...] = ()


@dataclass(frozen=True)
class Part:
    """A table of the source. Its rows have the numbers from `first` on, in the whole source; those
    in `held`, sorted, are no part of the stream: other splits have them."""

    table: Table
    counted: Counted
    first: int
    filter: Filter | None
    held: np.ndarray  # (H,) int64

    @property
    def rows(self) -> int:
        """Rows of the stream."""
        return self.counted.rows - len(self.held)

    @cached_property
    def _gaps(self) -> np.ndarray:
        """(H,) rows of the stream before each held one."""
        return self.held - self.first - np.arange(len(self.held))

    @cached_property
    def _held(self) -> frozenset[int]:
        return frozenset(self.held.tolist())

    def read(self, needed: Sequence[str], start: int) -> Iterator[Numbered]:
        """The rows of the stream from its number `start` in this part on, each with its number in
        the whole source. Raises ValueError where there are fewer than were counted."""
        begin = self.first + start + int(np.searchsorted(self._gaps, start, side="right"))
        left = self.rows - start
        if not left:
            return
        for number, row in self.read_all(needed, begin):
            if number not in self._held:
                yield number, row
                left -= 1
                if not left:
                    return
        if left:
            raise ValueError(
                f"{self.table.path} has {left:,} rows less than when they were counted: it was "
                "changed while it was read"
            )

    def read_all(self, needed: Sequence[str], number: int) -> Iterator[Numbered]:
        """The rows from `number` of the whole source on, those of other splits too."""
        skip = number - self.first
        place = 0 if self.counted.marks else skip
        if self.counted.marks:
            mark = bisect_right(self.counted.marks, skip) - 1
            place, skip = mark * STRIDE, skip - self.counted.marks[mark]
        rows = self.table.read(needed, place)
        kept = (row for row in rows if self.filter is None or is_taken(row, self.filter))
        return enumerate(islice(kept, skip if self.counted.marks else 0, None), start=number)


def is_taken(row: Row | BadRow, kept_by: Filter) -> bool:
    """Whether a row has a place in the stream: the filter keeps it, or nobody can tell."""
    try:
        return isinstance(row, BadRow) or is_kept(row.values, kept_by)
    except RowError:
        return True


def count_tables(
    tables: Sequence[Table], filter_text: str | None, cache_dir: Path
) -> list[Counted]:
    """How many rows of each table the filter keeps: from what the tables say, or by a pass over
    them, once."""
    kept_by = parse_filter(filter_text) if filter_text else None
    if kept_by is None and all(table.count is not None for table in tables):
        return [Counted(table.count or 0) for table in tables]
    key = make_key(counted=[[table.path, table.digest] for table in tables], filter=filter_text)
    folder = cache_dir / "data" / key[:32]

    def write(made: Path) -> None:
        counted = [count_table(table, kept_by) for table in tables]
        values = [[one.rows, one.marks] for one in counted]
        (made / "rows.json").write_text(json.dumps({"rows": values}), encoding="utf-8")

    open_built(folder, write)
    values = read_json(folder / "rows.json", ("rows",))["rows"]
    return [Counted(rows, tuple(marks)) for rows, marks in values]


def count_table(table: Table, kept_by: Filter | None) -> Counted:
    """Read a table once, the filter's columns alone."""
    if kept_by is None:
        if table.count is not None:
            return Counted(table.count)
        return Counted(sum(1 for _ in table.rows(table.columns[:1] if table.columns else ())))
    kept, marks = 0, []
    for number, row in enumerate(table.rows(list(kept_by.columns))):
        if number % STRIDE == 0:
            marks.append(kept)
        kept += is_taken(row, kept_by)
    return Counted(kept, tuple(marks) or (0,))


def make_parts(
    tables: Sequence[Table], counted: Sequence[Counted], filter_text: str | None, held: np.ndarray
) -> tuple[Part, ...]:
    """The parts of a stream without the rows `held` (H,), sorted numbers in the whole source."""
    kept_by = parse_filter(filter_text) if filter_text else None
    parts, first = [], 0
    for table, one in zip(tables, counted, strict=True):
        own = held[(held >= first) & (held < first + one.rows)]
        parts.append(Part(table, one, first, kept_by, own))
        first += one.rows
    return tuple(parts)


def rows_at(
    parts: Sequence[Part], numbers: np.ndarray, needed: Sequence[str]
) -> Iterator[Row | BadRow]:
    """The rows of these numbers (n,), sorted, in the whole source; those that stand near each other
    are read at once."""
    firsts = [part.first for part in parts]
    for run in np.split(numbers, np.flatnonzero(np.diff(numbers) > NEAR) + 1):
        wanted = run.tolist()
        while wanted:
            part = parts[bisect_right(firsts, wanted[0]) - 1]
            inside = [n for n in wanted if n < part.first + part.counted.rows]
            own, rows = set(inside), part.read_all(needed, inside[0])
            span = islice(rows, inside[-1] - inside[0] + 1)
            yield from (row for number, row in span if number in own)
            wanted = wanted[len(inside) :]
