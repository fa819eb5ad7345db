"""A console or a locale that lacks a character never ends a run, nor changes what is in a file."""

import codecs
import sys
from collections.abc import Sequence


def prepare_console() -> None:
    """What standard output or error cannot show is written as an escape (\\xe9), and in a locale of
    ASCII alone (LC_ALL=C) files are named in UTF-8. May be called again and again."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a notebook's has none, and shows everything
            stream.reconfigure(errors="backslashreplace")
    if sys.getfilesystemencoding() == "ascii":
        name_files_in_utf8()


def name_files_in_utf8() -> None:
    """Where Python names files in ASCII, characters beyond it become UTF-8 instead of an error.

    Python cannot change that encoding once it runs; it asks the handler "surrogateescape" for each
    character it lacks, as in open("été.csv"). The libraries that read models always use UTF-8, so a
    path has to be real characters for both.
    """
    standard = codecs.lookup_error("surrogateescape")

    def encode_as_utf8(error: UnicodeError) -> tuple[str | bytes, int]:
        if isinstance(error, UnicodeEncodeError) and error.encoding != "utf-8":
            part = error.object[error.start : error.end]
            return part.encode("utf-8", errors="surrogateescape"), error.end
        return standard(error)

    if standard.__name__ != encode_as_utf8.__name__:
        codecs.register_error("surrogateescape", encode_as_utf8)


def read_words(words: Sequence[str]) -> list[str]:
    """Words of a command line as their characters, where Python took their UTF-8 for unknown
    bytes. A word that is no UTF-8 stays as it is."""
    return [read_word(word) for word in words]


def read_word(word: str) -> str:
    """One word; the same word wherever nothing in it is unknown."""
    try:
        return word.encode("utf-8", errors="surrogateescape").decode("utf-8")
    except UnicodeError:
        return word
