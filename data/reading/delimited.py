"""CSV and TSV: the header with its names, then one Row or BadRow a record."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import NoReturn

from data.reading.content import open_bytes, unpacking
from data.reading.formats import NO_HEADER, Format
from data.reading.lines import Lines
from data.reading.records import Dialect, Record, Records
from data.reading.rows import BadRow, Row, is_encodable

INVISIBLE = "\ufeff\u200b\xa0 \t"  # around names: marks left where files were joined, blanks
OTHERS = ";\t|,"  # delimiters to suggest


@dataclass(frozen=True)
class Layout:
    """How one file is to be read, all decided. `notes`: what was decided, and why."""

    path: Path
    encoding: str
    dialect: Dialect
    names: tuple[str, ...]
    header: list[str] | None  # the line of the file that holds the names and is no row
    marked: bool  # whether the first line is Excel's sep=…
    notes: tuple[str, ...] = ()


def read_layout(path: Path, fmt: Format, tabs: bool) -> Layout:
    """Look at the beginning of a file (of a TSV, where quotes stand in it, at all of it).

    Raises ValueError for a header that cannot be used, naming the file and the way out.
    """
    lines = Lines(path, fmt.encoding)
    first = next(iter(lines), "")
    marked = first[:4].lower() == "sep=" and len(first.rstrip("\r\n")) == 5
    mark = first[4] if marked else None
    delimiter = fmt.delimiter or mark or ("\t" if tabs else ",")
    notes = []
    if mark is not None and fmt.delimiter is None:
        notes.append(f"{path.name}: fields are separated by {mark!r}, as its first line says")
    dialect = Dialect(delimiter, fmt.quoting != "none", fmt.escape)
    header, names, blanks = _read_names(path, fmt, dialect, marked)
    if len(names) > len(header or names):
        notes.append(f"{path.name}: its first column has no name (R numbers rows so)")
    if blanks:
        dialect = replace(dialect, blanks=True)
        notes.append(f"{path.name}: a blank follows the delimiters; it belongs to no field")
    layout = Layout(path, fmt.encoding, dialect, names, header, marked)
    if nameless := [i for i, name in enumerate(names, start=1) if not name]:
        columns = ", ".join(map(str, nameless))
        notes.append(f"{path.name}: no name over column {columns}, which cannot be used")
    if fmt.quoting is None and delimiter == "\t" and _reads_only_without_quotes(layout):
        layout = replace(layout, dialect=replace(dialect, quoted=False))
        notes.append(
            f'{path.name}: read without quoting (data.quoting = "none"): quotes in it enclose no '
            "field, since none is doubled and they would swallow or break rows"
        )
    return replace(layout, notes=tuple(notes))


def _read_names(
    path: Path, fmt: Format, dialect: Dialect, marked: bool
) -> tuple[list[str] | None, tuple[str, ...], bool]:
    """The line of names, the columns' names, and whether blanks follow the delimiters."""

    def refuse(what: str, line: int = 1) -> NoReturn:
        between = {"\t": "tabs", ",": "commas"}.get(dialect.delimiter, repr(dialect.delimiter))
        raise ValueError(
            f"{path}:{line}: {what}; expected one line of column names, as text in "
            f"{lines.encoding} (data.encoding) with {between} between them (data.delimiter)"
        )

    lines = Lines(path, fmt.encoding)
    record = next(iter(_records(lines, dialect, marked, None)), None)
    if record is None:
        refuse("the file is empty")
    if record.reason:
        refuse(f"the header cannot be read: {record.message}", record.line)
    fields = record.fields
    if fmt.header == NO_HEADER:
        return None, tuple(f"column_{i}" for i in range(1, len(fields) + 1)), False
    if isinstance(fmt.header, tuple):
        if [field.strip() for field in fields] == list(fmt.header):
            refuse("the first line holds the names that data.header gives; leave data.header out")
        if len(fields) != len(fmt.header):
            refuse(f"{len(fields)} fields, and data.header gives {len(fmt.header)} names")
        return None, fmt.header, False
    if lines.bad:
        refuse(lines.bad[0])
    blanks = len(fields) > 1 and any(field[:1] == " " for field in fields[1:])
    if blanks:  # a quote after the blank encloses its field once the blank is none of it
        lines = Lines(path, fmt.encoding)
        again = next(iter(_records(lines, replace(dialect, blanks=True), marked, None)))
        fields = again.fields or fields
    names = tuple(field.strip(INVISIBLE) for field in fields)
    if not any(names):
        refuse("no column has a name", record.line)
    rows = list(islice(_records(Lines(path, fmt.encoding), dialect, marked, None), 1, 100))
    if (
        len(names) > 1
        and len(rows) > 1
        and all(len(row.fields) == len(names) + 1 and row.fields[0].isdecimal() for row in rows)
    ):  # numbers: of texts with a comma in each, the first half must not be lost as a name
        names = ("", *names)
    return fields, names, blanks


def _records(lines: Lines, dialect: Dialect, marked: bool, width: int | None) -> Iterator[Record]:
    """The records with their line numbers; Excel's sep= line is none."""
    source = iter(lines)
    if not marked:
        return iter(Records(source, dialect, width))
    next(source, "")
    rest = Records(source, dialect, width)
    return (record._replace(line=record.line + 1) for record in rest)


def _reads_only_without_quotes(layout: Layout) -> bool:
    """Whether quoting breaks a TSV that never doubles a quote inside a field, as those who mean
    quoting do."""
    with unpacking(layout.path), open_bytes(layout.path) as file:
        last, quoted = b"", False
        while block := file.read(1 << 20):
            quoted = quoted or b'"' in block
            if b'""' in last + block:
                return False
            last = block[-1:]
    if not quoted:
        return False
    lines = Lines(layout.path, layout.encoding)
    records = _records(lines, layout.dialect, layout.marked, len(layout.names))
    return any(record.reason for record in records)


def read_delimited(layout: Layout, name: str) -> Iterator[Row | BadRow]:
    """Every record of the file; `name` is what addresses call it."""
    lines = Lines(layout.path, layout.encoding)
    names, width = layout.names, len(layout.names)
    records = _records(lines, layout.dialect, layout.marked, width)
    if layout.header is not None:
        records = islice(records, 1, None)
    for line, fields, reason, message in records:
        address = f"{name}:{line}"
        if lines.bad:
            column = "" if reason else _field_with_bad_bytes(names, fields)
            yield BadRow(address, "bad_encoding", f"{column}{'; '.join(lines.bad)}")
            lines.bad.clear()
        elif reason:
            yield BadRow(address, reason, message)
        elif len(fields) > width and not any(fields[width:]):
            yield Row(address, dict(zip(names, fields, strict=False)))  # delimiters at its end
        elif fields == layout.header:
            message = "the header again, as where files were joined"
            yield BadRow(address, "header_again", message)
        elif len(fields) != width:
            message = f"ragged row: {len(fields)} fields, the header has {width}"
            if len(fields) < width and names[len(fields)]:
                message = f"{names[len(fields)]}: {message}"
            yield BadRow(address, "ragged_row", message)
        else:
            yield Row(address, dict(zip(names, fields, strict=True)))


def _field_with_bad_bytes(names: tuple[str, ...], fields: list[str]) -> str:
    for column, value in zip(names, fields, strict=False):
        if not is_encodable(value):
            return f"{column}: "
    return ""


def repeated_names(names: tuple[str, ...]) -> set[str]:
    """Names that several columns have, so that none of them can be meant."""
    return {name for name, times in Counter(names).items() if times > 1}


def suggest_delimiter(header: str) -> str | None:
    """The delimiter that a header read as one single name seems to hold."""
    return next((mark for mark in OTHERS if mark in header), None)
