"""How a file is written, worked out from its bytes: for the person with nothing but a file."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Literal

import charset_normalizer

from data.reading.content import (
    encoding_mark,
    open_bytes,
    plain_suffix,
    sniff,
    unpacking,
    wide_encoding,
)
from data.reading.formats import NO_HEADER, Format
from data.reading.lines import Lines
from data.reading.records import Dialect, Records

SAMPLE_LINES = 20_000  # lines that delimiter, quoting and header are judged by
SAMPLE_BYTES = 1 << 18  # of lines that are no UTF-8, given to the detection
DELIMITERS = (",", "\t", ";", "|")
ENCODINGS = [  # in use, and told apart; the first of those that read the same is taken
    "cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "cp1255", "cp1256", "koi8_r", "cp932",
    "euc_jp", "gb18030", "big5", "cp949", "tis_620", "cp850", "mac_roman",
]  # fmt: skip
NAMES = {  # headers are full of these, rows are not
    "text", "review", "sentence", "content", "comment", "body", "message", "tweet", "title", "id",
    "label", "labels", "sentiment", "class", "category", "target", "rating", "stars", "score",
    "index", "name", "date", "user", "source", "lang", "language", "description", "price",
    "sentence1", "sentence2", "premise", "hypothesis", "question", "answer",
}  # fmt: skip
USUAL = {".csv": ",", ".tsv": "\t", ".tab": "\t"}  # the delimiter that an ending tells
LONG = 30  # characters that no column name has


@dataclass(frozen=True)
class Detected:
    """The format of a file, with a sentence for each setting that is not the default."""

    format: Format
    reasons: tuple[str, ...]


def detect_format(path: Path) -> Detected:
    """Encoding, delimiter, quoting, escape and header of a text file; the default for others.

    Raises ValueError for a file that is no table.
    """
    if sniff(path) != "text":
        return Detected(Format(), ())
    encoding, why = detect_encoding(path)
    fmt, reasons = Format(encoding=encoding), [why] if why else []
    suffix = plain_suffix(path)
    if suffix in (".json", ".jsonl", ".ndjson"):
        return Detected(fmt, tuple(reasons))
    lines = _sample_lines(path, encoding)
    marked = bool(lines) and lines[0][:4].lower() == "sep="
    if not marked:
        usual = USUAL.get(suffix)
        dialect, described = _choose_dialect(lines, usual)
        if dialect is not None:
            fmt = replace(
                fmt,
                delimiter=None if dialect.delimiter == usual else dialect.delimiter,
                quoting=None if dialect.quoted else "none",
                escape=dialect.escape,
            )
            reasons += described
            rows = [record.fields for record in islice(Records(iter(lines), dialect), 2000)]
            if rows and looks_like_row(rows[0], rows[1:]):
                fmt = replace(fmt, header=NO_HEADER)
                first = ", ".join(cell[:30] for cell in rows[0][:4])
                reasons.append(
                    f'header = "none": the first line looks like a row ({first}), so the columns '
                    "are called column_1, column_2, …"
                )
    return Detected(fmt, tuple(reasons))


def detect_encoding(path: Path) -> tuple[str, str]:
    """(encoding, why it is not UTF-8, or nothing). The whole file is looked at."""
    with unpacking(path), open_bytes(path) as file:
        start = file.read(1 << 16)
        if (mark := encoding_mark(start)) is not None:
            return "utf-8", "" if mark[0] == "utf-8" else f"encoding: {mark[0]}, by its first bytes"
    if (wide := wide_encoding(start)) is not None:
        return wide, f"encoding = {wide}: every other byte is zero"
    sample, size, first, valid, invalid = [], 0, 0, 0, 0
    with unpacking(path), open_bytes(path) as file:
        for number, raw in enumerate(_byte_lines(file), start=1):
            if not raw.isascii():
                try:
                    raw.decode("utf-8")
                    valid += 1
                except UnicodeDecodeError:
                    first, invalid = first or number, invalid + 1
                    if size < SAMPLE_BYTES:
                        sample.append(raw)
                        size += len(raw)
    if not sample:
        return "utf-8", ""
    if valid > invalid:
        return "utf-8", (
            f"encoding = utf-8: {valid:,} lines beyond ASCII are, and {invalid:,} are not (the "
            f"first is line {first:,})"
        )
    encoding = _most_likely(b"".join(sample))
    line = sample[0].decode(encoding, errors="replace").strip()
    begin = max(0, next((i for i, c in enumerate(line) if c > "\x7f"), 0) - 30)
    shown = line[begin : begin + 60]
    return encoding, (
        f"encoding = {encoding}: line {first:,} is no UTF-8, and reads {shown!r} so; another one "
        "is set with data.encoding"
    )


def _byte_lines(file: object) -> Iterator[bytes]:
    """Lines of bytes; a file without line feeds comes in blocks."""
    while raw := file.readline(1 << 20):  # type: ignore[attr-defined]
        yield raw


def _most_likely(data: bytes) -> str:
    """The encoding of bytes that are no UTF-8."""
    if b"\r" in data and b"\n" not in data:
        return "mac_roman"  # with the line ends of the old Mac come its letters
    for name in ("cp932", "euc_jp"):
        if _kana_share(data, name) > 0.2:
            return name
    matches = list(charset_normalizer.from_bytes(data, cp_isolation=ENCODINGS))
    if not matches:
        return "cp1252" if _decodes(data, "cp1252") else "latin-1"
    best = matches[0]
    near = [m.encoding for m in matches
            if m.chaos <= best.chaos + 0.01 and m.coherence >= best.coherence - 0.1]  # fmt: skip
    if _decodes(data, "cp1252") and str(best) == data.decode("cp1252"):
        return "cp1252"
    # They differ in six letters: Turkish ones here, Icelandic ones there, which fewer people write.
    if "cp1254" in near and "cp1252" in near:
        return "cp1254"
    return next(name for name in ENCODINGS if name in near)


def _decodes(data: bytes, encoding: str) -> bool:
    try:
        data.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def _kana_share(data: bytes, encoding: str) -> float:
    """Share of the letters beyond ASCII that are Hiragana or Katakana: every Japanese text has
    many, and bytes read wrongly have few."""
    if not _decodes(data, encoding):
        return 0.0
    letters = [c for c in data.decode(encoding) if c > "\x7f"]
    return sum("\u3041" <= c <= "\u30ff" for c in letters) / max(1, len(letters))


def _sample_lines(path: Path, encoding: str) -> list[str]:
    """Lines from the beginning of a file."""
    return list(islice(Lines(path, encoding), SAMPLE_LINES))


def _choose_dialect(lines: list[str], usual: str | None) -> tuple[Dialect | None, list[str]]:
    """The way of telling fields apart that breaks the fewest records, the usual one first; None
    where no way gives more than one column."""
    default = usual or ","
    escapes = ["\\"] if any('\\"' in line or "\\" + default in line for line in lines) else []
    delimiters = [default, *(mark for mark in DELIMITERS if mark != default)]
    ways = [
        Dialect(mark, quoted, escape, blanks=any(f[:1] == " " for f in lines[0].split(mark)[1:]))
        for mark in delimiters
        for quoted, escape in ((True, None), *((True, e) for e in escapes), (False, None))
        if mark in lines[0]
    ] if lines else []  # fmt: skip
    best, least = None, 1.0
    for way in ways:
        share = _broken_share(lines, way)
        if share < least:
            best, least = way, share
        if share == 0:
            break
    if best is None or least > 0.5:
        return None, []
    return best, _describe(best, usual, least)


def _broken_share(lines: list[str], dialect: Dialect) -> float:
    """Share of the records that are broken or have another number of fields than the first."""
    records, bad, width = 0, 0, 0
    whole = len(lines) < SAMPLE_LINES
    for record in Records(iter(lines), dialect):
        fields = record.fields
        if not width:
            width = len(fields)
        elif records == 1 and width > 1 and len(fields) == width + 1 and fields[0].isdecimal():
            width += 1  # rows with numbers and a header without a name for these, as R writes them
        while len(fields) > width and not fields[-1]:
            fields.pop()
        records += 1
        bad += bool(record.reason) or len(fields) != width
    if not whole and bad:
        bad -= 1  # the last record may be cut where the sample ends
    return bad / records if width > 1 and records > 1 else 1.0


def _describe(dialect: Dialect, usual: str | None, broken: float) -> list[str]:
    fit = "every row has as many fields as the first line" if not broken else (
        f"{1 - broken:.0%} of the rows have as many fields as the first line, more than otherwise"
    )  # fmt: skip
    reasons = []
    if dialect.delimiter != usual:
        reasons.append(f"delimiter = {dialect.delimiter!r}: {fit}")
    if not dialect.quoted:
        reasons.append(
            f'quoting = "none": read with quotes as letters {fit}; as enclosing a field they '
            "break or swallow rows"
        )
    if dialect.escape:
        reasons.append(f"escape = {dialect.escape!r}: {fit} where it protects the next letter")
    return reasons


Evidence = Literal["row", "header", "neither"]


def looks_like_row(first: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    """Whether a first line is no header: none of its cells is a usual name or unlike its column,
    and one at least is like it (a number over numbers, a value that stands below again, a text
    over texts)."""
    names = {cell.strip().casefold() for cell in first}
    if not rows or not NAMES.isdisjoint(names) or "" in names:
        return False
    columns = zip(*(row for row in rows if len(row) == len(first)), strict=True)
    evidence = [_compare(cell, values) for cell, values in zip(first, columns, strict=False)]
    return "row" in evidence and "header" not in evidence


def _compare(cell: str, values: Sequence[str]) -> Evidence:
    """What a cell of the first line says, beside the values of its column."""
    numbers = sum(map(_is_number, values)) / len(values)
    if _is_number(cell):
        return "row" if numbers >= 0.9 else "header" if numbers < 0.1 else "neither"
    if numbers >= 0.9:
        return "header"
    if cell in values and len(set(values)) <= max(2, len(values) // 3):
        return "row"
    mean = sum(map(len, values)) / len(values)
    if len(cell) > LONG and len(cell.split()) >= 4 and mean > LONG:
        return "row"
    return "neither"


def _is_number(cell: str) -> bool:
    try:
        float(cell.strip().rstrip("%").replace(",", "."))
    except ValueError:
        return False
    return True
