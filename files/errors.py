"""Errors of libraries, as they are told in a message of ours, and of files that are not ours."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# what libraries and the system say of a limit on memory or threads, in exceptions of many kinds
LIMITS = (
    "can't start new thread",
    "cannot allocate memory",
    "can't allocate memory",
    "failed to map segment",
    "resource temporarily unavailable",
)


class UnreadableError(ValueError):
    """A file that this user may not read. It may be whole: nobody puts another in its place."""


@contextmanager
def placed(path: Path) -> Iterator[None]:
    """Within the block an error of the system that names no file, as of a full disk at a file that
    is open, names `path`."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def one_line(error: BaseException, most: int = 400) -> str:
    """An error's kind and words on one line of at most `most` characters."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:most]


def is_panic(error: BaseException) -> bool:
    """Whether an error is a panic of a library written in Rust, which is no Exception."""
    return type(error).__name__ == "PanicException"


def meets_limit(error: BaseException) -> bool:
    """Whether an error comes from a limit on memory or threads. Then it says nothing of the file,
    the model or the code that was at work, and whoever blames those for errors lets it pass."""
    if isinstance(error, KeyError):
        return False  # its words are a key, which may be anything
    return isinstance(error, MemoryError) or any(word in str(error).lower() for word in LIMITS)
