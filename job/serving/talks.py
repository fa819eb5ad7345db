"""What answers /v1/chat/completions: a Talker that writes one reply after the other."""

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from job.chatting.prompts import check_single
from job.chatting.talker import Saying, Talker
from job.serving.chat import Begun, End, Stops, Talk, read_talk, wrong
from job.serving.errors import Refused, model_failed
from job.serving.queue import Ticket, room
from models.generate import room as positions


@dataclass
class TalkDesk:
    """A Desk for a chat run. `name` is the one that clients call the model by."""

    talker: Talker
    name: str
    waiting: deque[Ticket] = field(default_factory=deque)

    def admit(self, tickets: Sequence[Ticket]) -> None:
        """The answer to Desk."""
        self.waiting.extend(ticket for ticket in tickets if not ticket.gone)

    def busy(self) -> bool:
        """The answer to Desk."""
        return bool(self.waiting)

    def step(self) -> None:
        """The answer to Desk: one reply."""
        ticket = self.waiting.popleft()
        if ticket.gone:
            return
        ticket.begun = time.perf_counter()
        try:
            try:
                saying = self.begin(ticket.ask)
            except ValueError as error:  # nobody would reply to that
                ticket.send(wrong(str(error), "messages"))
                return
            ticket.send(Begun(len(saying.prompt.ids), saying.left_out))
            self.say(ticket, saying)
        except Exception as error:  # whatever a model meets is its request's end, not the server's
            ticket.send(Refused(500, "backend", model_failed(error).message))

    def begin(self, talk: Talk) -> Saying:
        """The reply, of which nothing is said yet. Raises ValueError for what has none."""
        check_single(self.talker, talk.messages)
        args = replace(self.talker.args, **talk.settings)
        return replace(self.talker, args=args).stream(talk.messages)

    def say(self, ticket: Ticket, saying: Saying) -> None:
        """Send a ticket the pieces of its reply, until it ends or nobody listens."""
        stops = Stops(ticket.ask.stops)
        for piece in saying:
            if ticket.gone:
                return
            if text := stops.add(piece):
                ticket.send(text)
            if stops.hit:
                break
        if text := stops.end():
            ticket.send(text)
        done, begun = time.perf_counter(), ticket.begun or ticket.accepted
        by_itself = stops.hit or saying.stopped == "eos"
        ticket.send(
            End("stop" if by_itself else "length", saying.tokens, begun - ticket.accepted,
                done - begun)
        )  # fmt: skip

    def read(self, route: str, body: Any, most: int) -> tuple[Talk, int]:
        """The answer to Desk."""
        talk = read_talk(body, self.name)
        return talk, room(["".join(message["content"] for message in talk.messages)])

    def answers(self, route: str) -> str | None:
        """The answer to Desk."""
        if route == "chat":
            return None
        return (
            "this run is a language model, which answers with text; ask POST /v1/chat/completions"
        )

    def warm(self) -> None:
        """The answer to Desk."""
        args = replace(self.talker.args, max_tokens=1)
        replace(self.talker, args=args).reply([{"role": "user", "content": "a"}])

    def info(self) -> dict[str, Any]:
        """The answer to Desk."""
        args, most = self.talker.args, positions(self.talker.model)
        return {
            "model_dtype": self.talker.precision.dtype,
            "model_type": {"chat": {}},
            "max_input_length": most,
            "task": "chat",
            "routes": ["POST /v1/chat/completions", "GET /v1/models"],
            "generate": {
                "temperature": args.temperature, "top_p": args.top_p, "top_k": args.top_k,
                "max_tokens": args.max_tokens,
            },
            "positions": most,
            "texts": self.talker.texts,
            "device": str(self.talker.precision.device),
        }  # fmt: skip
