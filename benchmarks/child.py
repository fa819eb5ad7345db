"""What every measured child process shares: its windows of time, its memory, its answers.

The parent writes "SECONDS" lines to standard input; the child works for at least that long,
answers with one JSON line, and waits for the next line.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")


def peak_bytes() -> int:
    """The most memory so far: of the GPU where there is one, else of this process."""
    from engine.estimate import peak_memory
    from engine.precision import choose_device

    return peak_memory(choose_device("auto")[0])


def import_bytes() -> int:
    """What the imports cost, to be called right after them; nothing on a GPU."""
    import torch

    from engine.estimate import resident_bytes

    return 0 if torch.cuda.is_available() else resident_bytes("VmRSS")


def wait_for_device() -> None:
    """A clock read before the GPU is done would tell nothing."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def answer(value: dict[str, Any]) -> None:
    """One JSON line to the parent."""
    assert sys.__stdout__ is not None
    sys.__stdout__.write(json.dumps(value) + "\n")
    sys.__stdout__.flush()


def read_seconds() -> float:
    """The length of the next window; ends the process where the parent wants none."""
    line = sys.stdin.readline()
    if not line.strip():
        sys.exit(0)
    return float(line)


class Counts(Protocol):
    """What is counted of a step: arithmetic.py has it for classifiers, arithmetic_decoder.py for
    language models; `step` is the flat list of numbers by which they know it."""

    def tokens(self, step: Sequence[int]) -> int: ...

    def learned(self, step: Sequence[int]) -> int: ...

    def step_flops(self, step: Sequence[int]) -> int: ...


class Window:
    """The time for which the parent lets this process work. One that `shares` its machine's memory
    gives back what it does not need while it waits, and does not count the first step afterwards,
    in which it asks for it again."""

    def __init__(
        self,
        shape: Counts,
        ask: Callable[[], float] = read_seconds,
        tell: Callable[[dict[str, Any]], None] = answer,
        shares: bool = False,
    ) -> None:
        self.shape, self.ask, self.tell, self.shares = shape, ask, tell, shares

    def wait(self) -> None:
        """Block until the parent asks for the next window."""
        if self.shares:
            from engine.memory import give_back_memory

            give_back_memory()
        self.again = self.shares
        self.length = self.ask()
        self.steps: list[Any] = []
        self.start = time.perf_counter()

    def count(self, step: Any) -> None:
        """Count a finished step by its numbers, a list or a tensor wherever it is; at the end of
        the window answer, and wait for the next one. Tensors are read only then: earlier the host
        would wait for its device."""
        if self.again:
            wait_for_device()
            self.again, self.start = False, time.perf_counter()
            return
        self.steps.append(step)
        if time.perf_counter() - self.start >= self.length:
            wait_for_device()
            seconds = time.perf_counter() - self.start
            steps = [s if isinstance(s, list) else s.tolist() for s in self.steps]
            self.tell(
                {
                    "tokens": sum(map(self.shape.tokens, steps)),
                    "learned": sum(map(self.shape.learned, steps)),
                    "flops": sum(map(self.shape.step_flops, steps)),
                    "steps": len(steps),
                    "seconds": seconds,
                    "peak": peak_bytes(),
                }
            )
            self.wait()


class Stopwatch:
    """Seconds since it was made, without those of `paused()`."""

    def __init__(self) -> None:
        self.start, self.away = time.perf_counter(), 0.0

    def seconds(self) -> float:
        wait_for_device()
        return time.perf_counter() - self.start - self.away

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Time that does not count."""
        wait_for_device()
        before = time.perf_counter()
        try:
            yield
        finally:
            wait_for_device()
            self.away += time.perf_counter() - before
