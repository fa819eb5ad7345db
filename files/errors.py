"""Errors of libraries, as they are told in a message of ours, and of files that are not ours."""


class UnreadableError(ValueError):
    """A file that this user may not read. It may be whole: nobody puts another in its place."""


def one_line(error: BaseException, most: int = 400) -> str:
    """An error's kind and words on one line of at most `most` characters."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:most]


def is_panic(error: BaseException) -> bool:
    """Whether an error is a panic of a library written in Rust, which is no Exception."""
    return type(error).__name__ == "PanicException"
