"""Whether files are still those that were written: the one verification, by size and sha256.

For runs, models, the cache and the kernels alike. A sha256 costs 1.5 GB/s on a processor that has
instructions for it, and a third of that on one that has not.
"""

import hashlib
import os
import stat
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from files.errors import UnreadableError

BLOCK = 1 << 20  # bytes read at a time


class DamagedError(ValueError):
    """Files that are not those that were written."""


def sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_start(path: Path, size: int) -> str | None:
    """Hex digest of the first `size` bytes of a file; None where it has fewer."""
    digest, left = hashlib.sha256(), size
    with path.open("rb") as file:
        while left and (block := file.read(min(BLOCK, left))):
            digest.update(block)
            left -= len(block)
    return None if left else digest.hexdigest()


def check_file(folder: Path, name: str, digest: str, size: int | None = None) -> None:
    """Raise DamagedError, naming the file and what is wrong, unless `name` (with "/" between its
    parts) is a regular file in `folder` with that sha256 and, where it is known, that size.

    A name that leaves the folder is refused, and so is a link: what it points to may change. Raises
    UnreadableError where this user may not read it, which is no damage.
    """
    parts = PurePosixPath(name)
    if parts.is_absolute() or ".." in parts.parts:
        raise DamagedError(f"{folder}: its list of files names {name}, which lies outside")
    path = folder / name
    for part in list(path.parents)[: len(parts.parts) - 1]:
        if part.is_symlink():
            raise DamagedError(f"{folder}: {part.name}, with {name}, is a link")
    try:
        status = os.lstat(path)
        if not stat.S_ISREG(status.st_mode):
            raise DamagedError(f"{folder}: {name} is no regular file")
        if size is not None and status.st_size != size:
            raise DamagedError(f"{folder}: {name} has {status.st_size} bytes, expected {size}")
        if sha256(path) != digest:
            raise DamagedError(f"{folder}: the bytes of {name} have changed (sha256 differs)")
    except (FileNotFoundError, NotADirectoryError):
        raise DamagedError(f"{folder}: {name} is missing") from None
    except PermissionError as error:
        raise UnreadableError(f"{folder}: {name} cannot be read ({error.strerror})") from error
    except OSError as error:
        raise DamagedError(f"{folder}: {name} cannot be read ({error.strerror})") from error


def differences(folder: Path, digests: Mapping[str, str]) -> list[str]:
    """A line for each of a folder's files that is not the one of these digests, as check_file says
    it: name -> sha256."""
    lines = []
    for name, digest in digests.items():
        try:
            check_file(folder, name, digest)
        except DamagedError as error:
            lines.append(str(error))
    return lines
