"""Files as they are made under another umask."""

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def umask_of(value: int) -> Iterator[None]:
    """In this block what is made lacks the rights in `value`."""
    before = os.umask(value)
    try:
        yield
    finally:
        os.umask(before)
