"""The records of a CSV or TSV file: what Python's strict parser reads, and what it would swallow.

A quote that opens a field and is meant as a letter makes the parser take everything up to the next
such quote as one field: records are lost, and nothing is broken. So the physical lines of every
record are kept until it is whole. Where they look like records of their own, only the first of
them is bad, and the others are read again as what they are.
"""

import csv
import sys
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

SURE = 4  # lines that all look like records are no text, whatever they hold
LEARNED = 200  # records from whose values the few-valued columns are known
FEW = 20  # values of a column that is a label, a language, a yes or no
ALIKE = 0.8  # share of the lines of a record that look like records


@dataclass(frozen=True)
class Dialect:
    """How fields are told apart, all decided."""

    delimiter: str
    quoted: bool
    escape: str | None
    blanks: bool = False  # blanks follow the delimiters and belong to no field

    def parser(self, lines: Iterator[str]) -> Any:
        """Python's own parser, strict, over `lines`."""
        csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # the default refuses texts over 128 KiB
        return csv.reader(
            lines,
            delimiter=self.delimiter,
            quoting=csv.QUOTE_MINIMAL if self.quoted else csv.QUOTE_NONE,
            escapechar=self.escape,
            skipinitialspace=self.blanks,
            strict=True,
        )


class Record(NamedTuple):
    """The fields of one record, or why it has none: a `reason` to count it under and a message."""

    line: int  # where it starts, from 1
    fields: list[str]
    reason: str = ""
    message: str = ""


class _Swallowed(Exception):
    """A record that takes other records for its text."""


class Records:
    """Iterates over the records of `lines`, blank lines left out.

    `width` is the number of fields that a record has; None takes that of the first one.
    """

    def __init__(self, lines: Iterator[str], dialect: Dialect, width: int | None = None) -> None:
        self.lines, self.dialect, self.width = lines, dialect, width
        self.pending: deque[str] = deque()  # lines to be read again
        self.held: list[str] = []  # the lines of the record at hand
        self.values: list[dict[str, None]] = []  # of each column, as met in the first records
        self.learned = 0

    def __iter__(self) -> Iterator[Record]:
        line, parser = 1, self.dialect.parser(self._feed())
        while True:
            self.held.clear()
            try:
                fields = next(parser)
                if len(self.held) > 1 and self._is_swallowed():
                    raise _Swallowed
            except StopIteration:
                return
            except (csv.Error, _Swallowed) as error:
                yield self._broken(line, error)
                self.pending.extendleft(reversed(self.held[1:]))
                line, parser = line + 1, self.dialect.parser(self._feed())
                continue
            if fields:
                if self.width is None:
                    self.width = len(fields)
                if self.learned < LEARNED:
                    self._learn(fields)
                yield Record(line, fields)
            line += len(self.held)

    def _feed(self) -> Iterator[str]:
        """The lines for the parser, those to be read again first."""
        while True:
            line = self.pending.popleft() if self.pending else next(self.lines, "")
            if line == "":
                return
            self.held.append(line)
            yield line

    def _broken(self, line: int, error: Exception) -> Record:
        size = len(self.held)
        if isinstance(error, _Swallowed):
            return Record(
                line, [], "swallowed_lines",
                f"a quote opens a field here, which takes {size:,} lines up to line "
                f"{line + size - 1:,}, and these look like rows of their own",
            )  # fmt: skip
        message = f"broken CSV: {error} (an unbalanced quote?)"
        if size > 1:
            message += f"; a quote opens a field here, which takes {size:,} lines up to line "
            message += f"{line + size - 1:,}"
        return Record(line, [], "broken_csv", message)

    def _learn(self, fields: list[str]) -> None:
        self.learned += 1
        if not self.values:
            self.values = [{} for _ in fields]
        for seen, value in zip(self.values, fields, strict=False):
            if len(seen) <= FEW:
                seen[value] = None

    def _is_swallowed(self) -> bool:
        """Whether the lines held, split without a look at quotes, are records themselves: as many
        fields as the table has, no blank after a delimiter as prose has it, and (where the lines
        are few) the values that its few-valued columns have."""
        width = self.width or 0
        if width < 2 or not self.dialect.quoted:
            return False
        split = [self._split(line) for line in self.held]
        alike = [fields for fields in split if fields and self._looks_like_record(fields, width)]
        if len(split) >= SURE:
            return len(alike) >= ALIKE * len(split)
        return len(alike) == len(split) and (
            self.dialect.delimiter == "\t" or self._has_known_values(alike)
        )

    def _split(self, line: str) -> list[str]:
        return line.rstrip("\r\n").split(self.dialect.delimiter)

    def _looks_like_record(self, fields: list[str], width: int) -> bool:
        if len(fields) != width or sum(map(bool, fields)) < 2:
            return False
        return self.dialect.blanks or not any(field[:1].isspace() for field in fields[1:])

    def _has_known_values(self, rows: list[list[str]]) -> bool:
        few = [
            i for i, seen in enumerate(self.values)
            if self.learned >= 2 * len(seen) and len(seen) <= FEW
        ]  # fmt: skip
        return bool(few) and all(row[i].strip('"') in self.values[i] for row in rows for i in few)
