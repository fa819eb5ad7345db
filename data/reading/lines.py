"""The lines of a text file, decoded strictly, with what is wrong with each."""

import io
from collections.abc import Iterator
from pathlib import Path

from data.reading.content import encoding_mark, open_bytes, unpacking
from data.reading.rows import is_encodable

SAMPLE = 1 << 16  # bytes from the start that tell the kind of line end


class Lines:
    """The lines of a file, unpacked and decoded. A line that is not in its encoding is noted in
    `bad`, by number, so that the record which holds it can be refused while the rest is read.

    A byte order mark overrules `encoding`. Lines end at a line feed; where the file has none, at a
    carriage return, as on old Macs. Raises ValueError where the encoding has no lines to go on
    from after a fault (UTF-16).

    `start` are the first bytes of what is no file but a stream, as standard input is: `path` is
    then what errors call it, and `read` takes the stream from behind its mark.
    """

    def __init__(
        self, path: Path | str, encoding: str = "utf-8", start: bytes | None = None
    ) -> None:
        self.path = path
        self.number = 0
        self.bad: list[str] = []  # what is wrong with the lines since this was last cleared
        if start is None:
            with unpacking(path), open_bytes(Path(path)) as file:
                start = file.read(SAMPLE)
        marked = encoding_mark(start)
        self.encoding, self.skipped = marked or (encoding, 0)
        text = start[self.skipped :].decode(self.encoding, errors="replace")
        self.newline = "\r" if "\r" in text and "\n" not in text else "\n"

    def __iter__(self) -> Iterator[str]:
        with open_bytes(Path(self.path)) as file:
            file.seek(self.skipped)
            yield from self.read(file)

    def read(self, file: io.BufferedIOBase | object) -> Iterator[str]:
        """The lines of an open binary stream, from where it stands."""
        text = io.TextIOWrapper(
            file,  # type: ignore[type-var]
            encoding=self.encoding, errors="surrogateescape", newline=self.newline,
        )  # fmt: skip
        try:
            with unpacking(self.path):
                for self.number, line in enumerate(text, start=1):
                    if not line.isascii() and not is_encodable(line):
                        self.bad.append(self._fault(line))
                    yield line
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{self.path}: not {self.encoding} after line {self.number} ({error.reason}); the "
                "file is cut short, damaged or in another encoding (data.encoding)"
            ) from None

    def _fault(self, line: str) -> str:
        """Undecodable bytes come through the decoder as surrogates U+DC80 to U+DCFF."""
        escaped = next(c for c in line if "\ud800" <= c <= "\udfff")
        name = "UTF-8" if self.encoding == "utf-8" else self.encoding
        return f"bad {name} in line {self.number}: byte 0x{ord(escaped) - 0xDC00:02X}"
