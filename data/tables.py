"""Strict readers: one file (CSV, TSV, JSON, Parquet, Arrow, Excel) becomes rows with addresses.

    open_table(path, name, Format()) -> Table; its .rows(columns) gives Row("file.csv:12", {...}) |
    BadRow

The parsers are the standard library's, so the texts "NA", "None" and "null" stay texts. A row that
cannot be read is handed on as a BadRow: whether that ends the run is for the caller to say.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from data.reading.columnar import (
    arrow_batches,
    open_parquet,
    open_sheet,
    parquet_class_names,
    read_arrow_file,
    read_parquet,
    read_sheet,
    sheet_names,
)
from data.reading.content import PACKED_SUFFIXES, plain_suffix, sniff
from data.reading.delimited import read_delimited, read_layout
from data.reading.formats import Format
from data.reading.json_rows import read_json
from data.reading.rows import BadRow, Row

DELIMITED, JSON = (".csv", ".tsv", ".tab"), (".jsonl", ".ndjson", ".json")
SUFFIXES = (*DELIMITED, *JSON, ".parquet", ".arrow", ".feather", ".xlsx")
NO_TEXT = {".parquet": "Parquet", ".arrow": "Arrow", ".feather": "Arrow", ".xlsx": "Excel"}
UNSAID = (".txt", ".data", ".dat", "")  # delimited text, but by what has to be said

Rows = Callable[[Sequence[str]], Iterator[Row | BadRow]]
RowsFrom = Callable[[Sequence[str], int], Iterator[Row | BadRow]]
Digest = Callable[[Path], str]
STRETCHES, STRETCH = 16, 1 << 16  # of a file, and bytes in each, that a sampled digest reads


@dataclass(frozen=True)
class Table:
    """A readable table. `columns` is None where each row brings its own names (JSON). `notes` say
    what was decided about how it is written. `count` is the number of rows where the table says it,
    `rows_from` reads from a row on where that is quicker than reading all before it."""

    path: str  # as errors name it
    digest: str  # identity of the content
    columns: tuple[str, ...] | None
    rows: Rows
    class_names: dict[str, tuple[str, ...]] = field(default_factory=dict)  # of numbered classes
    notes: tuple[str, ...] = ()
    count: int | None = None
    rows_from: RowsFrom | None = None

    def read(self, needed: Sequence[str], start: int) -> Iterator[Row | BadRow]:
        """The rows from number `start` on, bad ones counted."""
        if self.rows_from is not None:
            return self.rows_from(needed, start)
        return islice(self.rows(needed), start, None)


def whole_digest(path: Path) -> str:
    """sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sampled_digest(path: Path) -> str:
    """sha256 of a file's size and of stretches of it, its first and last bytes among them: a
    megabyte is read of the largest file. A change of the same length between the stretches is not
    noticed; a Parquet file's last bytes say much of all others."""
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        for i in range(STRETCHES):
            file.seek(max(0, size - STRETCH) * i // (STRETCHES - 1))
            digest.update(file.read(STRETCH))
    return digest.hexdigest()


def open_table(
    path: Path,
    name: str,
    fmt: Format = Format(),  # noqa: B008  frozen
    identify: Digest = whole_digest,
) -> Table:
    """Open a file by its first bytes and its ending; `name` is what addresses call it, and
    `identify` gives the table's digest.

    Raises ValueError for a file that is missing, that is no table, or without a usable header.
    """
    suffix = plain_suffix(path)
    if suffix not in SUFFIXES and not (suffix in UNSAID and fmt.delimiter):
        why = " or set data.delimiter" if suffix in UNSAID else ""
        raise ValueError(
            f"data.source: {path} is not a table this program reads; the file's ending has to be "
            f"one of {', '.join(SUFFIXES)} (and {', '.join(PACKED_SUFFIXES)} behind it){why}"
        )
    content = sniff(path)
    digest = identify(path)
    if content == "parquet":
        return _parquet_table(path, name, digest)
    if content == "arrow":
        return _arrow_table(path, name, digest)
    if content == "excel":
        return _sheet_table(path, name, digest, suffix, fmt)
    if suffix in NO_TEXT:
        raise ValueError(
            f"{path} is text, and no {NO_TEXT[suffix]} file; call it what it is (.csv, .tsv or "
            ".jsonl)"
        )
    if suffix in JSON:

        def read(needed: Sequence[str], start: int = 0) -> Iterator[Row | BadRow]:
            return read_json(path, name, needed, fmt.encoding, start)

        return Table(str(path), digest, None, read, rows_from=read)
    layout = read_layout(path, fmt, tabs=suffix in (".tsv", ".tab"))
    return Table(
        str(path), digest, layout.names, lambda needed: read_delimited(layout, name),
        notes=layout.notes,
    )  # fmt: skip


def _columnar_table(
    path: Path, digest: str, schema: Any, count: int,
    read: Callable[..., Iterator[Row | BadRow]],
) -> Table:  # fmt: skip
    """A file that says its columns and how many rows it has, and can be read from any of them."""
    return Table(
        str(path), digest, tuple(schema.names), read, parquet_class_names(schema),
        count=count, rows_from=read,
    )  # fmt: skip


def _parquet_table(path: Path, name: str, digest: str) -> Table:
    with open_parquet(path) as file:
        schema, count = file.schema_arrow, file.metadata.num_rows

    def read(needed: Sequence[str], start: int = 0) -> Iterator[Row | BadRow]:
        return read_parquet(path, name, needed, start)

    return _columnar_table(path, digest, schema, count, read)


def _arrow_table(path: Path, name: str, digest: str) -> Table:
    count, schema = 0, None
    for batch in arrow_batches(path):
        count, schema = count + batch.num_rows, batch.schema
    if schema is None:
        raise ValueError(f"{path}: an Arrow file without a row")

    def read(needed: Sequence[str], start: int = 0) -> Iterator[Row | BadRow]:
        return read_arrow_file(path, name, needed, start)

    return _columnar_table(path, digest, schema, count, read)


def _sheet_table(path: Path, name: str, digest: str, suffix: str, fmt: Format) -> Table:
    if suffix != ".xlsx":
        raise ValueError(
            f"{path} is an Excel file, whatever its ending says; save its sheet as CSV (in Excel: "
            "“CSV UTF-8”), or call it .xlsx"
        )
    sheet, notes = open_sheet(path)
    names = sheet_names(sheet, path, fmt.header)
    return Table(
        str(path), digest, names,
        lambda needed: read_sheet(sheet, name, names, fmt.header), notes=tuple(notes),
    )  # fmt: skip
