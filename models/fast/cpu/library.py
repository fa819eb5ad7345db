"""A built library is code: it runs only where nobody but its owner can have written it, and whole.

Its bytes are compared with the manifest that was published with it before the system's loader sees
them. A library that was cut in half would end the process while it is read, without a word.
"""

import ctypes
import hashlib
import os
import stat
from pathlib import Path

from files.publish import read_manifest, remove
from files.verify import DamagedError

LIBRARY = "kernels.so"
OTHERS = stat.S_IWGRP | stat.S_IWOTH


class ForeignError(ValueError):
    """A folder that somebody else owns: nothing in it is loaded, removed or built."""


def make_private(folder: Path) -> None:
    """Make a folder for this user's libraries alone, mode 0700, where there is none.

    One of ours into which others could write is emptied first, for they may have. Raises
    ForeignError where it is somebody else's or a link, OSError where it cannot be made.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        status = os.lstat(folder)
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
            raise ForeignError(
                f"{folder} is no folder of your own (its owner is user {status.st_uid}), and what "
                "is built there would be run; set OPENLOOP_CACHE to another folder"
            ) from None
        if status.st_mode & OTHERS:
            for path in folder.iterdir():
                remove(path)
            folder.chmod(0o700)


def open_library(folder: Path) -> ctypes.CDLL:
    """The library in a published folder of a private one.

    Raises DamagedError unless both are this user's alone and the file is the one that was built,
    OSError where it is not there or cannot be loaded.
    """
    size, digest = read_manifest(folder).get(LIBRARY, (0, ""))
    descriptor = os.open(folder / LIBRARY, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        for status in (os.lstat(folder), os.fstat(descriptor)):
            if status.st_uid != os.geteuid() or status.st_mode & OTHERS:
                raise DamagedError(f"{folder}: others can write to it")
        with os.fdopen(os.dup(descriptor), "rb") as file:
            same = hashlib.file_digest(file, "sha256").hexdigest() == digest
        if not same or os.fstat(descriptor).st_size != size:
            raise DamagedError(f"{folder}: the bytes of {LIBRARY} have changed (sha256 differs)")
        # the very file that was compared; it stays open, for the loader knows files by their names
        opened = Path(f"/proc/self/fd/{descriptor}")
        return ctypes.CDLL(str(opened if opened.exists() else folder / LIBRARY))
    except (DamagedError, OSError):
        os.close(descriptor)
        raise
