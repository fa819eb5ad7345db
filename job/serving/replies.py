"""How a reply is sent: whole, or in pieces as it is said (server-sent events)."""

import json
import secrets
import time
from collections.abc import AsyncIterator
from typing import Any

from job.serving.chat import Begun, End, Form, Talk
from job.serving.errors import Refused
from job.serving.queue import Ticket
from job.serving.service import Service

DONE = "data: [DONE]\n\n"


def make_form(service: Service) -> Form:
    """The frame of a new reply."""
    run, made = service.run, f"chatcmpl-{secrets.token_hex(12)}"
    return Form(made, int(time.time()), run.name, f"openloop-{(run.digest or 'unsealed')[:12]}")


async def whole_reply(service: Service, ticket: Ticket, begun: Begun) -> dict[str, Any]:
    """The reply once all of it is said. Raises Refused."""
    texts = []
    while not isinstance(event := await service.next_event(ticket), End):
        texts.append(event)
    note_reply(service, event)
    return make_form(service).whole("".join(texts), begun, event)


async def pieces(service: Service, ticket: Ticket, begun: Begun) -> AsyncIterator[str]:
    """The reply as it is said. What goes wrong on the way is an event too: the status was sent."""
    talk: Talk = ticket.ask
    form = make_form(service)
    silent = {"usage": None} if talk.usage else {}
    yield event_of(form.piece({"role": "assistant", "content": ""}) | silent)
    try:
        while not isinstance(
            event := await service.next_event(ticket, since=time.perf_counter()), End
        ):
            yield event_of(form.piece({"content": event}) | silent)
    except Refused as error:
        yield event_of(error.body(openai=True))
        return
    note_reply(service, event)
    last = form.piece({}, event.finish) | silent
    yield event_of(last | {"left_out": begun.left_out})
    if talk.usage:
        yield event_of(form.counts(begun, event))
    yield DONE


def event_of(value: dict[str, Any]) -> str:
    """One server-sent event."""
    return f"data: {json.dumps(value)}\n\n"


def note_reply(service: Service, end: End) -> None:
    """Count a reply."""
    service.metrics.totals.update(texts_total=1, reply_tokens_total=end.tokens)
    service.metrics.queue.note(end.waited)
    service.metrics.work.note(end.worked)
    service.note_done(1)
