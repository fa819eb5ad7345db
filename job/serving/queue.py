"""One queue, and one thread that owns the model: what was accepted waits here until it is answered.

    event loop ── accept ──▶ Line ── take ──▶ Worker (a thread): desk.admit, desk.step
        ▲                                        │
        └──────────── Ticket.send ───────────────┘

The thread takes all that waits as soon as it has time, so a lone request is not made to wait for
others, and under load batches fill by themselves.
"""

import asyncio
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from job.serving.errors import model_failed

LONG = 16_384  # characters; a text of more takes as much room in line as several


def room(texts: Iterable[str]) -> int:
    """How much room texts take in line: one each, long ones more."""
    return sum(1 + len(text) // LONG for text in texts)


@dataclass(eq=False)
class Ticket:
    """A request that was accepted: what it asks, and how much room that takes in line. The thread
    of the model sends its events, of which the last is an answer or a Refused; who asked gets
    them. `gone`: nobody listens any more. Times are those of time.perf_counter()."""

    ask: Any
    size: int
    loop: asyncio.AbstractEventLoop
    accepted: float = field(default_factory=time.perf_counter)
    begun: float | None = None
    gone: bool = False
    events: asyncio.Queue[Any] = field(default_factory=asyncio.Queue)

    def send(self, event: Any) -> None:
        """From the thread of the model: something for who asked."""
        try:
            self.loop.call_soon_threadsafe(self.events.put_nowait, event)
        except RuntimeError:  # the loop was closed: the server ended in the middle of it
            self.gone = True


class Desk(Protocol):
    """What answers with an opened run; a task has one. The thread of the model alone calls
    admit(), step() and busy()."""

    def admit(self, tickets: Sequence[Ticket]) -> None:
        """Take tickets in, and refuse those that cannot be answered."""

    def step(self) -> None:
        """One piece of work, sent to its tickets."""

    def busy(self) -> bool:
        """Whether there is anything left to do."""

    def answers(self, route: str) -> str | None:
        """Why a route is none of this run's; None where it is."""

    def read(self, route: str, body: Any, most: int) -> tuple[Any, int]:
        """What the JSON of a route's body asks, and the room it takes in line; `most` texts are
        taken at once. Raises Refused. From the event loop: it looks at nothing that changes."""

    def info(self) -> dict[str, Any]:
        """What /info says of the run."""

    def warm(self) -> None:
        """Answer something, so that the first request need not wait for what is made once."""


class Line:
    """Tickets on their way from the event loop to the thread of the model."""

    def __init__(self) -> None:
        self.tickets: list[Ticket] = []
        self.changed = threading.Condition()
        self.closed = self.woken = False

    def put(self, ticket: Ticket) -> None:
        """Add one."""
        with self.changed:
            self.tickets.append(ticket)
            self.changed.notify()

    def wake(self) -> None:
        """Let a take() that waits look around."""
        with self.changed:
            self.woken = True
            self.changed.notify()

    def close(self) -> None:
        """No more will come; take() waits no longer."""
        self.closed = True
        self.wake()

    def take(self, wait: bool) -> list[Ticket]:
        """All that are there; with `wait` once there is one, or somebody wakes it."""
        with self.changed:
            if wait and not self.tickets and not self.closed and not self.woken:
                self.changed.wait()
            self.woken = False
            taken, self.tickets = self.tickets, []
            return taken


@dataclass(frozen=True)
class Opened:
    """A run that answers: its desk, its name, the sha256 it was sealed with (None of an older one),
    and when it was finished, in seconds since 1970."""

    desk: Desk
    name: str
    digest: str | None = None
    created: int = 0


class Worker(threading.Thread):
    """The thread of the model. `exchange` gives it another run without a request being lost: what
    was admitted is answered by the old one, all that came later by the new one."""

    def __init__(self, run: Opened) -> None:
        super().__init__(name="model", daemon=True)
        self.line = Line()
        self.opened = run
        self.next: Opened | None = None

    def exchange(self, run: Opened) -> None:
        """Answer with another run from now on."""
        self.next = run
        self.line.wake()

    def run(self) -> None:
        """Until the line is closed and all are answered."""
        while not self.line.closed or self.line.tickets or self.opened.desk.busy():
            if self.next is not None and not self.opened.desk.busy():
                self.opened, self.next = self.next, None
            desk = self.opened.desk
            if self.next is None:
                taken = self.line.take(wait=not desk.busy())
                try:
                    desk.admit(taken)
                except Exception as error:  # ours; the requests end by it, and not the thread
                    for ticket in taken:
                        ticket.send(model_failed(error))
            if desk.busy():
                desk.step()
