"""Parquet, Arrow and Excel: files that know their columns."""

import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from data.reading.content import open_bytes, unpacking
from data.reading.formats import FIRST_LINE, NO_HEADER
from data.reading.rows import BadRow, Row, decode_bytes, with_nested
from files.errors import meets_limit

CHUNK = 1000  # rows read at a time
FEW = 50  # of them turned into Python objects at a time: often no more are wanted


def open_parquet(path: Path) -> pq.ParquetFile:
    """The file, unpacked to a temporary one where it is packed as a whole.

    Raises ValueError, naming the file, where it is damaged.
    """
    source: str | IO[bytes] = str(path)
    with unpacking(path), open_bytes(path) as file:
        if type(file).__module__ != "_io":  # gzip and its like cannot be read from the end
            source = tempfile.TemporaryFile()  # noqa: SIM115  the reader closes it
            while block := file.read(1 << 20):
                source.write(block)
    try:
        return pq.ParquetFile(source)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(
            f"{path}: a Parquet file that is cut short or damaged ({str(error)[:100]}); fetch it "
            "again"
        ) from None


def read_parquet(
    path: Path, name: str, needed: Sequence[str], start: int = 0
) -> Iterator[Row | BadRow]:
    """The rows from number `start` on with the columns needed; a dotted name reaches into a struct.
    Row groups that end before `start` are not read."""
    with open_parquet(path) as file:
        there = set(file.schema_arrow.names)
        columns = list(dict.fromkeys(c if c in there else c.partition(".")[0] for c in needed))
        groups = list(range(file.num_row_groups))
        begin = 0
        while groups and begin + file.metadata.row_group(groups[0]).num_rows <= start:
            begin += file.metadata.row_group(groups.pop(0)).num_rows
        try:
            for batch in file.iter_batches(batch_size=CHUNK, row_groups=groups, columns=columns):
                for i, values in numbered(batch, start - begin):
                    yield Row(f"{name}[{begin + i}]", with_nested(decode_bytes(values), needed))
                begin += batch.num_rows
        except (pa.ArrowException, OSError) as error:
            raise ValueError(f"{path}: damaged behind row {begin:,} ({str(error)[:100]})") from None


def numbered(batch: pa.RecordBatch, start: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a batch from number `start` on, each with its number, made as they are asked
    for."""
    for first in range(max(0, start), batch.num_rows, FEW):
        yield from enumerate(batch.slice(first, FEW).to_pylist(), start=first)


def arrow_batches(path: Path) -> Iterator[pa.RecordBatch]:
    """The batches of an Arrow file, mapped and not copied: of the file format (Feather), or of the
    stream format, as `datasets` keeps its own. Raises ValueError, naming the file, where it is
    damaged."""
    try:
        with pa.memory_map(str(path)) as source:
            if source.read(6) == b"ARROW1":
                file = pa.ipc.open_file(source)
                yield from (file.get_batch(i) for i in range(file.num_record_batches))
                return
            source.seek(0)
            yield from pa.ipc.open_stream(source)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(
            f"{path}: an Arrow file that is cut short, damaged or packed ({str(error)[:100]}); "
            "fetch it again, unpacked"
        ) from None


def read_arrow_file(
    path: Path, name: str, needed: Sequence[str], start: int = 0
) -> Iterator[Row | BadRow]:
    """The rows from number `start` on with the columns needed, as read_parquet."""
    begin = 0
    for batch in arrow_batches(path):
        there = set(batch.schema.names)
        columns = list(dict.fromkeys(c if c in there else c.partition(".")[0] for c in needed))
        for i, values in numbered(batch.select(columns), start - begin):
            yield Row(f"{name}[{begin + i}]", with_nested(decode_bytes(values), needed))
        begin += batch.num_rows


def parquet_class_names(schema: pa.Schema) -> dict[str, tuple[str, ...]]:
    """The names of numbered classes that `datasets` keeps in the schema's metadata."""
    try:
        info = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {
            column: tuple(map(str, feature["names"]))
            for column, feature in info.items()
            if feature.get("_type") == "ClassLabel"
        }
    except (KeyError, ValueError, AttributeError, TypeError):
        return {}


def open_sheet(path: Path) -> tuple[Any, list[str]]:
    """The first sheet of an Excel file, read-only, and a note where there are more.

    Raises ValueError, with both ways out, where openpyxl is not installed.
    """
    try:
        import openpyxl
    except ImportError:
        raise ValueError(
            f"{path} is an Excel file; save its sheet as CSV (in Excel: “CSV UTF-8”), or install "
            "what reads it: pip install openpyxl"
        ) from None
    try:
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
    except Exception as error:  # what openpyxl raises for damaged parts has no common class
        if meets_limit(error):
            raise
        raise ValueError(f"{path}: this Excel file cannot be read ({error})") from None
    sheets = [sheet for sheet in book.worksheets if sheet.sheet_state == "visible"]
    if not sheets:
        raise ValueError(f"{path}: an Excel file without a sheet that holds cells")
    others = ", ".join(sheet.title for sheet in sheets[1:])
    notes = [f"{path.name}: sheet {sheets[0].title!r} is read; not {others}"] if others else []
    return sheets[0], notes


def sheet_names(sheet: Any, path: Path, header: str | tuple[str, ...]) -> tuple[str, ...]:
    """The columns' names. Raises ValueError where there are none, or as many as do not fit."""
    first = next(sheet.iter_rows(values_only=True), ())
    names = ["" if value is None else str(value).strip() for value in first]
    while names and not names[-1]:
        names.pop()
    if not names:
        raise ValueError(f"{path}: the first row of the sheet is empty; expected column names")
    if header == NO_HEADER:
        return tuple(f"column_{i}" for i in range(1, len(names) + 1))
    if isinstance(header, tuple):
        if len(header) != len(names):
            raise ValueError(
                f"{path}: {len(names)} columns, and data.header gives {len(header)} names"
            )
        return header
    return tuple(names)


def read_sheet(
    sheet: Any, name: str, names: tuple[str, ...], header: str | tuple[str, ...]
) -> Iterator[Row | BadRow]:
    """The rows of a sheet; empty ones are left out, as blank lines of a CSV are."""
    start = 2 if header == FIRST_LINE else 1
    for number, cells in enumerate(sheet.iter_rows(min_row=start, values_only=True), start=start):
        if all(cell is None for cell in cells):
            continue
        padded = (*cells[: len(names)], *[None] * (len(names) - len(cells)))
        yield Row(f"{name}:{number}", dict(zip(names, padded, strict=True)))
