"""What is printed: it never steers a terminal, and a character that a console or a locale lacks
never ends a run, nor changes what is in a file."""

import argparse
import codecs
import io
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from typing import Any, TextIO

from engine.world import started
from files.printable import escape_unprintable


class CleanStream:
    """A stream on which nothing that is printed can steer the terminal; all else of it is the
    stream's own.

    A progress bar draws itself again and again over its own line. So a carriage return passes where
    tqdm draws a bar and begins with it. Anywhere else it would print over what stands there, and is
    shown: in what tqdm.write prints between bars too.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        """Write `text` with its unprintable characters escaped."""
        # whoever calls this from there is a bar: it wraps its stream in a class of that module,
        # and tqdm.write does not
        caller = sys._getframe().f_back  # none where Python itself prints a traceback
        drawn = caller is not None and caller.f_globals.get("__name__") == "tqdm.utils"
        if drawn and text.startswith("\r"):
            self.stream.write("\r" + escape_unprintable(text[1:]))
        else:
            self.stream.write(escape_unprintable(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write each of `lines`."""
        for line in lines:
            self.write(line)


MARKS = "\ue000\ue001"  # of private use: where what stands out begins and ends


def mark(text: str, places: Sequence[tuple[int, int]]) -> str:
    """`text` with MARKS around what stands at `places`, (start, end) each."""
    inside = {place for start, end in places for place in range(start, end)}
    marked = []
    for place, letter in enumerate(text):
        if place in inside and place - 1 not in inside:
            marked.append(MARKS[0])
        marked.append(" " if letter in MARKS else letter)
        if place in inside and place + 1 not in inside:
            marked.append(MARKS[1])
    return "".join(marked)


def takes_style() -> bool:
    """Whether a terminal is to be given colour and bold letters (no-color.org)."""
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def write_marked(output: TextIO, line: str) -> None:
    """Write a line; what stands between MARKS is bold and underlined on a terminal, and in brackets
    elsewhere, and where NO_COLOR is set (no-color.org)."""
    stream = output.stream if isinstance(output, CleanStream) else output
    styled = stream.isatty() and takes_style()
    signs = ("\x1b[1;4m", "\x1b[0m") if styled else ("[", "]")
    line = escape_unprintable(line)  # before our own signs, which steer
    stream.write(line.replace(MARKS[0], signs[0]).replace(MARKS[1], signs[1]) + "\n")


def prepare_console() -> None:
    """Let standard output and error show unprintable characters as escapes, as they do what they
    have no character for (\\xe9); and in a locale of ASCII alone (LC_ALL=C) name files in UTF-8.
    May be called again and again."""
    fill_descriptors()
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # it was closed before the start: >&-
            stream = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  as long as we run
        if isinstance(stream, CleanStream):
            continue
        if hasattr(stream, "reconfigure"):  # a notebook's has none, and shows everything
            stream.reconfigure(errors="backslashreplace")
        setattr(sys, name, CleanStream(stream))
    if sys.getfilesystemencoding() == "ascii":
        name_files_in_utf8()


def fill_descriptors() -> None:
    """Put the null device where standard input, output or error came closed (`>&-`): the next file
    opened would take its number, and what libraries print would land in that file."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)


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


def parse_once(
    parse: Callable[[list[str]], argparse.Namespace], words: list[str]
) -> argparse.Namespace:
    """The options; of the processes on a machine one alone complains of them, or gives help. The
    others give it the time, since torchrun ends all as soon as one has left."""
    if started().local_rank == 0:
        return parse(words)
    try:
        nowhere = io.StringIO()
        with redirect_stdout(nowhere), redirect_stderr(nowhere):
            return parse(words)
    except SystemExit:
        time.sleep(3)
        raise
