"""Plain rows into a file that other programs open: JSON lines, CSV or Parquet.

    write_rows(file, ".parquet", column_types([], chunks()), chunks())

Rows are dictionaries and come in chunks, so that memory holds one chunk (Parquet: a group of them).
Half a surrogate pair, which no such file can hold, becomes U+FFFD.
"""

import csv
import io
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date, time
from typing import Any, BinaryIO, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from data.reading.rows import is_encodable
from files.printable import escape_in_json

ENDINGS = (".jsonl", ".csv", ".parquet")
GROUP = 8192  # rows of a Parquet row group
FORMULA = re.compile(r"[=+\-@\t\r]")  # as the page of serve.py has both: page/csv.js
NUMBER = re.compile(r"[+-]?([0-9]+([.,][0-9]*)?|[.,][0-9]+)([eE][+-]?[0-9]+)?")
SURROGATE = re.compile("[\ud800-\udfff]")

Rows = Sequence[Mapping[str, Any]]


def write_rows(
    file: BinaryIO, ending: str, types: Mapping[str, pa.DataType], chunks: Iterable[Rows]
) -> None:
    """Write all rows to an open file; `ending` is one of ENDINGS. `types` are the columns of a
    table, in order, as `column_types` gives them; rows of JSON lines have whatever they have. In a
    table a missing value is an empty cell, and a list or an object is JSON text; in a CSV, which
    table programs open, none is taken for a formula."""
    if ending == ".parquet":
        _write_parquet(file, types, chunks)
        return
    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
    if ending == ".csv":
        _write_csv(text, list(types), chunks)
    else:
        for rows in chunks:
            text.writelines(f"{json_text(row)}\n" for row in rows)
    text.detach()  # flushed; whoever opened the file closes it


def json_text(value: Any) -> str:
    """A value as JSON on one line. NaN, which JSON has not, becomes null; what could steer the
    terminal it is printed on is escaped."""
    return escape_in_json(json.dumps(_plain(value), ensure_ascii=False, allow_nan=False))


def _plain(value: Any) -> Any:
    """A value made of what JSON has."""
    if isinstance(value, str):
        return value if is_encodable(value) else SURROGATE.sub("\ufffd", value)
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {_plain(str(key)): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    return value.isoformat() if isinstance(value, date | time) else str(value)


# Tables


def column_types(names: Sequence[str], chunks: Iterable[Rows]) -> dict[str, pa.DataType]:
    """The type of each column over all rows, `names` first, then others as they are met. A column
    of texts and numbers, or of lists and objects, is one of texts."""
    types: dict[str, pa.DataType] = {name: pa.null() for name in names}
    for rows in chunks:
        for name in dict.fromkeys(name for row in rows for name in row):
            met = _type_of([row.get(name) for row in rows])
            types[name] = _join(types.get(name, pa.null()), met)
    return {name: pa.string() if pa.types.is_null(t) else t for name, t in types.items()}


def _type_of(values: list[Any]) -> pa.DataType:
    try:
        met = pa.array(values).type
    except (pa.ArrowException, ValueError, TypeError, OverflowError):  # mixed, or too large
        return pa.string()
    return pa.string() if pa.types.is_nested(met) or pa.types.is_binary(met) else met


def _join(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    schemas = [pa.schema([("column", met)]) for met in (one, other)]
    try:
        return pa.unify_schemas(schemas, promote_options="permissive").field("column").type
    except pa.ArrowException:
        return pa.string()


def _cell_text(value: Any) -> str | None:
    """A value as the text of a cell; None stays None."""
    plain = _plain(value)
    if plain is None or isinstance(plain, str):
        return plain
    return json_text(plain)


def _write_csv(file: TextIO, names: list[str], chunks: Iterable[Rows]) -> None:
    plain = csv.writer(file, lineterminator="\n")
    # Python quotes only the line end it writes itself; a reader takes a bare \r for one as well
    quoted = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL)
    for row in _csv_rows(names, chunks):
        (quoted if any("\r" in cell for cell in row) else plain).writerow(row)


def _csv_rows(names: list[str], chunks: Iterable[Rows]) -> Iterator[list[str]]:
    yield [harmless(_plain(name)) for name in names]
    for rows in chunks:
        for row in rows:
            yield [harmless(_cell_text(row.get(name)) or "") for name in names]


def harmless(cell: str) -> str:
    """A cell that no table program takes for a formula: an apostrophe stands before one, as OWASP
    has it. A number is none."""
    return f"'{cell}" if FORMULA.match(cell) and not NUMBER.fullmatch(cell) else cell


def _write_parquet(
    file: BinaryIO, types: Mapping[str, pa.DataType], chunks: Iterable[Rows]
) -> None:
    schema = pa.schema([(_plain(name), met) for name, met in types.items()])
    with pq.ParquetWriter(file, schema) as writer:
        group: list[Mapping[str, Any]] = []
        for rows in chunks:
            group.extend(rows)
            if len(group) >= GROUP:
                writer.write_table(_arrow_table(group, types, schema))
                group = []
        if group:
            writer.write_table(_arrow_table(group, types, schema))


def _arrow_table(rows: Rows, types: Mapping[str, pa.DataType], schema: pa.Schema) -> pa.Table:
    columns = []
    for name, met in types.items():
        values = [row.get(name) for row in rows]
        if pa.types.is_string(met):
            values = [_cell_text(value) for value in values]
        elif pa.types.is_floating(met):  # which may have begun with integers
            values = [None if value is None else float(value) for value in values]
        columns.append(pa.array(values, met))
    return pa.Table.from_arrays(columns, schema=schema)
