"""What a server knows while it runs, and how a request waits for its answer."""

import asyncio
import hmac
import json
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from job.serving.errors import Refused
from job.serving.metrics import Metrics
from job.serving.queue import Opened, Ticket, Worker

TOKENS = 16_384  # in one batch
GONE = object()  # the event of a client that hung up
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]


@dataclass(frozen=True)
class Limits:
    """What is taken: seconds until an answer has to be there, texts in line, texts in one request,
    bytes of a body, and tokens in one batch."""

    timeout: float = 60.0
    waiting: int = 1024
    texts: int = 256
    body: int = 2_000_000
    tokens: int = TOKENS


@dataclass
class Service:
    """One server. `token`: what a request has to bring, if anything; `names`: the names of the host
    by which it may be asked, beside any address, None for all."""

    worker: Worker
    limits: Limits
    version: str
    token: bytes | None = None
    names: frozenset[str] | None = None
    metrics: Metrics = field(default_factory=Metrics)
    draining: bool = False
    in_flight: int = 0  # requests that are being answered
    waiting: int = 0  # room that what was accepted and has no answer yet takes in line
    tickets: set[Ticket] = field(default_factory=set)  # all of it
    lately: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=256))

    @property
    def run(self) -> Opened:
        """The run that answers now."""
        return self.worker.opened

    def info(self) -> dict[str, Any]:
        """What /info says: text-embeddings-inference's fields, then ours."""
        limits = self.limits
        return {
            "model_id": self.run.name,
            "model_sha": self.run.digest,
            "max_concurrent_requests": limits.waiting,
            "max_batch_tokens": limits.tokens,
            "max_batch_requests": None,
            "max_client_batch_size": limits.texts,
            "auto_truncate": True,
            "tokenization_workers": 1,
            "version": self.version,
            "sha": None,
            "docker_label": None,
            **self.run.desk.info(),
            "max_body_bytes": limits.body,
            "token_needed": self.token is not None,
        }

    def model(self) -> dict[str, Any]:
        """What /v1/models says of the run."""
        made = {"object": "model", "created": self.run.created, "owned_by": "openloop"}
        return {"id": self.run.name, **made}

    def text_of_metrics(self) -> str:
        """What /metrics says."""
        gauges = {
            "waiting_texts": ("Texts accepted and not yet answered.", float(self.waiting)),
            "requests_in_flight": ("Requests being answered.", float(self.in_flight)),
            "draining": ("Whether the server is shutting down.", float(self.draining)),
        }
        run = self.run
        info = {"run": run.name, "sha256": run.digest or "", "version": self.version}
        return self.metrics.text(info, gauges)

    def healthy(self) -> bool:
        """Whether the thread of the model is there."""
        return self.worker.is_alive()

    # ---- a request ----

    def check_host(self, header: str | None) -> None:
        """Raise Refused where a request names another host. A page of another site may have its own
        name lead to this machine (DNS rebinding), and its browser would let it read the answers."""
        if self.names is None or not header:
            return
        name = host_of(header)
        if name in self.names or name.endswith(".localhost") or is_address(name):
            return
        raise Refused(
            421, "validation",
            f"the request is for the host {name!r:.60}, and without a token this server answers "
            f"under {', '.join(sorted(self.names))} or an address alone; ask it so, or start it "
            "with --token-env",
        )  # fmt: skip

    def check_token(self, header: str | None) -> None:
        """Raise Refused where a request does not bring the token. The comparison takes as long
        whatever is wrong with it."""
        if self.token is None:
            return
        scheme, _, word = (header or "").partition(" ")
        same = hmac.compare_digest(word.strip().encode("utf-8", "surrogateescape"), self.token)
        if not same or scheme.lower() != "bearer":
            what = "is not the right one" if header else "is missing"
            raise Refused(
                401, "unauthorized",
                f"the token {what}; send it as the header Authorization: Bearer TOKEN",
                headers={"WWW-Authenticate": "Bearer"},
            )  # fmt: skip

    async def read_body(self, headers: Mapping[str, str], receive: Receive) -> Any:
        """The JSON of a request's body. Raises Refused: 415 for another kind, 413 as soon as it is
        clear that it is too large, 408 where it comes too slowly, 422 where it is no JSON."""
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise Refused(
                415, "validation",
                f"the body's Content-Type is {kind[:60] or 'missing'}; expected application/json",
            )  # fmt: skip
        try:
            async with asyncio.timeout(self.limits.timeout):
                body = await self.read_bytes(headers.get("content-length"), receive)
        except TimeoutError:
            raise Refused(
                408, "validation", "the body did not arrive in time", {"Connection": "close"}
            ) from None
        try:
            return json.loads(body, parse_constant=no_number)
        except (ValueError, RecursionError) as error:
            reason = "nested too deep" if isinstance(error, RecursionError) else str(error)
            raise Refused(422, "validation", f"the body is no JSON: {reason}") from None

    async def read_bytes(self, declared: str | None, receive: Receive) -> bytes:
        """A body, no more of it than is allowed."""
        most = self.limits.body
        too_large = Refused(
            413, "validation", f"the body is larger than {most:,} bytes; send several requests",
            {"Connection": "close"},
        )  # fmt: skip
        if declared is not None and declared.isdecimal() and int(declared[:20]) > most:
            raise too_large
        body, more = bytearray(), True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Refused(499, "validation", "the client hung up")
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > most:
                raise too_large
        return bytes(body)

    @asynccontextmanager
    async def accepted(self, ask: Any, size: int, receive: Receive) -> AsyncIterator[Ticket]:
        """A ticket in line; whoever leaves gives it up. Raises Refused where the line is full."""
        if self.draining:
            raise closing()
        if self.waiting and self.waiting + size > self.limits.waiting:
            raise self.full()
        ticket = Ticket(ask, size, asyncio.get_running_loop())
        self.waiting += size
        self.tickets.add(ticket)
        listening = asyncio.ensure_future(self.hang_up(ticket, receive))
        self.worker.line.put(ticket)
        try:
            yield ticket
        finally:
            ticket.gone = True
            listening.cancel()
            self.waiting -= size
            self.tickets.discard(ticket)

    def give_up(self) -> None:
        """Tell all that still wait that the server ends; from another thread."""
        for ticket in list(self.tickets):
            ticket.send(closing())

    def full(self) -> Refused:
        """Why no more can wait, and in how many seconds to come again."""
        seconds = self.seconds_of_line()
        return Refused(
            429, "overloaded",
            f"{self.in_flight:,} requests with {self.waiting:,} texts are here already, of at most "
            f"{self.limits.waiting:,}; try again in about {seconds} s",
            {"Retry-After": str(seconds)},
        )  # fmt: skip

    async def hang_up(self, ticket: Ticket, receive: Receive) -> None:
        """Wait for the client to go, and say so."""
        while (await receive())["type"] != "http.disconnect":
            pass
        ticket.gone = True
        ticket.events.put_nowait(GONE)

    async def next_event(self, ticket: Ticket, since: float | None = None) -> Any:
        """The next event of a ticket. Raises Refused: what it was sent, 504 where the time `since`
        then, or since it was accepted, is up, 499 where its client hung up."""
        begun = ticket.accepted if since is None else since
        left = begun + self.limits.timeout - time.perf_counter()
        try:
            async with asyncio.timeout(max(0.0, left)):
                event = await ticket.events.get()
        except TimeoutError:
            raise Refused(
                504,
                "timeout",
                f"no answer within {self.limits.timeout:g} s; send fewer or shorter texts, or give "
                "the server more time (--timeout)",
            ) from None
        if event is GONE:
            raise Refused(499, "validation", "the client hung up")
        if isinstance(event, Refused):
            raise event
        return event

    def note_done(self, texts: int) -> None:
        """Remember when so many texts were answered."""
        self.lately.append((time.perf_counter(), texts))

    def seconds_of_line(self) -> int:
        """In how many seconds the line is likely to be empty, by what was answered of late."""
        if len(self.lately) < 2:
            return 1
        seconds = self.lately[-1][0] - self.lately[0][0]
        texts = sum(size for _, size in self.lately) - self.lately[0][1]
        return math.ceil(min(60.0, max(1.0, self.waiting * seconds / max(texts, 1))))


def host_of(header: str) -> str:
    """The name in a Host header, without its port."""
    try:
        return urlsplit(f"//{header}").hostname or ""
    except ValueError:
        return header


def is_address(name: str) -> bool:
    """Whether a host's name is an IP address, which leads where it says."""
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def closing() -> Refused:
    """Why nothing is taken any more."""
    return Refused(
        503, "unhealthy", "the server is shutting down; ask another one, or again in a moment",
        {"Retry-After": "5", "Connection": "close"},
    )  # fmt: skip


def no_number(name: str) -> float:
    """JSON has no NaN and no Infinity, whatever Python reads."""
    raise ValueError(f"{name} is no JSON")
