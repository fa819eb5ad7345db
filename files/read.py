"""The one reader of JSON files: whatever is wrong with one is said in a message that names it."""

import json
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from files.errors import UnreadableError

MOST_BYTES = 64 << 20  # the largest that we write, of a data report with many notes, has a few MB
MOST_DEPTH = 64  # objects and lists within each other
KINDS: dict[type, str] = {
    list: "a list", str: "a text", bool: "true or false", int: "a number",
    float: "a number", type(None): "null",
}  # fmt: skip


def read_json(path: str | Path, keys: Iterable[str] = ()) -> dict[str, Any]:
    """The object in a JSON file. Raises ValueError, naming the file, where it is missing, no plain
    file, larger than MOST_BYTES, no JSON, nested deeper than MOST_DEPTH, no object, or one without
    one of `keys`."""
    value = parse_json(read_bounded(Path(path)), str(path))
    if not isinstance(value, dict):
        raise ValueError(f"{path} holds {KINDS[type(value)]}; expected an object")
    missing = [key for key in keys if key not in value]
    if missing:
        raise ValueError(f"{path} has no {', '.join(map(repr, missing))}; it is not complete")
    return value


def read_bounded(path: Path) -> bytes:
    """The bytes of a regular file. Raises ValueError as read_json does, UnreadableError where this
    user may not read it."""
    with open_regular(path) as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise ValueError(f"{path} is larger than {MOST_BYTES:,} bytes; no file of its kind is")
    return content


def read_lines(path: Path) -> Iterator[bytes]:
    """The lines of a regular file of any size, as they are. Raises ValueError where one is larger
    than MOST_BYTES, and as read_bounded does."""
    with open_regular(path) as file:
        for number, line in enumerate(iter(lambda: file.readline(MOST_BYTES + 1), b""), start=1):
            if len(line) > MOST_BYTES:
                raise ValueError(f"{path}: line {number} is larger than {MOST_BYTES:,} bytes")
            yield line


@contextmanager
def open_regular(path: Path) -> Iterator[BinaryIO]:
    """A regular file, to be read. Raises ValueError, naming it, where it is missing, none, or fails
    to be read in the block, UnreadableError where this user may not."""
    try:
        # without waiting: opening a pipe that nobody writes to would never end
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise ValueError(f"{path} is no regular file")
            yield file
    except FileNotFoundError:
        raise ValueError(f"{path} is missing") from None
    except PermissionError as error:
        raise UnreadableError(f"{path} cannot be read: {error.strerror}") from None
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None


def parse_json(content: bytes | str, name: str) -> Any:
    """The value of a JSON text. Raises ValueError that begins with `name` where it is none."""
    try:
        value = json.loads(content)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        empty = " (it is empty)" if not content.strip() else ""
        raise ValueError(f"{name} is damaged: no JSON at {place}{empty}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{name} is damaged: byte {error.start} is not UTF-8") from None
    except RecursionError:
        raise ValueError(f"{name} is nested deeper than {MOST_DEPTH} levels") from None
    except ValueError as error:  # a number of thousands of digits
        raise ValueError(f"{name} is damaged: {error}") from None
    if depth(value) > MOST_DEPTH:
        raise ValueError(f"{name} is nested deeper than {MOST_DEPTH} levels")
    return value


def depth(value: Any) -> int:
    """How many objects and lists lie within each other."""
    levels, inside = 0, [value]
    while inside := [item for item in inside if isinstance(item, dict | list)]:
        levels += 1
        inside = [
            inner
            for item in inside
            for inner in (item.values() if isinstance(item, dict) else item)
        ]
    return levels
