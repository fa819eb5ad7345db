"""Strict readers: one file (CSV, TSV, JSONL, Parquet) becomes rows that know their address.

    open_table(path, name) -> Table; its .rows(columns) gives Row("file.csv:12", {...}) | BadRow

The parsers are the standard library's, so the texts "NA", "None" and "null" stay texts. A row that
cannot be read is handed on as a BadRow: whether that ends the run is for the caller to say.
"""

import csv
import difflib
import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import pyarrow.parquet as pq

SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet")
CHUNK = 1000  # rows of a columnar file turned into Python objects at a time


class Row(NamedTuple):
    """One record; `address` is "file.csv:12" (the line where it starts) or "set/train[7]"."""

    address: str
    values: dict[str, Any]


class BadRow(NamedTuple):
    """A record that cannot be used: counted under `reason`, told by `message`."""

    address: str
    reason: str
    message: str


@dataclass(frozen=True)
class Table:
    """A readable table. `columns` is None where each row brings its own names (JSONL)."""

    path: str  # as errors name it
    digest: str  # identity of the content
    columns: tuple[str, ...] | None
    rows: Callable[[Sequence[str]], Iterator[Row | BadRow]]
    class_names: dict[str, tuple[str, ...]] = field(default_factory=dict)  # of hub sets


def nearest(name: str, names: Sequence[str]) -> str:
    """The end of an error message: " (did you mean 'label'?)", or nothing where no name is near."""
    folded = {n.casefold(): n for n in names}
    found = difflib.get_close_matches(name.casefold(), list(folded), n=1, cutoff=0.5)
    return f" (did you mean {folded[found[0]]!r}?)" if found else ""


def open_table(path: Path, name: str) -> Table:
    """Open a file by its suffix; `name` is what addresses call it.

    Raises ValueError for a file that is missing, of an unknown kind or without a usable header.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(
            f"data.source: {path} is not a table this program reads; the file's ending has to be "
            f"one of {', '.join(SUFFIXES)}"
        )
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    columns: tuple[str, ...] | None = None
    if suffix in (".csv", ".tsv"):
        delimiter = "\t" if suffix == ".tsv" else ","
        columns = _read_header(path, delimiter)

        def rows(needed: Sequence[str]) -> Iterator[Row | BadRow]:
            return _read_csv(path, name, delimiter)
    elif suffix == ".parquet":
        columns = tuple(pq.read_schema(path).names)

        def rows(needed: Sequence[str]) -> Iterator[Row | BadRow]:
            return _read_parquet(path, name, needed)
    else:

        def rows(needed: Sequence[str]) -> Iterator[Row | BadRow]:
            return _read_jsonl(path, name)

    return Table(str(path), digest, columns, rows)


class Lines:
    """The lines of a file as strict UTF-8. A line that is not is noted in `bad`, by number, so that
    the record which holds it can be refused while the rest of the file is still read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.number = 0
        self.bad: list[str] = []  # what is wrong with the lines since this was last cleared

    def __iter__(self) -> Iterator[str]:
        with self.path.open("rb") as file:
            for self.number, raw in enumerate(file, start=1):
                if self.number == 1:
                    raw = raw.removeprefix(b"\xef\xbb\xbf")  # a byte order mark is no text
                try:
                    yield raw.decode("utf-8")
                except UnicodeDecodeError as error:
                    byte = raw[error.start]
                    self.bad.append(f"bad UTF-8 in line {self.number}: byte 0x{byte:02X}")
                    yield raw.decode("utf-8", errors="surrogateescape")


def _parser(lines: Lines, delimiter: str) -> Any:
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # the default refuses texts over 128 KiB
    return csv.reader(iter(lines), delimiter=delimiter, strict=True)


def _read_header(path: Path, delimiter: str) -> tuple[str, ...]:
    def refuse(what: str) -> NoReturn:
        raise ValueError(
            f"{path}:1: {what}; expected one line of column names, as UTF-8 text with "
            f"{'tabs' if delimiter == chr(9) else 'commas'} between them"
        )

    lines = Lines(path)
    try:
        header = next((fields for fields in _parser(lines, delimiter) if fields), None)
    except csv.Error as error:
        refuse(f"the header cannot be read: {error}")
    if lines.bad:
        refuse(lines.bad[0])
    if header is None:
        refuse("the file is empty")
    if "" in header:
        refuse(f"column {header.index('') + 1} has no name")
    if len(set(header)) < len(header):
        twice = next(name for name in header if header.count(name) > 1)
        refuse(f"column {twice!r} stands there twice")
    return tuple(header)


def _read_csv(path: Path, name: str, delimiter: str) -> Iterator[Row | BadRow]:
    lines = Lines(path)
    parser = _parser(lines, delimiter)
    header: list[str] | None = None
    while True:
        address = f"{name}:{parser.line_num + 1}"
        try:
            fields = next(parser)
        except StopIteration:
            return
        except csv.Error as error:
            # The parser starts afresh with the next line.
            yield BadRow(address, "broken_csv", f"broken CSV: {error} (an unbalanced quote?)")
            lines.bad.clear()
            continue
        if lines.bad:
            column = _field_with_bad_bytes(header or [], fields)
            yield BadRow(address, "bad_utf8", f"{column}{'; '.join(lines.bad)}")
            lines.bad.clear()
        elif not fields:
            continue  # an empty line
        elif header is None:
            header = fields
        elif len(fields) != len(header):
            message = f"ragged row: {len(fields)} fields, the header has {len(header)}"
            if len(fields) < len(header):
                message = f"{header[len(fields)]}: {message}"
            yield BadRow(address, "ragged_row", message)
        else:
            yield Row(address, dict(zip(header, fields, strict=True)))


def _field_with_bad_bytes(header: list[str], fields: list[str]) -> str:
    for column, value in zip(header, fields, strict=False):
        if not is_encodable(value):
            return f"{column}: "
    return ""


def is_encodable(text: str) -> bool:
    """False for text with lone surrogates (undecodable bytes, or a broken JSON escape)."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON value")


def _read_jsonl(path: Path, name: str) -> Iterator[Row | BadRow]:
    lines = Lines(path)
    for line in lines:
        address = f"{name}:{lines.number}"
        if lines.bad:
            yield BadRow(address, "bad_utf8", "; ".join(lines.bad))
            lines.bad.clear()
            continue
        if not line.strip():
            continue
        try:
            values = json.loads(line, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            yield BadRow(address, "broken_json", f"broken JSON: {error}")
            continue
        if isinstance(values, dict):
            yield Row(address, values)
        else:
            got = type(values).__name__
            message = f"expected one JSON object a line, got a {got}"
            yield BadRow(address, "broken_json", message)


def _read_parquet(path: Path, name: str, needed: Sequence[str]) -> Iterator[Row | BadRow]:
    start = 0
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=CHUNK, columns=list(needed)):
            for i, values in enumerate(batch.to_pylist()):
                yield Row(f"{name}[{start + i}]", values)
            start += batch.num_rows
