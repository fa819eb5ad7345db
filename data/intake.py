"""Rows on their way in: filter, text, label, cleaning, duplicates, all counted, one at a time."""

import json
import sys
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from data.bad_rows import BadRows
from data.cache import read_arrow, write_arrow
from data.clean import CleanArgs, changed_steps, cleaning_steps, trace_steps
from data.columns import is_kept, require_columns
from data.damage import Damage, Repeats
from data.filters import Filter, parse_filter
from data.labels.reader import Label, LabelReader, RowError, plain_form
from data.reading.columnar import CHUNK
from data.reading.rows import BadRow, Row, is_encodable
from data.tables import Table

SLICES = pa.list_(pa.string())
SLICE_LETTERS = 100


@dataclass
class Intake:
    """Reads tables into Arrow files and keeps what has to be known of all rows together.

    `labels[split]` are the plain labels of the rows written, in order.
    """

    text: tuple[str, ...]
    label: tuple[str, ...]
    names: tuple[str, ...] | None
    kind: str
    clean: CleanArgs
    filter_text: str | None
    separator: str | None = None
    slices: tuple[str, ...] = ()
    group: str | None = None  # the column whose values stay on one side of a cut
    drop_rows: Collection[str] = ()  # addresses that are left out
    labels: dict[str, list[Label]] = field(default_factory=dict)
    groups: dict[str, list[str]] = field(default_factory=dict)  # of each row, beside its label
    read: dict[str, int] = field(default_factory=dict)
    filtered: int = 0
    bad: BadRows = field(default_factory=BadRows)
    changed: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    met: set[str] = field(default_factory=set)  # those of drop_rows that there are
    last: str = ""  # an address, as an example

    def __post_init__(self) -> None:
        self.steps = cleaning_steps(self.clean)
        self.label_steps = [step for name, step in self.steps if name != "html"]
        self.damage = Damage(self.clean)
        self.filter: Filter | None = parse_filter(self.filter_text) if self.filter_text else None
        self.unseen = set(self.slices)  # of JSON, whose rows have names of their own
        self.next_row = 0  # numbers the records of the whole source, used or not

    def needed(self) -> dict[str, str]:
        """Every column that is looked at, with the config key that asks for it."""
        filtered = self.filter.columns if self.filter else ()
        grouped = () if self.group is None else (self.group,)
        keys: dict[str, Sequence[str]] = {"eval.slices": self.slices, "data.group": grouped}
        keys["data.filter"] = filtered
        keys |= {"data.label": self.label, "data.text": self.text}
        return {column: key for key, columns in keys.items() for column in columns}

    def read_split(self, split: str, tables: Sequence[Table], path: Path) -> None:
        """Write the usable rows of the tables to an Arrow file: text, text_pair, row, address, and
        slices, where values of other columns are kept."""
        columns = [("text", pa.string())]
        if len(self.text) == 2:
            columns.append(("text_pair", pa.string()))
        columns += [("row", pa.int64()), ("address", pa.string())]
        schema = pa.schema(columns + [("slices", SLICES)] * bool(self.slices))
        first = self.next_row
        write_arrow(path, schema, self._batches(split, tables, schema))
        self.damage.close_split(lambda place: str(read_arrow(path)[place]["address"]))
        self.read[split] = self.next_row - first

    def reader_of(self, table: Table) -> LabelReader:
        """What reads the labels of a table."""
        return LabelReader(
            self.label, self.names, self.kind, table.class_names, self.separator, self._clean_label
        )

    def _clean_label(self, label: str) -> str:
        """Labels are cleaned as texts are, but may hold what looks like HTML."""
        for step in self.label_steps:
            label = step(label)
        return label.strip()

    def _batches(
        self, split: str, tables: Sequence[Table], schema: pa.Schema
    ) -> Iterator[pa.RecordBatch]:
        """The usable rows of one split, CHUNK at a time."""
        repeats = Repeats()
        self.labels[split], self.groups[split] = repeats.labels, []
        pending: list[tuple[Any, ...]] = []
        for table in tables:
            reader = self.reader_of(table)
            for row in table.rows(list(self.needed())):
                number = self.next_row
                self.next_row += 1
                named = row.address in self.drop_rows
                self.last = row.address
                taken = self.take(row, reader, table, split, named)
                if taken is None:
                    continue
                texts, label, group = taken
                cleaned, trace = self.clean_texts(texts, split, row.address)
                if cleaned is None:
                    continue
                if named:
                    self.dropped["drop_rows"] += 1
                    repeats.leave_out(cleaned)
                    continue
                if self.clean.duplicates and repeats.is_left_out(cleaned):
                    self.dropped["drop_rows_again"] += 1
                    continue
                reason, place = repeats.find(texts, cleaned, label, trace)
                if reason == "conflicting_after_cleaning":
                    at = (split, row.address)
                    self.damage.note_conflict(repeats, place, trace, self.steps, *at)
                if reason is not None and self.clean.duplicates:
                    self.dropped[reason] += 1
                    continue
                repeats.keep(label, trace)
                if group is not None:
                    self.groups[split].append(group)
                values = [self._slice_values(row)] if self.slices else []
                pending.append((*cleaned, number, row.address, *values))
                if len(pending) == CHUNK:
                    yield record_batch(pending, schema)
                    pending = []
        if pending:
            yield record_batch(pending, schema)

    def take(
        self, row: Row | BadRow, reader: LabelReader, table: Table, split: str, named: bool
    ) -> tuple[tuple[str, ...], Label, str | None] | None:
        """Texts, plain label and group of a row; None where it is filtered out or bad. What is bad
        is no fault where it is `named` to be left out."""
        if named:
            self.met.add(row.address)
        if isinstance(row, BadRow):
            self.note_bad(row, table, split, named)
            return None
        try:
            if not is_kept(row.values, self.filter):
                self.filtered += 1
                return None
            require_columns(row.values, (*self.text, *self.label))
            texts = tuple(check_text(column, row.values[column]) for column in self.text)
            label = reader.read(row.values)
            group = self._group_of(row)
        except RowError as error:
            bad = BadRow(row.address, error.reason, str(error), error.column, error.value)
            self.note_bad(bad, table, split, named)
            return None
        return texts, sys.intern(label) if isinstance(label, str) else label, group

    def note_bad(self, bad: BadRow, table: Table, split: str, named: bool) -> None:
        if named:
            self.dropped["drop_rows"] += 1
        else:
            self.bad.note(bad, table, split)

    def _group_of(self, row: Row) -> str | None:
        """The value of the group's column; a row without one is a group of its own."""
        if self.group is None:
            return None
        require_columns(row.values, (self.group,))
        return group_name(row.values[self.group], row.address)

    def _slice_values(self, row: Row | BadRow) -> list[str]:
        """What stands in the columns of eval.slices, as texts."""
        assert isinstance(row, Row)  # it was taken
        self.unseen.difference_update(row.values)
        return [slice_text(row.values.get(column)) for column in self.slices]

    def check_slices(self) -> None:
        """Raises ValueError for a column of eval.slices that no row has."""
        for column in sorted(self.unseen):
            raise ValueError(f"eval.slices: no row has a field {column!r}")

    def clean_texts(
        self, texts: tuple[str, ...], split: str, address: str
    ) -> tuple[tuple[str, ...] | None, int]:
        """The cleaned texts and their trace, the steps counted that changed any of them; None for
        the texts where one is too short."""
        cleaned, trace = trace_steps(texts, self.steps)
        self.damage.seen[split] += 1
        if trace:
            self.changed.update(changed_steps(trace, self.steps))
        if self.damage.is_short(cleaned):
            self.damage.note_short(texts, self.steps, split, address)
            self.dropped["too_short"] += 1
            return None, trace
        return cleaned, trace


def group_name(value: Any, address: str) -> str:
    """A cell as the name of a group; an empty one is a group of that row alone."""
    empty = value is None or (isinstance(value, str) and not value.strip())
    return f"\0{address}" if empty else sys.intern(plain_form(value))


def record_batch(rows: list[tuple[Any, ...]], schema: pa.Schema) -> pa.RecordBatch:
    """Rows of values in the order of the schema's columns."""
    columns = zip(*rows, strict=True)
    arrays = [pa.array(values, f.type) for values, f in zip(columns, schema, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def slice_text(value: Any) -> str:
    """A cell as the name of a slice: what it says on one line, cut to SLICE_LETTERS; nothing where
    the cell is empty."""
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # 3.0, where another row of the column is empty
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    text = " ".join(text.encode("utf-8", errors="replace").decode("utf-8").split())
    return text if len(text) <= SLICE_LETTERS else text[: SLICE_LETTERS - 1] + "…"


def check_text(column: str, value: Any) -> str:
    """A cell as the text it holds. Raises RowError, naming the column, where it holds none."""
    if value is None or (isinstance(value, str) and not value.strip()):
        raise RowError("empty_text", column, "empty text", value)
    if isinstance(value, bytes):  # no UTF-8, or it would be a text by now
        value = value.decode("utf-8", errors="surrogateescape")
    if not isinstance(value, str):
        raise RowError("bad_text", column, f"expected text, got {str(value)[:60]!r}")
    if not is_encodable(value):
        raise RowError("bad_encoding", column, "text with a lone surrogate, which is no Unicode")
    return value
