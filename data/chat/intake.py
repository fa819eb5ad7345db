"""Conversations on their way in: filter, messages, cleaning, all counted, one at a time. What
memory keeps of each is nothing; two keys of 16 bytes beside it on disk tell which stand twice.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from data.bad_rows import BadRows
from data.cache import read_arrow, write_arrow
from data.chat.messages import MessageReader
from data.chat.turns import TEXT, Message
from data.clean import CleanArgs, Step, changed_steps, cleaning_steps, normalise, trace_steps
from data.columns import is_kept, require_columns
from data.filters import Filter
from data.intake import group_name, record_batch
from data.labels.reader import RowError
from data.reading.columnar import CHUNK
from data.reading.rows import BadRow, Row
from data.splits import text_key
from data.tables import Table

MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
KEY = pa.binary(16)
SCHEMA = pa.schema(
    [("messages", MESSAGES), ("row", pa.int64()), ("address", pa.string()), ("exact", KEY),
     ("key", KEY)]
)  # fmt: skip


@dataclass(frozen=True)
class ChatClean:
    """What is done to each message, in this order: control (control characters become a space),
    unicode (normal form), ends (no white space at the ends; of plain text it stays). Blanks, line
    ends and HTML inside stay as they are: answers hold code. `duplicates` drops a conversation that
    stood there before.
    """

    control: bool = True
    unicode: Literal["NFC", "NFKC", "none"] = "NFC"
    ends: bool = True
    duplicates: bool = True


def message_steps(clean: ChatClean, texts: bool) -> list[Step]:
    """What is done to each message, or to each of plain `texts`, which keep their ends."""
    plain = CleanArgs(html=False, control=clean.control, unicode=clean.unicode, spaces=False)
    return [*cleaning_steps(plain), *[("ends", str.strip)] * (clean.ends and not texts)]


@dataclass
class ChatIntake:
    """Reads tables into Arrow files, whatever their size. `groups[split]`: the group of each row
    written, where data.group names a column."""

    reader: MessageReader
    clean: ChatClean
    kept_by: Filter | None = None
    group: str | None = None
    drop_rows: Collection[str] = ()  # addresses that are left out
    groups: dict[str, list[str]] = field(default_factory=dict)
    left_out: list[bytes] = field(default_factory=list)  # keys of those in drop_rows
    read: dict[str, int] = field(default_factory=dict)
    filtered: int = 0
    bad: BadRows = field(default_factory=lambda: BadRows("data.messages and data.roles"))
    changed: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    met: set[str] = field(default_factory=set)  # those of drop_rows that there are
    last: str = ""  # an address, as an example
    texts: int = 0  # usable rows that are plain text
    first: dict[bool, str] = field(default_factory=dict)  # address of the first text, conversation

    def __post_init__(self) -> None:
        self.text_steps = message_steps(self.clean, texts=True)
        self.steps = message_steps(self.clean, texts=False)
        self.next_row = 0  # numbers the records of the whole source, used or not

    def needed(self) -> dict[str, str]:
        """Every column that is looked at, with the config key that asks for it."""
        keys = {} if self.group is None else {self.group: "data.group"}
        keys |= dict.fromkeys(self.kept_by.columns if self.kept_by else (), "data.filter")
        return keys | dict.fromkeys(self.reader.columns, "data.messages")

    def read_split(self, split: str, tables: Sequence[Table], path: Path) -> None:
        """Write the usable conversations of the tables to an Arrow file with the columns of
        SCHEMA."""
        first = self.next_row
        write_arrow(path, SCHEMA, self._batches(split, tables))
        self.read[split] = self.next_row - first

    def _batches(self, split: str, tables: Sequence[Table]) -> Iterator[pa.RecordBatch]:
        self.groups[split] = []
        pending: list[tuple[Any, ...]] = []
        for table in tables:
            for row in table.rows(list(self.needed())):
                number = self.next_row
                self.next_row += 1
                self.last = row.address
                messages = self.take(row, table, split)
                if messages is None:
                    continue
                exact, key = conversation_keys(messages)
                if row.address in self.drop_rows:
                    self.dropped["drop_rows"] += 1
                    self.left_out.append(exact)
                    continue
                text = messages[0]["role"] == TEXT
                self.texts += text
                self.first.setdefault(text, row.address)
                if self.group is not None and isinstance(row, Row):
                    self.groups[split].append(group_name(row.values[self.group], row.address))
                pending.append((messages, number, row.address, exact, key))
                if len(pending) == CHUNK:
                    yield record_batch(pending, SCHEMA)
                    pending = []
        if pending:
            yield record_batch(pending, SCHEMA)

    def check_kind(self) -> None:
        """Raise ValueError for a source of which some rows are plain text and others conversations:
        all of a text is learned, and a conversation whose form is not known looks like one."""
        if len(self.first) == 2:
            raise ValueError(
                f"data.messages: {self.texts:,} of the rows are plain text (the first is "
                f"{self.first[True]}), the others conversations (the first is "
                f"{self.first[False]}). Of a text all is learned, of a conversation the replies: "
                "correct those rows, leave them out (data.filter, data.drop_rows), or make a "
                "source of each"
            )

    def take(self, row: Row | BadRow, table: Table, split: str) -> list[Message] | None:
        """The cleaned messages of a row; None where it is filtered out or bad. What is bad is no
        fault where it is named to be left out."""
        named = row.address in self.drop_rows
        if named:
            self.met.add(row.address)
        try:
            if isinstance(row, BadRow):
                raise RowError(row.reason, row.column, row.message, row.value)
            if not is_kept(row.values, self.kept_by):
                self.filtered += 1
                return None
            if self.group is not None:
                require_columns(row.values, (self.group,))
            return self._clean(self.reader.read(row.values))
        except RowError as error:
            if named:
                self.dropped["drop_rows"] += 1
            else:
                message = row.message if isinstance(row, BadRow) else str(error)
                bad = BadRow(row.address, error.reason, message, error.column, error.value)
                self.bad.note(bad, table, split)
            return None

    def _clean(self, messages: Sequence[Message]) -> list[Message]:
        """The messages through the steps. Raises RowError where nothing is left of one."""
        steps = self.text_steps if messages[0]["role"] == TEXT else self.steps
        texts, trace = trace_steps(tuple(m["content"] for m in messages), steps)
        if not trace:
            return list(messages)
        self.changed.update(changed_steps(trace, steps))
        for number, (message, text) in enumerate(zip(messages, texts, strict=True), start=1):
            if message["role"] in (TEXT, "user", "assistant") and not text.strip():
                column = ", ".join(self.reader.columns)
                raise RowError("empty_turn", column, f"cleaning leaves nothing of turn {number}")
        return [
            {"role": m["role"], "content": text} for m, text in zip(messages, texts, strict=True)
        ]


def conversation_keys(messages: Sequence[Message]) -> tuple[bytes, bytes]:
    """16 bytes that stand for a conversation, and 16 for the form in which two count as the
    same."""
    texts = [(message["role"], message["content"]) for message in messages]
    exact = text_key("\0".join(f"{role}\1{content}" for role, content in texts))
    key = text_key("\0".join(f"{role}\1{normalise(content)}" for role, content in texts))
    return exact, key


def first_places(path: Path, left_out: Sequence[bytes]) -> tuple[np.ndarray, dict[str, int]]:
    """Places (n,) of the rows of a written split that repeat no earlier one, in order, and how many
    were dropped, by reason: repeated ones, and those that equal one which a person left out."""
    table = read_arrow(path).data.table
    keys = np.concatenate([np.empty(0, "V16"), *map(_as_keys, table.column("exact").chunks)])
    _, first = np.unique(keys, return_index=True)
    first = np.sort(first)
    dropped = {"duplicates": len(keys) - len(first)}
    if left_out:
        again = np.isin(keys[first], np.frombuffer(b"".join(left_out), dtype="V16"))
        first = first[~again]
        dropped["drop_rows_again"] = int(again.sum())
    return first, {reason: n for reason, n in dropped.items() if n}


def _as_keys(chunk: pa.Array) -> np.ndarray:
    """(rows,) of 16 bytes, as they lie on disk."""
    return np.frombuffer(chunk.buffers()[1], "V16")[chunk.offset : chunk.offset + len(chunk)]


def describe_turns(columns: Mapping[str, None], merged: int, texts: int) -> list[str]:
    """What was done to turns beside cleaning, and how many rows have none, for people."""
    lines = []
    if texts:
        lines.append(f"plain text, all of it learned: {texts:,} rows")
    if merged:
        lines.append(f"turns merged into the one before, of the same speaker: {merged:,}")
    if columns:
        lines.append(f"fields of turns that nothing reads: {', '.join(columns)}")
    return lines
