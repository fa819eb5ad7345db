"""SIGTERM and SIGINT ask a run to stop after the current step; a second signal ends it at once."""

import os
import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType

from engine.losses import Batch

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stopped(Exception):
    """Raised inside an evaluation that a stop request cut short."""


class StopRequest:
    """Whether, and by which signal, the run was asked to stop."""

    def __init__(self) -> None:
        self.signal: int | None = None

    @property
    def requested(self) -> bool:
        return self.signal is not None

    @property
    def exit_code(self) -> int:
        """143 for SIGTERM, 130 for SIGINT, 0 where nothing was asked."""
        return 128 + self.signal if self.signal is not None else 0

    def guard(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The same batches; raises Stopped between two of them once a stop was requested."""
        for batch in batches:
            if self.requested:
                raise Stopped
            yield batch


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Within the block the first signal is only noted; the handlers before it come back after."""
    request = StopRequest()

    def note(number: int, frame: FrameType | None) -> None:
        if request.requested:
            os._exit(128 + number)  # asked twice: no saving, no cleaning up
        request.signal = number
        os.write(2, b"\nstopping after this step; once more ends it at once, unsaved\n")

    before = {number: signal.signal(number, note) for number in SIGNALS}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
