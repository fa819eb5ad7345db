"""SIGTERM, SIGINT and SIGHUP ask a run to stop after this step; a second one ends it at once."""

import os
import signal
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # commands need this file before torch is loaded
    from engine.losses import Batch

ECHO = 2.0  # seconds in which a signal may come by several ways
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Stopped(Exception):
    """Raised inside an evaluation that a stop request cut short, by whichever process was asked."""

    def __init__(self, number: int = signal.SIGTERM) -> None:
        super().__init__(number)
        self.signal = number


class StopRequest:
    """Whether, and by which signal, the run was asked to stop."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self.announced = False

    def announce(self) -> None:
        """Say, once, that the run stops, and what it does before."""
        if self.announced or self.signal is None:
            return
        self.announced = True
        try:
            os.write(2, b"\nstopping once this step is saved; once more ends it at once, unsaved\n")
        except OSError:  # the terminal is gone, and nothing that is printed may end the run
            leave_terminal()

    @property
    def requested(self) -> bool:
        return self.signal is not None

    @property
    def exit_code(self) -> int:
        """143 for SIGTERM, 130 for SIGINT, 129 for SIGHUP, 0 where nothing was asked."""
        return 128 + self.signal if self.signal is not None else 0

    def check(self) -> None:
        """Raise Stopped once a stop was requested."""
        if self.signal is not None:
            raise Stopped(self.signal)

    def guard(self, batches: "Iterable[Batch]") -> "Iterator[Batch]":
        """The same batches; raises Stopped between two of them once a stop was requested."""
        for batch in batches:
            self.check()
            yield batch


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Within the block the first signal is only noted; the handlers before it come back after. One
    that is ignored already, as nohup ignores SIGHUP, stays so."""
    request, alone, first = StopRequest(), os.environ.get("WORLD_SIZE", "1") == "1", 0.0

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal first
        if request.requested:
            if not alone and time.monotonic() < first + ECHO:
                return  # to all processes of a job, and once more from torchrun
            os._exit(128 + number)  # asked twice: no saving, no cleaning up
        request.signal, first = number, time.monotonic()
        if alone:
            request.announce()  # of several processes one says it, once all know (agree_to_stop)

    heard = [n for n in SIGNALS if signal.getsignal(n) is not signal.SIG_IGN]
    before = {number: signal.signal(number, note) for number in heard}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def leave_terminal() -> None:
    """Standard output and error go nowhere from now on; at exit Python flushes them once more."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        os.dup2(nowhere, descriptor)
    os.close(nowhere)
