"""The cache: folders that are found again under a key and were published in one rename.

`OPENLOOP_CACHE` says where they lie. `OPENLOOP_CACHE_LIMIT`, written as "20 GB", says how much they
may take, and what was used longest ago goes first; without it there is no limit. Their content is
verified whenever they are opened.
"""

import os
import re
import shlex
import shutil
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from files.errors import UnreadableError
from files.publish import publish, sweep, verify
from files.verify import DamagedError
from files.write import LEFTOVER, temporary_name

PARTS = ("data", "encoded", "kept", "answers", "models")  # folders of the cache
LIMIT = re.compile(r"([0-9]+(?:\.[0-9]+)?) *(?:([kmgt]?)(i?)b)?")  # 20 GB, 1.5 GiB, 1000
OLD = 3600  # seconds after which a half-built folder that nobody has locked is left over


def cache_root() -> Path:
    """`$OPENLOOP_CACHE`, or `~/.cache/openloop`."""
    named = os.environ.get("OPENLOOP_CACHE")
    path = str(Path(named).expanduser() if named else Path.home() / ".cache" / "openloop")
    # pyarrow wants characters, where Python in a locale of ASCII has unknown bytes
    return Path(path.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape"))


def open_built(folder: Path, write: Callable[[Path], None]) -> bool:
    """Make sure that `folder` holds what `write` puts into a folder; True where it did already.

    What is there is used when every byte is as it was published, and built again when one is not.
    Nobody ever sees half a folder; where two build the same at once, the first one's stays. Raises
    ValueError where the cache cannot be written, and where this user may not read what is there.
    """
    limit = read_limit(os.environ.get("OPENLOOP_CACHE_LIMIT"))
    if is_whole(folder):
        with suppress(OSError):  # somebody else's, and still good to read
            os.utime(folder)  # its last use
        return True
    try:
        make_parent(folder.parent)
        sweep(folder.parent, OLD)
        if os.path.lexists(folder):
            clear(folder)
        with publish(folder, shared_mode(folder.parent.parent)) as made:
            write(made)
    except FileExistsError as error:
        if not is_whole(folder):
            raise unwritable(folder, error) from None
    except OSError as error:
        raise unwritable(folder, error) from None
    if limit is not None:
        shrink(folder.parent.parent, limit)
    return False


def make_parent(folder: Path) -> None:
    """Make a folder of the cache, with the mode of a shared one."""
    root = folder.parent
    root.mkdir(parents=True, exist_ok=True)
    if folder.is_dir():
        return
    folder.mkdir(exist_ok=True)
    mode = shared_mode(root)
    if mode is not None:
        folder.chmod(mode)


def shared_mode(root: Path) -> int | None:
    """The mode of a cache that was opened to others (chmod g+w): what is made in it has it too,
    whatever the umask, so that what one user builds the other one uses, and mends. None where the
    cache is one user's own."""
    mode = stat.S_IMODE(root.stat().st_mode)
    return mode if mode & (stat.S_IWGRP | stat.S_IWOTH) else None


def read_limit(text: str | None) -> int | None:
    """Bytes in a text such as "20 GB", "500 MiB" or "1000000"; None where there is none."""
    if not text:
        return None
    match = LIMIT.fullmatch(text.strip().lower())
    if match is None:
        raise ValueError(f"OPENLOOP_CACHE_LIMIT is {text!r}; expected bytes, or a size as 20 GB")
    number, prefix, binary = match.groups()
    return int(float(number) * (1024 if binary else 1000) ** " kmgt".index(prefix or " "))


def shrink(root: Path, limit: int) -> None:
    """Remove what was used longest ago until what is cached has at most `limit` bytes. What was
    used in the last minute stays: a run that is just starting may be about to open it. So does what
    another process is still building, which `sweep` takes once nobody has it."""
    inside = [path for part in PARTS for path in root.glob(f"{part}/*") if path.is_dir()]
    folders = [path for path in inside if not LEFTOVER.fullmatch(path.name)]
    used = {}
    for path in folders:
        with suppress(OSError):  # another process removed it
            size = sum(file.stat().st_size for file in path.iterdir())
            used[path] = (path.stat().st_mtime, size)
    total = sum(size for _, size in used.values())
    for path, (moment, size) in sorted(used.items(), key=lambda item: item[1]):
        if total <= limit or time.time() - moment < 60:
            return
        with suppress(OSError):  # somebody else's, who has not opened the cache to us
            clear(path)
            total -= size


def is_whole(folder: Path) -> bool:
    """Whether a folder is there with every byte as it was published. Raises ValueError where this
    user may not read it: it may be whole, and stays for those who may."""
    try:
        verify(folder)
        return True
    except DamagedError:
        return False
    except UnreadableError as error:
        root = folder.parent.parent
        raise ValueError(
            f"the cache {root} holds what you may not read ({error}); let its owner open it (chmod "
            f"-R g+rwX {shlex.quote(str(root))}), or set OPENLOOP_CACHE to a folder of your own"
        ) from None


def clear(folder: Path) -> None:
    """Take a damaged folder away, in one rename: another process may be about to do the same."""
    aside = temporary_name(folder)
    with suppress(FileNotFoundError):
        folder.rename(aside)
    shutil.rmtree(aside, ignore_errors=True)


def unwritable(folder: Path, error: OSError) -> ValueError:
    """The message for a cache that takes nothing."""
    return ValueError(
        f"the cache {folder.parent} cannot be written ({error}); set OPENLOOP_CACHE to another "
        "folder"
    )
