"""The one way to write a file: whole, in one rename, or not at all.

The bytes go to a new file beside the target. Its name cannot be foreseen and it is opened
exclusively, so nothing that somebody planted there is followed or overwritten; a link at the
target's own name is replaced, not followed. Then the file is fsynced, renamed once, and its folder
fsynced. An error in between removes it; what a killed process leaves is swept later.

A lock and a log stay where they are, and are opened by `open_in_place`.
"""

import errno
import fcntl
import io
import json
import math
import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TextIO

LEFTOVER = re.compile(r"\..*\.[0-9a-f]{16}\.tmp", re.DOTALL)  # names that temporary_name makes


def temporary_name(target: Path) -> Path:
    """A name beside `target` that nobody can foresee, as short as a file system wants it."""
    begin = os.fsencode(target.name)[:64].decode("utf-8", errors="ignore")
    return target.with_name(f".{begin}.{secrets.token_hex(8)}.tmp")


def sync(path: Path) -> None:
    """fsync a file or a folder, so that a rename after it cannot overtake its contents."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def try_lock(descriptor: int) -> bool:
    """Lock an open file or folder while it is filled, so that whoever sweeps leaves it alone; False
    where another process has it. A file system without locks gives none: age alone tells there."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


@contextmanager
def replace_bytes(path: Path) -> Iterator[BinaryIO]:
    """A binary stream; on leaving the block what was written becomes the file `path`.

    Its mode is what the umask leaves of rw-rw-rw-. An error in the block leaves `path` as it was.
    Raises OSError where it cannot be written.
    """
    temporary = temporary_name(path)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, 0o666)
    try:
        with os.fdopen(descriptor, "wb") as file:
            try_lock(descriptor)
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


@contextmanager
def replace_text(path: Path) -> Iterator[TextIO]:
    """The same for a stream of UTF-8 text, whose line ends stay as they are written."""
    with replace_bytes(path) as file:
        stream = io.TextIOWrapper(file, encoding="utf-8", newline="")
        yield stream
        stream.flush()
        stream.detach()  # whoever opened the file closes it


def place_fault(path: Path) -> str | None:
    """Why no file can be written at `path`; None where one can."""
    folder = path.absolute().parent
    if path.is_dir():
        return f"{path} is a folder; name a file in it"
    if path.exists() and not path.is_file():
        return f"{path} is no regular file; name another one"
    if not folder.is_dir():
        return f"there is no folder {path.parent}"
    return None if os.access(folder, os.W_OK) else f"the folder {path.parent} cannot be written to"


def save_text(path: Path, text: str) -> bool:
    """Make `text` the content of `path`; False where it was that already, and nothing was done."""
    content = text.encode("utf-8")
    if holds(path, content):
        return False
    with replace_bytes(path) as file:
        file.write(content)
    return True


def finite(value: Any) -> Any:
    """A value made of lists and objects with None for each number that is NaN or infinite: JSON has
    neither, and many programs refuse a file that has."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(inner) for key, inner in value.items()}
    return [finite(inner) for inner in value] if isinstance(value, list | tuple) else value


def to_json(value: Any, indent: int | None = None) -> str:
    """A value as JSON; null where a number is NaN or infinite."""
    return json.dumps(finite(value), indent=indent, ensure_ascii=False, allow_nan=False)


def open_in_place(path: Path) -> io.BufferedRandom:
    """A file that is read and appended to where it is, made if it is not there; nothing is cut off.

    Raises ValueError where it is a link, which is never followed, or no regular file.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        # without waiting: opening a pipe may never end
        descriptor = os.open(path, flags | os.O_NONBLOCK, 0o666)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise ValueError(
            f"{path} is a link, and what it leads to is not written to; remove it"
        ) from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ValueError(f"{path} is no regular file; remove it")
    return os.fdopen(descriptor, "a+b")


def holds(path: Path, content: bytes) -> bool:
    """Whether `path` is a regular file, and no link, of exactly these bytes."""
    try:
        same_size = not path.is_symlink() and path.is_file() and path.stat().st_size == len(content)
        return same_size and path.read_bytes() == content
    except OSError:
        return False
