"""How a text file is written: the settings of [data] that say how to read it."""

import codecs
from dataclasses import dataclass
from typing import Literal

FIRST_LINE, NO_HEADER = "first line", "none"


@dataclass(frozen=True)
class Format:
    """Encoding, and for CSV and TSV delimiter, quoting, escape and header; names and meaning are
    those of [data]."""

    encoding: str = "utf-8"
    delimiter: str | None = None  # None: a comma, in .tsv a tab
    quoting: Literal["standard", "none"] | None = None  # None: standard, unless a TSV cannot be
    escape: str | None = None
    header: str | tuple[str, ...] = FIRST_LINE  # or "none", or the names


def check_format(fmt: Format) -> list[str]:
    """What is wrong with the settings, one message each."""
    errors = []
    try:
        codecs.lookup(fmt.encoding)
        if not codecs.lookup(fmt.encoding)._is_text_encoding:  # base64 and its like
            raise LookupError
    except (LookupError, ValueError):
        errors.append(
            f"data.encoding: got {fmt.encoding!r}, which is no encoding that Python knows; for "
            "example utf-8, cp1252, latin-1, gb18030, cp932, cp1251"
        )
    for name, character in (("delimiter", fmt.delimiter), ("escape", fmt.escape)):
        if character is not None and (len(character) != 1 or character in '\r\n"'):
            errors.append(
                f"data.{name}: got {character!r}, expected one character other than a quote or a "
                "line end"
            )
    if fmt.delimiter is not None and fmt.delimiter == fmt.escape:
        errors.append(f"data.escape: got {fmt.escape!r}, which is the delimiter too")
    if isinstance(fmt.header, tuple) and len(set(fmt.header)) < len(fmt.header):
        twice = next(name for name in fmt.header if fmt.header.count(name) > 1)
        errors.append(f"data.header: column {twice!r} stands there twice")
    return errors


def describe_format(fmt: Format) -> list[str]:
    """A line that names the settings other than a plain file's, if there are any."""
    plain = Format()
    settings = [
        f"{key} = {list(value) if isinstance(value, tuple) else value!r}"
        for key, value in vars(fmt).items()
        if value != vars(plain)[key]
    ]
    return [f"text files are read with {', '.join(settings)}"] if settings else []
