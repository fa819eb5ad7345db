"""One of several processes of a small program whose rank 1 fails: tests/test_lost.py starts it.

RANK=… python tests/failing.py KIND
"""

import os
import signal
import sys
import time
from datetime import timedelta

import torch
from torch.distributed import _functional_collectives as collectives
from torch.distributed import group

from engine.gate import open_gate
from engine.signs import note
from engine.world import join, sum_counts, world
from job.ending import run_command


def fail(kind: str) -> None:
    """What goes wrong with rank 1."""
    if kind.startswith("SIG"):
        os.kill(os.getpid(), getattr(signal, kind))
    elif kind == "loop":
        while True:
            pass
    elif kind == "bug":
        raise RuntimeError("ours")
    elif kind == "memory":
        raise MemoryError
    elif kind == "interrupt":
        raise KeyboardInterrupt
    elif kind == "exit":
        os._exit(7)


def work(kind: str, within_torch: bool) -> None:
    open_gate()
    join(timedelta(seconds=8), "cpu")
    sum_counts(1)
    note("step 7")
    time.sleep(0.7)  # the sign is given
    if world().rank == 1:
        fail(kind)
    if within_torch:  # as FSDP and tensor parallelism call it
        reduced = collectives.all_reduce(torch.ones(4), "sum", group.WORLD)
        assert reduced.tolist() == [world().size] * 4
    else:
        sum_counts(2)


if __name__ == "__main__":
    torch.set_num_threads(1)
    within_torch = sys.argv[2:] == ["torch"]
    sys.exit(run_command("x.py", lambda: work(sys.argv[1], within_torch), "go on with --resume"))
