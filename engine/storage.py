"""The atomic publishing protocol: a folder is there, whole and verified, or it is not there.

`publish` hands out a temporary folder beside the target. Whoever has something to save writes into
it; then every file is fsynced, a manifest of sizes and sha256 is written last, the folder is
renamed once and its parent fsynced. A crash at any point leaves the old state or the new one.
"""

import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MANIFEST = "manifest.json"
STEP = re.compile(r"step-(\d{8})")


class DamagedError(ValueError):
    """A published folder that does not match its manifest."""


def sync(path: Path) -> None:
    """fsync a file or a folder, so that a rename after it cannot overtake its contents."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomically(path: Path, text: str) -> None:
    """Replace a single small file in one rename."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    sync(temporary)
    os.replace(temporary, path)
    sync(path.parent)


@contextmanager
def publish(target: Path) -> Iterator[Path]:
    """A folder to write into; on leaving the block it becomes `target`, whole.

    Raises FileExistsError if `target` exists: what was published is never overwritten. A full disk
    or an error in the block leaves nothing behind but what was there before.
    """
    if target.exists():
        raise FileExistsError(f"{target} exists; what was published is never overwritten")
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)  # left by a killed process
    temporary.mkdir()
    try:
        yield temporary
        files = sorted(p for p in temporary.rglob("*") if p.is_file())
        entries = {}
        for path in files:
            sync(path)
            name = path.relative_to(temporary).as_posix()
            entries[name] = {"bytes": path.stat().st_size, "sha256": sha256(path)}
        manifest = temporary / MANIFEST
        manifest.write_text(json.dumps({"files": entries}, indent=1), encoding="utf-8")
        sync(manifest)
        for folder in [p for p in temporary.rglob("*") if p.is_dir()] + [temporary]:
            sync(folder)
        os.rename(temporary, target)
        sync(target.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def verify(folder: Path) -> None:
    """Raise DamagedError, saying which file and why, unless `folder` matches its manifest."""
    try:
        files = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
        entries = [(name, entry["bytes"], entry["sha256"]) for name, entry in files.items()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedError(f"{folder}: no readable {MANIFEST} ({error})") from error
    for name, size, digest in entries:
        path = folder / name
        if not path.is_file():
            raise DamagedError(f"{folder}: {name} is missing")
        if path.stat().st_size != size:
            raise DamagedError(f"{folder}: {name} has {path.stat().st_size} bytes, expected {size}")
        if sha256(path) != digest:
            raise DamagedError(f"{folder}: the bytes of {name} have changed (sha256 differs)")


def set_aside(folder: Path, word: str) -> Path:
    """Rename a folder to the first free `name.word-1`, `name.word-2`, …; nothing is deleted."""
    number = 1
    while (aside := folder.with_name(f"{folder.name}.{word}-{number}")).exists():
        number += 1
    os.rename(folder, aside)
    sync(folder.parent)
    return aside


def step_folder(root: Path, step: int) -> Path:
    """Where the checkpoint of a step lives."""
    return root / f"step-{step:08d}"


def steps_on_disk(root: Path) -> list[int]:
    """Steps that have a published checkpoint, oldest first (damaged ones included)."""
    if not root.is_dir():
        return []
    matches = (STEP.fullmatch(path.name) for path in root.iterdir())
    return sorted(int(match.group(1)) for match in matches if match)


def newest_valid(root: Path) -> tuple[Path | None, list[str]]:
    """The newest checkpoint whose manifest verifies, and a line for each one set aside."""
    notes: list[str] = []
    for step in reversed(steps_on_disk(root)):
        folder = step_folder(root, step)
        try:
            verify(folder)
            return folder, notes
        except DamagedError as error:
            notes.append(f"{error}; set aside as {set_aside(folder, 'damaged').name}")
    return None, notes


def rotate(root: Path, keep: int, best_step: int | None) -> None:
    """Remove all but the newest `keep` checkpoints, by step number; the best one stays as well.
    What a killed process left half-written goes too."""
    for step in steps_on_disk(root)[: -max(keep, 1)]:
        if step != best_step:
            shutil.rmtree(step_folder(root, step))
    for leftover in root.glob(".step-*.tmp"):
        shutil.rmtree(leftover)


@contextmanager
def hold_run(folder: Path) -> Iterator[None]:
    """Hold a run's folder for this process. The kernel lets go when the process ends, however it
    ends, so a killed process leaves no stale lock. Raises ValueError if another process has it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    # beside the folder, which may be renamed while it is held
    with folder.with_name(f".{folder.name}.lock").open("w", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
            raise ValueError(
                f"{folder} is in use by another process; wait for it, or choose another run.name"
            ) from error
        yield
