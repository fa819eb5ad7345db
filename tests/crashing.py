"""A run one of whose processes meets what a test cannot wait for. torchrun starts this in place of
train.py.

    torchrun … tests/crashing.py WHAT RANK AT train.py's words …
"""

import os
import signal
import sys
from pathlib import Path

import files.publish
import job.finish
import job.fit
import train


def die_before_rename(at: int) -> None:
    """Once all processes have agreed and all files of the checkpoint are there, before its name."""
    seal, left = files.publish.seal, iter(range(at - 1, -1, -1))

    def seal_and_die(folder: Path, mode: int | None = None) -> None:
        seal(folder, mode)
        if next(left) == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    files.publish.seal = seal_and_die


def fill_disk(at: int) -> None:
    """From the call of this number on no file of the run can be written."""
    from tests.faults.shim import FULL_FROM, Shim

    Shim().arm(Path(os.environ["FULL"]), FULL_FROM, at)


def fail_in_evaluation(at: int) -> None:
    """In the evaluation of this number."""
    split_batches, left = job.fit.split_batches, iter(range(at - 1, -1, -1))

    def batches(one: job.fit.Job, split: str):  # type: ignore[no-untyped-def]
        for number, batch in enumerate(split_batches(one, split)):
            if number == 0 and next(left) == 0:
                raise ValueError("the rows of an evaluation are bad")
            yield batch

    job.fit.split_batches = batches


def fail_to_write(at: int) -> None:
    """Where rank 0 writes what the run leaves and the others wait."""

    def fail(path: Path, text: str) -> bool:
        raise OSError(5, "Input/output error", str(path))

    job.finish.save_text = fail


WHAT = {
    "rename": die_before_rename,
    "disk": fill_disk,
    "evaluation": fail_in_evaluation,
    "card": fail_to_write,
}

if __name__ == "__main__":
    what, rank, at, *words = sys.argv[1:]
    if os.environ["RANK"] == rank:
        WHAT[what](int(at))
    sys.exit(train.main(words))
