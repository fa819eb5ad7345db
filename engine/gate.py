"""One error ends a run on all its processes, with one message, in seconds.

    the first that fails   claims the end, says what is wrong, leaves
    all others             see the claim, say nothing, leave with the same status

The claim stands in the store at which torchrun's processes meet. A thread of each looks at it, so
that a process leaves too that waits for one that has gone; it also gives the signs of life
(signs.py) from which the one that claims says who did not come to a meeting.
"""

from __future__ import annotations

import atexit
import os
import queue
import signal
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from engine import signs
from engine.store import open_store, time_limit
from engine.world import World, started

T = TypeVar("T")
EVERY = 0.2  # seconds between two looks
SIGN_EVERY = 0.5  # seconds between two signs of life
GRACE = 2 * signs.WATCH  # seconds until a process leaves that does not by itself
ANSWER = 5.0  # seconds in which the store answers, if it can be reached


class Gate:
    """Who ends the run."""

    def __init__(self, here: World) -> None:
        self.store: Any = open_store(here.rank, "gate")
        self.here, self.open, self.ended = here, True, False
        self.closed = threading.Event()
        by_agent = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        self.may_end_store = not by_agent or here.local_size < here.size
        self.thread = threading.Thread(target=self.watch, name="gate", daemon=True)
        self.thread.start()
        atexit.register(self.close)

    def claim(self, status: int) -> bool | None:
        """Whether this process is the first to end the run, with this exit status; None where the
        store does not answer."""
        mine = f"{self.here.rank} {status}"
        self.open = False  # it leaves by itself
        if self.ended:
            return False
        claimed = within(ANSWER, lambda: self.store.compare_set("claim", "", mine).decode())
        return None if claimed is None else claimed == mine

    def watch(self) -> None:
        """Give signs of life, and leave once another process has claimed the end."""
        beat, due = 0, 0.0
        while not self.closed.is_set():
            try:
                if time.monotonic() >= due:
                    beat, due = beat + 1, time.monotonic() + SIGN_EVERY
                    self.store.set(f"sign/{self.here.rank}", signs.show(signs.own_sign(beat)))
                claimed = self.store.check(["claim"])
                rank, status = self.store.get("claim").decode().split() if claimed else ("", "0")
            except RuntimeError:
                if self.open:
                    leave_alone(self.here)
                return
            if rank == str(self.here.rank):
                return
            if claimed:
                self.ended = True
                self.seen()
                if not self.closed.wait(GRACE):
                    os._exit(int(status))
                return
            self.closed.wait(EVERY)

    def close(self) -> None:
        """The run has ended: nothing is watched any more. A thread that asks the store while Python
        goes down would end the process by SIGABRT. Where the store may go with this process, those
        that have not yet heard of the end are waited for."""
        if self.closed.is_set():
            return
        self.open = False
        self.closed.set()
        self.thread.join(ANSWER)
        if not self.ended:
            self.seen()
        until = time.monotonic() + GRACE
        while self.may_end_store and time.monotonic() < until:
            left = within(ANSWER, lambda: self.store.add("left", 0))
            if left is None or left >= self.here.size:
                return
            time.sleep(EVERY)

    def seen(self) -> None:
        """Let the others know that this process knows of the end."""
        within(ANSWER, lambda: self.store.add("left", 1))


def leave_alone(here: World) -> None:
    """torchrun has gone, whose store it was: nobody would end a process that hangs."""
    if here.local_rank == 0:
        os.write(2, b"\ntorchrun has gone, or the link to it\n")
    os.kill(os.getpid(), signal.SIGTERM)


def within(seconds: float, work: Callable[[], T]) -> T | None:
    """What the store answers to `work`; None where it has gone, or takes longer: over a link that
    was cut it would never answer."""
    answers: queue.Queue[T | None] = queue.Queue()

    def ask() -> None:
        try:
            answers.put(work())
        except RuntimeError:
            answers.put(None)

    threading.Thread(target=ask, name="ask", daemon=True).start()
    try:
        return answers.get(timeout=seconds)
    except queue.Empty:
        return None


_gate: Gate | None = None


def open_gate() -> None:
    """Where several processes make the run: let the first error end all of them. Raises ValueError
    as open_store does."""
    global _gate
    if _gate is None and not started().alone:
        _gate = Gate(started())


def close_gate() -> None:
    """The run has ended well, or was stopped."""
    if _gate is not None:
        _gate.close()


def claim_end(status: int) -> bool:
    """Whether it is for this process to say why the run ends."""
    return _gate is None or _gate.claim(status) is not False


def let_go() -> None:
    """It is said why the run ends: the others need wait no longer."""
    if (gate := _gate) is not None:
        within(ANSWER, lambda: gate.store.set("told", ""))


def explain_lost(error: BaseException, status: int) -> str | None:
    """Who did not come to the meeting that failed with this error; None where it is for another
    process to say it, which this one gives the time to look. torchrun ends those that are left by
    SIGTERM as soon as one has gone: that is put off until it is said."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if _gate is None:  # a program's own, that opened none
        return str(error)
    signs.note_lost()
    gate, here = _gate, _gate.here
    mine = gate.claim(status)
    if mine is None and here.local_rank == 0:
        return (
            f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']} does not answer, where the "
            "processes meet: torchrun or the machine of rank 0 has gone, or the link to it is cut"
        )
    if not mine:
        until = time.monotonic() + GRACE
        while time.monotonic() < until and not within(ANSWER, lambda: gate.store.check(["told"])):
            time.sleep(EVERY)
        return None
    seen = signs.watch(
        lambda: within(ANSWER, lambda: signs.read_signs(gate.store, here.size)), here.rank
    )
    return signs.absent(seen, here.rank, here.size, time_limit(error))


def sign(message: str) -> str:
    """The message, with the rank it comes from where there are several."""
    here = started()
    return message if here.alone else f"rank {here.rank} of {here.size}: {message}"
