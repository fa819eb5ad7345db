"""Where checkpoints live, which one is the newest that is whole, and who holds a run."""

import errno
import fcntl
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from files.publish import remove, set_aside, sweep, verify
from files.verify import DamagedError
from files.write import open_in_place

STEP = re.compile(r"step-(\d{8})")


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
            remove(step_folder(root, step))
    sweep(root)


@contextmanager
def hold_run(folder: Path) -> Iterator[None]:
    """Hold a run's folder for this process. The kernel lets go when the process ends, however it
    ends, so a killed process leaves no stale lock. Raises ValueError if another process has it, or
    if the lock is a link."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    # beside the folder, which may be renamed while it is held
    with open_in_place(folder.with_name(f".{folder.name}.lock")) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
            raise ValueError(
                f"{folder} is in use by another process; wait for it, or choose another run.name"
            ) from error
        yield
