"""The atomic publishing protocol: a folder is there, whole and verified, or it is not there.

`publish` hands out a temporary folder beside the target. Whoever has something to save writes into
it; then every file is fsynced, a manifest of sizes and sha256 is written last, the folder is
renamed once and its parent fsynced. A crash at any point leaves the old state or the new one.
"""

import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from files.errors import UnreadableError
from files.read import read_json
from files.verify import DamagedError, check_file, sha256
from files.write import LEFTOVER, sync, temporary_name, try_lock

MANIFEST = "manifest.json"


@contextmanager
def publish(target: Path, mode: int | None = None) -> Iterator[Path]:
    """A folder to write into; on leaving the block it becomes `target`, whole.

    The folder that holds `target` has to be there. Raises FileExistsError if `target` exists, a
    link included: what was published is never overwritten. A full disk or an error in the block
    leaves what was there before. While the block runs the folder is locked, so that `sweep` leaves
    it alone. `mode` is what the folder is to have, and its files without the right to run them;
    None leaves both as the umask does.
    """
    refuse_existing(target)
    temporary = temporary_name(target)
    temporary.mkdir()  # with the mode that the umask leaves
    lock = os.open(temporary, os.O_RDONLY | os.O_CLOEXEC)
    try:
        try_lock(lock)
        yield temporary
        seal(temporary, mode)
        refuse_existing(target)  # a rename would take the place of an empty folder
        os.rename(temporary, target)
        sync(target.parent)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if (number := system_number(error)) is not None:
            raise OSError(number, os.strerror(number), str(target)) from error
        raise
    finally:
        os.close(lock)


def system_number(error: BaseException) -> int | None:
    """The system's number of an error that a library written in Rust (safetensors, tokenizers)
    wraps in one of its own: of a full disk it says "… (os error 28)"."""
    match = None if isinstance(error, OSError) else re.search(r"\(os error (\d+)\)", str(error))
    return int(match.group(1)) if match else None


def refuse_existing(target: Path) -> None:
    """Raise FileExistsError where anything has the target's name."""
    if os.path.lexists(target):
        raise FileExistsError(f"{target} exists; what was published is never overwritten")


def seal(folder: Path, mode: int | None = None) -> None:
    """Bring every file to the disk and write the manifest of their sizes and sha256 last. `mode` is
    that of folders, and of files without the right to run them."""
    entries = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        sync(path)
        name = path.relative_to(folder).as_posix()
        entries[name] = {"bytes": path.stat().st_size, "sha256": sha256(path)}
    manifest = folder / MANIFEST
    manifest.write_text(json.dumps({"files": entries}, indent=1), encoding="utf-8")
    sync(manifest)
    if mode is not None:
        for path in [*folder.rglob("*"), folder]:
            path.chmod(mode if path.is_dir() else mode & 0o666)
    for inner in [p for p in folder.rglob("*") if p.is_dir()] + [folder]:
        sync(inner)


def read_manifest(folder: Path) -> dict[str, tuple[int, str]]:
    """File name -> size and sha256, as published. Raises DamagedError where it says nothing,
    UnreadableError where this user may not read it."""
    try:
        files = read_json(folder / MANIFEST, ["files"])["files"]
        return {name: (int(entry["bytes"]), str(entry["sha256"])) for name, entry in files.items()}
    except UnreadableError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedError(f"{folder}: no readable {MANIFEST} ({error})") from error


def verify(folder: Path) -> None:
    """Raise DamagedError, saying which file and why, unless `folder` matches its manifest,
    and UnreadableError where this user may not read it."""
    for name, (size, digest) in read_manifest(folder).items():
        check_file(folder, name, digest, size)


def set_aside(folder: Path, word: str) -> Path:
    """Rename a folder to the first free `name.word-1`, `name.word-2`, …; nothing is deleted."""
    aside = free_name(folder, word)
    os.rename(folder, aside)
    sync(folder.parent)
    return aside


def free_name(path: Path, word: str) -> Path:
    """The first of `name.word-1`, `name.word-2`, … beside `path` that nothing has."""
    number = 1
    while os.path.lexists(name := path.with_name(f"{path.name}.{word}-{number}")):
        number += 1
    return name


def remove(path: Path) -> None:
    """Remove a folder with all it holds, a file, or a link (and not what it points to)."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sweep(parent: Path, seconds: float = 0.0) -> None:
    """Remove what killed processes left half-written in `parent`: temporary files and folders last
    changed more than `seconds` ago that nobody has locked. What cannot be removed stays."""
    if not parent.is_dir():
        return
    for path in [p for p in parent.iterdir() if LEFTOVER.fullmatch(p.name)]:
        try:
            if time.time() - path.lstat().st_mtime >= seconds and not is_locked(path):
                remove(path)
        except OSError:  # another process was quicker, or it is somebody else's
            continue


def is_locked(path: Path) -> bool:
    """Whether a process that still lives is filling this file or folder."""
    if path.is_symlink():
        return False
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        return not try_lock(descriptor)
    finally:
        os.close(descriptor)
