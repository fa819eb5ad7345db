"""OpenAI's contract for conversations: what a request asks, and what is sent of a reply.

    {"model": "my_run", "messages": [{"role": "user", "content": "Hello!"}]}

Settings that are left out are the run's own ([generate]). One reply is written at a time. What this
server cannot do (several replies, tools, penalties, log-probabilities) is refused and not ignored.
"""

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from data.reading.rows import is_encodable
from job.chatting.talker import Message
from job.serving.errors import Refused, as_json

ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
MOST_STOPS = 4
GREEDY_BELOW = 1e-3  # a temperature that draws the likeliest token all but always
NOTED = {"user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key"}
ONLY = {  # what may be asked for, since it changes nothing
    "n": (1,), "logprobs": (False,), "frequency_penalty": (0,), "presence_penalty": (0,),
    "response_format": ({"type": "text"},), "tool_choice": ("none",), "modalities": (["text"],),
}  # fmt: skip
READ = {
    "model", "messages", "temperature", "top_p", "max_tokens", "max_completion_tokens", "stop",
    "seed", "stream", "stream_options",
}  # fmt: skip


@dataclass(frozen=True)
class Talk:
    """A conversation, the settings of the reply that differ from the run's own, and what ends it
    besides its own end."""

    messages: list[Message]
    settings: dict[str, Any] = field(default_factory=dict)
    stops: tuple[str, ...] = ()
    stream: bool = False
    usage: bool = False  # a last piece with the counts


@dataclass(frozen=True)
class Begun:
    """The reply begins: tokens of what it follows, and how many messages had no room in it."""

    prompt_tokens: int
    left_out: int


@dataclass(frozen=True)
class End:
    """The reply is said: "stop" by itself or at a stop sequence, "length" where it was cut; its
    tokens, and seconds in line and at work."""

    finish: str
    tokens: int
    waited: float
    worked: float


def wrong(message: str, param: str | None = None, code: str | None = None) -> Refused:
    """A request that OpenAI's clients know as a bad one."""
    return Refused(400, "validation", message, param=param, code=code)


def read_talk(body: Any, model: str) -> Talk:
    """The body of /v1/chat/completions, for a run of this name. Raises Refused."""
    if not isinstance(body, Mapping):
        raise wrong(f"the body is {as_json(body)}; expected an object with messages")
    for name, value in body.items():
        if name in READ or name in NOTED or value in (None, "", [], {}):
            continue
        if name not in ONLY:
            raise wrong(f"this server has no {name!r:.60}; leave it out", name[:60], "unsupported")
        if value not in ONLY[name] or (isinstance(value, bool) != (name == "logprobs")):
            only = json.dumps(ONLY[name][0])
            got = f"{name} is {as_json(value)}; this server takes {only} alone"
            raise wrong(got, name, "unsupported")
    if (requested := body.get("model")) != model:
        what = (
            "model is missing" if requested is None else f"there is no model {str(requested)!r:.60}"
        )
        status, code = (400, None) if requested is None else (404, "model_not_found")
        raise Refused(status, "validation", f"{what}; here is {model!r}", param="model", code=code)
    stream, options = flag(body, "stream"), body.get("stream_options")
    if options is not None and not (stream and isinstance(options, Mapping)):
        raise wrong("stream_options goes with stream = true, and is an object", "stream_options")
    return Talk(
        read_messages(body.get("messages")), read_settings(body), read_stops(body.get("stop")),
        stream, flag(options or {}, "include_usage"),
    )  # fmt: skip


def read_messages(messages: Any) -> list[Message]:
    """Role and text of each message. Whether somebody can reply to them the talker says."""
    if not isinstance(messages, list) or not messages:
        raise wrong('messages: expected a list such as [{"role": "user", "content": "Hello!"}]',
                    "messages")  # fmt: skip
    read = []
    for number, message in enumerate(messages):
        place = f"messages[{number}]"
        if not isinstance(message, Mapping):
            raise wrong(f"{place} is {as_json(message)}; expected an object", place)
        role = message.get("role")
        if not isinstance(role, str) or role not in ROLES:
            known = ", ".join(ROLES)
            raise wrong(f"{place}: role is {as_json(role)}; expected one of {known}", place)
        if message.get("tool_calls") or message.get("function_call"):
            raise wrong(f"{place} calls tools, which this server has not", place, "unsupported")
        read.append({"role": ROLES[role], "content": read_content(message.get("content"), place)})
    return read


def read_content(content: Any, place: str) -> str:
    """The text of a message, which may come in parts."""
    if isinstance(content, list):
        for part in content:
            if not isinstance(part, Mapping) or part.get("type") != "text":
                kind = part.get("type") if isinstance(part, Mapping) else part
                raise wrong(
                    f"{place}: a part is {as_json(kind)}; this model reads text alone", place
                )
            if not isinstance(part.get("text"), str):
                got = as_json(part.get("text"))
                raise wrong(f"{place}: the text of a part is {got}; expected text", place)
        content = "\n".join(part["text"] for part in content)
    if not isinstance(content, str):
        raise wrong(f"{place}: content is {as_json(content)}; expected text", place)
    if not is_encodable(content):
        raise wrong(f"{place}: content holds a lone surrogate, which is no Unicode", place)
    return content


def read_settings(body: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of GenerateArgs that the request sets. A reply that is drawn without a seed is another
    one each time, as it is with OpenAI."""
    settings: dict[str, Any] = {}
    temperature = number(body, "temperature", 0, 2)
    top_p = number(body, "top_p", 0, 1)
    if temperature is not None:
        settings["temperature"] = 0.0 if temperature < GREEDY_BELOW else float(temperature)
    if top_p == 0:
        settings["temperature"] = 0.0
    elif top_p is not None:
        settings["top_p"] = float(top_p)
    lengths = {
        value
        for name in ("max_tokens", "max_completion_tokens")
        if (value := number(body, name, 1, 2**31, whole=True)) is not None
    }
    if len(lengths) > 1:
        raise wrong("max_tokens and max_completion_tokens differ; give one", "max_tokens")
    if lengths:
        settings["max_tokens"] = int(lengths.pop())
    seed = number(body, "seed", -(2**63), 2**63 - 1, whole=True)
    settings["seed"] = secrets.randbelow(2**31) if seed is None else int(seed)
    return settings


def number(
    body: Mapping[str, Any], name: str, least: float, most: float, whole: bool = False
) -> float | None:
    """A field that is a number in a range, or not there."""
    value = body.get(name)
    right = isinstance(value, int) if whole else isinstance(value, int | float)
    if value is None:
        return None
    if not right or isinstance(value, bool) or not least <= value <= most:
        what = "a whole number" if whole else "a number"
        raise wrong(f"{name} is {as_json(value)}; expected {what}, {least} to {most}", name)
    return float(value) if not whole else value


def flag(values: Mapping[str, Any], name: str) -> bool:
    """A field that is true or false; false where it is not there."""
    value = values.get(name)
    if value not in (None, True, False) or isinstance(value, int) != isinstance(value, bool):
        raise wrong(f"{name} is {as_json(value)}; expected true or false", name)
    return bool(value)


def read_stops(stop: Any) -> tuple[str, ...]:
    """The texts that end a reply; they are not said."""
    stops = [stop] if isinstance(stop, str) else stop
    if stops is None or stops == [""]:
        return ()
    if not isinstance(stops, list) or not all(isinstance(s, str) and s for s in stops):
        raise wrong(f"stop is {as_json(stop)}; expected a text, or some", "stop")
    if len(stops) > MOST_STOPS:
        raise wrong(f"stop has {len(stops)} texts; at most {MOST_STOPS} are looked for", "stop")
    return tuple(stops)


class Stops:
    """Pieces of a reply on their way out: what may be the beginning of a stop text waits until it
    is one or is none, and blanks until something follows them. `hit`: one was met."""

    def __init__(self, stops: Sequence[str]) -> None:
        self.stops, self.held, self.hit = stops, "", False

    def add(self, piece: str) -> str:
        """What can be said now."""
        self.held += piece
        places = [place for stop in self.stops if (place := self.held.find(stop)) >= 0]
        if places:
            self.hit = True
            text, self.held = self.held[: min(places)], ""
            return text.rstrip()
        size = len(self.held)
        longest = max((len(stop) for stop in self.stops), default=1) - 1
        wait = next(
            (k for k in range(min(longest, size), 0, -1) if self._begins(self.held[size - k :])), 0
        )
        safe = self.held[: size - wait].rstrip()
        self.held = self.held[len(safe) :]
        return safe

    def _begins(self, end: str) -> bool:
        """Whether a stop text may begin with this."""
        return any(stop.startswith(end) for stop in self.stops)

    def end(self) -> str:
        """What still waits, without blanks behind it."""
        text, self.held = self.held.rstrip(), ""
        return text


# ---- what is sent ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Form:
    """What all pieces of one reply have in common."""

    id: str
    created: int
    model: str
    fingerprint: str

    def whole(self, text: str, begun: Begun, end: End) -> dict[str, Any]:
        """A reply in one piece."""
        message = {"role": "assistant", "content": text, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": end.finish}
        rest = {"usage": usage(begun, end), "left_out": begun.left_out}
        return self._frame("chat.completion", [choice]) | rest

    def piece(self, delta: Mapping[str, Any], finish: str | None = None) -> dict[str, Any]:
        """One of many."""
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return self._frame("chat.completion.chunk", [choice])

    def counts(self, begun: Begun, end: End) -> dict[str, Any]:
        """The last one, with the counts, where they were asked for."""
        return self._frame("chat.completion.chunk", []) | {"usage": usage(begun, end)}

    def _frame(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self.id, "object": kind, "created": self.created, "model": self.model,
            "system_fingerprint": self.fingerprint, "choices": choices,
        }  # fmt: skip


def usage(begun: Begun, end: End) -> dict[str, int]:
    """The counts of tokens."""
    return {
        "prompt_tokens": begun.prompt_tokens,
        "completion_tokens": end.tokens,
        "total_tokens": begun.prompt_tokens + end.tokens,
    }
