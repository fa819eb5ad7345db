"""What is to be predicted: words of the command line, standard input or a file become items.

Every row becomes an item, in order; one that cannot be read, or holds no text, says why.
"""

import io
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from configs.schema import Config
from data.intake import check_text, require_columns
from data.labels.reader import RowError
from data.prepare import file_format
from data.reading.content import plain_suffix, sniff
from data.reading.delimited import repeated_names
from data.reading.detect import detect_encoding, detect_format
from data.reading.formats import FIRST_LINE, Format, check_format
from data.reading.lines import Lines
from data.reading.rows import BadRow, Row, has_column, list_columns, nearest
from data.tables import SUFFIXES, Table, open_table
from job.predicting.predictor import Text
from job.rows import data_args, text_columns

LOOKED_AT = 100  # rows of a JSON file; where none of them has the column, it is named wrongly


@dataclass(frozen=True)
class Item:
    """One input row. `text` is None, or not what a text should be, where there is an `error`."""

    address: str  # "reviews.csv:12", "argument 2", "standard input:3"
    text: Text | None
    error: str | None = None
    others: dict[str, Any] = field(default_factory=dict)  # the row's other columns


@dataclass(frozen=True)
class Source:
    """Items that can be gone through again, and what to say of them beforehand."""

    items: Callable[[], Iterator[Item]]
    notes: tuple[str, ...] = ()


def word_source(words: Sequence[Any], config: Config, encoding: str | None) -> Source:
    """Texts or pairs of the command line, or standard input where the only word is "-". Raises
    ValueError where the run was trained on the other kind."""
    check_encoding(encoding)
    pairs = len(text_columns(config)) == 2
    if pairs == isinstance(words[0], str):
        raise ValueError(
            f'{config.run.name} was trained on pairs of texts: ask it with --pair "a first text" '
            '"and a second one", or with --file FILE'
            if pairs
            else f"{config.run.name} was trained on single texts: give them without --pair"
        )
    if words == ["-"]:
        return Source(lambda: stdin_items(sys.stdin, encoding))
    texts = [(word[0], word[1]) if pairs else word for word in words]
    return Source(lambda: argument_items(texts))


def argument_items(texts: Sequence[Text]) -> Iterator[Item]:
    """Texts, or pairs of texts, of the command line."""
    for i, text in enumerate(texts, start=1):
        yield Item(f"{'argument' if isinstance(text, str) else 'pair'} {i}", text)


def check_encoding(encoding: str | None) -> None:
    """Raise ValueError where --encoding names none."""
    if encoding is not None and (wrong := check_format(Format(encoding=encoding))):
        raise ValueError(wrong[0].replace("data.encoding", "--encoding"))


# Lines


def stdin_items(stream: TextIO, encoding: str | None) -> Iterator[Item]:
    """One text a line, in the encoding that a mark at the beginning names, else in the one given,
    else in UTF-8."""
    binary = getattr(stream, "buffer", None)
    if binary is None:  # a notebook's, which is text already
        binary = io.BytesIO(stream.read().encode("utf-8", errors="surrogatepass"))
    buffered = binary if hasattr(binary, "peek") else io.BufferedReader(binary)
    lines = Lines("standard input", encoding or "utf-8", start=buffered.peek(4)[:4])
    buffered.read(lines.skipped)
    yield from line_items(lines, lines.read(buffered), "standard input")


def line_items(lines: Lines, source: Iterator[str], name: str) -> Iterator[Item]:
    """An item a line, blank ones included."""
    for line in source:
        address = f"{name}:{lines.number}"
        if lines.bad:
            fault = "; ".join(lines.bad)
            lines.bad.clear()
            yield Item(address, None, f"{fault} (another encoding is named with --encoding)")
        else:
            yield Item(address, line.rstrip("\r\n"))


def text_file(path: Path, encoding: str | None) -> Source:
    """A .txt file: one text a line."""
    if (content := sniff(path)) != "text":
        raise ValueError(f"{path} is no text but {content}; call it .{_ENDINGS[content]}")
    why = ""
    if encoding is None:
        encoding, why = detect_encoding(path)

    def items() -> Iterator[Item]:
        lines = Lines(path, encoding)
        return line_items(lines, iter(lines), path.name)

    return Source(items, (f"{path.name}: {_as_option(why)}",) if why else ())


_ENDINGS = {"parquet": "parquet", "excel": "xlsx"}


def _as_option(note: str) -> str:
    """A note of the data package, which knows settings and no options."""
    return note.replace("data.encoding", "--encoding")


# Tables


def file_source(
    path: Path, config: Config, named: Sequence[str], encoding: str | None, keep: bool
) -> Source:
    """The rows of a file. The text is in the columns named, or in those of the run; `keep`
    reads all others too.

    Raises ValueError for a file that cannot be read as a whole, or lacks a column.
    """
    check_encoding(encoding)
    check_file(path)
    trained = text_columns(config)
    if named and len(named) != len(trained):
        raise ValueError(
            f"--column names {len(named)} columns; the run was trained on {len(trained)}: "
            f"{', '.join(trained)}"
        )
    columns = named or trained
    if plain_suffix(path) == ".txt":
        if keep:
            raise ValueError(f"--keep keeps the other columns of a table; {path} has none")
        return text_file(path, encoding)
    if encoding is not None and sniff(path) != "text":
        raise ValueError(f"--encoding is that of a text file; {path} is none")
    table, notes = choose_table(path, config, columns, encoding)
    check_columns(table, columns, keep)
    needed = [*columns, *(table.columns or ())] if keep else list(columns)
    return Source(lambda: table_items(table, columns, needed, keep), tuple(notes))


def check_file(path: Path) -> None:
    """Raise ValueError where there is no such file, or none of a kind that is read."""
    if path.is_dir():
        raise ValueError(f"{path} is a folder; name one file")
    if not path.exists():
        beside = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise ValueError(f"there is no file {path}{nearest(path.name, beside)}")
    if not path.is_file():
        raise ValueError(f"{path} can be read only once; give texts to standard input (-)")
    if plain_suffix(path) not in (*SUFFIXES, ".txt"):
        raise ValueError(
            f"the ending of {path} is none of {', '.join(SUFFIXES)}, .txt (and .gz, .bz2, "
            ".xz behind it)"
        )


def choose_table(
    path: Path, config: Config, columns: Sequence[str], encoding: str | None
) -> tuple[Table, list[str]]:
    """The file as it seems to be written; where the columns are not there, as the run's own files
    are written."""
    detected = detect_format(path)
    fmt, reasons = detected.format, list(detected.reasons)
    if encoding is not None:
        fmt = replace(fmt, encoding=encoding)
        reasons = [reason for reason in reasons if not reason.startswith("encoding")]
    trained = file_format(data_args(config))
    ways = [fmt]
    if trained.header != FIRST_LINE:
        ways.append(replace(fmt, header=trained.header))
    ways.append(replace(trained, encoding=fmt.encoding))
    problem: ValueError | None = None
    for way in dict.fromkeys(ways):
        try:
            table = open_table(path, path.name, way)
            check_columns(table, columns, False)
        except ValueError as error:
            problem = problem or error
            continue
        notes = [_as_option(f"{path.name}: {reason}") for reason in reasons]
        if way != fmt:
            notes = [f"{path.name}: read as the files of the run ({_describe(way)})"]
        return table, [*notes, *table.notes]
    raise ValueError(_as_option(str(problem)))


def _describe(fmt: Format) -> str:
    header = fmt.header if isinstance(fmt.header, str) else ", ".join(fmt.header)
    return f"header = {header}"


def check_columns(table: Table, columns: Sequence[str], keep: bool) -> None:
    """Raise ValueError where a column is missing, or there twice."""
    names, twice = table.columns, repeated_names(table.columns or ())
    if names is None:
        names = names_of_json(table, columns)
    for column in columns:
        if names and not has_column(column, names):
            raise ValueError(
                f"{table.path} has no column {column!r}{nearest(column, names)}; it has "
                f"{list_columns(names)}. Name the column of the text with --column."
            )
        if column in twice:
            raise ValueError(f"{table.path} has two columns {column!r}; rename one of them")
    if keep and (named := sorted(twice - {""})):
        raise ValueError(
            f"{table.path} has two columns {named[0]!r}, of which --keep could keep only one; "
            "rename one of them"
        )


def names_of_json(table: Table, columns: Sequence[str]) -> tuple[str, ...]:
    """The fields of the first rows of a JSON file; none where it has no readable row."""
    rows = [row for row in islice(table.rows(columns), LOOKED_AT) if isinstance(row, Row)]
    return tuple(dict.fromkeys(name for row in rows for name in row.values))


def table_items(
    table: Table, columns: Sequence[str], needed: Sequence[str], keep: bool
) -> Iterator[Item]:
    """An item for each row of a table, read or not."""
    nameless = (table.columns or ()).count("")
    place = 1 + (table.columns or ("",)).index("") if nameless else 0
    for row in table.rows([name for name in dict.fromkeys(needed) if name]):
        if isinstance(row, BadRow):
            yield Item(row.address, None, row.message)
            continue
        others: dict[str, Any] = {}
        if keep:
            others = {k: v for k, v in row.values.items() if k and k not in columns}
            if nameless == 1:  # an index, as pandas writes it
                others = {f"column_{place}": row.values.get(""), **others}
        yield make_item(row, columns, others)


def make_item(row: Row, columns: Sequence[str], others: dict[str, Any]) -> Item:
    """The item of a row that was read, its texts checked as in training."""
    texts, error = [], None
    for column in columns:
        try:
            require_columns(row.values, [column])
            texts.append(check_text(column, row.values[column]))
        except RowError as problem:
            error = error or str(problem)
            held = row.values.get(column)
            texts.append(held if isinstance(held, str) else "")
    if error is not None and not any(texts):
        return Item(row.address, None, error, others)
    return Item(row.address, texts[0] if len(texts) == 1 else (texts[0], texts[1]), error, others)
