"""A place in a stream of JSON text: values one after the other, memory holds the one at hand."""

import json
from typing import Any

from data.reading.lines import Lines

BLOCK = 1 << 16  # characters read at a time


def read_constant(name: str) -> None:
    """NaN, which Python writes where a value is missing. Raises ValueError for infinities."""
    if name != "NaN":
        raise ValueError(f"{name} is no JSON value")


class Cursor:
    """A place in a stream of JSON text; memory holds the value at hand."""

    def __init__(self, lines: Lines) -> None:
        self.lines = lines
        self.source = iter(lines)
        self.text, self.at = "", 0
        self.line = 1  # of the file, where `at` stands
        self.decoder = json.JSONDecoder(parse_constant=read_constant)

    def more(self, least: int = BLOCK) -> bool:
        """Read on by about `least` characters; False at the end of the file."""
        parts, size = [self.text[self.at :]], 0
        for line in self.source:
            parts.append(line)
            size += len(line)
            if size >= least:
                break
        self.text, self.at = "".join(parts), 0
        return size > 0

    def peek(self) -> str:
        """The next character that is no white space; "" at the end."""
        while True:
            while self.at < len(self.text) and self.text[self.at] in " \t\r\n":
                self.line += self.text[self.at] == self.lines.newline
                self.at += 1
            if self.at < len(self.text):
                return self.text[self.at]
            if not self.more():
                return ""

    def take(self) -> str:
        """The next character that is no white space, passed over."""
        character = self.peek()
        self.at += 1
        return character

    def decode(self, at_most: int | None = None) -> Any:
        """The value that begins here. Raises ValueError where it is broken, and EOFError where it
        does not end within `at_most` characters."""
        self.peek()
        while True:
            try:
                value, end = self.decoder.raw_decode(self.text, self.at)
            except (ValueError, RecursionError) as error:
                size = len(self.text) - self.at
                if at_most is not None and size >= at_most:
                    raise EOFError from None
                # A value cut at the end of what was read so far is broken too: doubling what is
                # read keeps the tries few.
                if isinstance(error, RecursionError) or not self.more(max(BLOCK, size)):
                    raise ValueError(self.describe(error)) from None
                continue
            number_may_go_on = end == len(self.text) and self.text[end - 1].isdigit()
            if number_may_go_on and self.more():
                continue
            self.line += self.text.count(self.lines.newline, self.at, end)
            self.at = end
            return value

    def describe(self, error: Exception) -> str:
        """The parser's words with the file and the file's own line."""
        line = self.line
        if isinstance(error, json.JSONDecodeError):
            line += self.text.count(self.lines.newline, self.at, error.pos)
            return f"{self.lines.path}:{line}: broken JSON: {error.msg}"
        return f"{self.lines.path}:{line}: broken JSON: {error}"
