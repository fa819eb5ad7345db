"""Where an export goes: RUN/exports/FORMAT, or a folder of one's own; never over other files."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from files.publish import free_name, publish, remove, sweep
from files.read import read_json
from files.write import sync, temporary_name
from job.folder import Folder

CARD = "README.md"
EXPORT = "export.json"  # in each: what it is of, and what was measured
MAKER = "openloop"  # stands in it


def place_of(folder: Folder, to: str, out: Path | None) -> Path:
    """The folder of an export. Raises ValueError where something else of the user's has its name,
    or where it would lie in the run's model."""
    target = folder.path / "exports" / to if out is None else out
    if target.resolve() == folder.path.resolve() or folder.model.resolve() in (
        target.resolve(), *target.resolve().parents
    ):  # fmt: skip
        raise ValueError(f"--out is {target}, in which the run itself lies; name another folder")
    if os.path.lexists(target) and not is_export(target):
        raise ValueError(
            f"{target} exists and is no export of openloop's (it has no {EXPORT}); name another "
            "folder with --out, or move it away"
        )
    return target


def is_export(target: Path) -> bool:
    """Whether a folder is one that we wrote, and may write anew."""
    if target.is_symlink() or not target.is_dir():
        return False
    try:
        return read_json(target / EXPORT).get("made_by") == MAKER
    except ValueError:
        return False


@contextmanager
def workplace(target: Path) -> Iterator[Path]:
    """A folder beside `target` to write into, removed afterwards with what is left in it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    sweep(target.parent, seconds=86_400)  # what a killed export left a day ago
    place = temporary_name(target)
    place.mkdir()
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def settle(place: Path, target: Path) -> None:
    """Publish what a workplace holds as `target`, whole. An earlier export of that name is put
    aside first and removed once the new one is there."""
    before = free_name(target, "before") if os.path.lexists(target) else None
    try:
        if before is not None:
            os.rename(target, before)
        with publish(target) as made:
            for path in place.iterdir():
                os.rename(path, made / path.name)
    except BaseException:
        if before is not None and not os.path.lexists(target):
            os.rename(before, target)
        raise
    if before is not None:
        remove(before)
        sync(target.parent)


def rejected(target: Path) -> Path:
    """Where an export goes that failed its check: DIR.rejected, over an earlier one of ours."""
    path = target.with_name(f"{target.name}.rejected")
    return path if not os.path.lexists(path) or is_export(path) else free_name(target, "rejected")


def size_of(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
