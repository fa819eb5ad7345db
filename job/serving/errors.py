"""Why a request gets no answer: its status, and the sentence that says what to do."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(eq=False)
class Refused(Exception):
    """An answer that is an error. `kind` is text-embeddings-inference's error_type; `param` and
    `code` are for OpenAI's clients: which part of the request is meant, a word for the fault."""

    status: int
    kind: str
    message: str
    headers: Mapping[str, str] = field(default_factory=dict)
    param: str | None = None
    code: str | None = None

    def __str__(self) -> str:
        return self.message

    def body(self, openai: bool) -> dict[str, Any]:
        """What is sent, as the one or the other kind of client reads it."""
        if not openai:
            return {"error": self.message, "error_type": self.kind}
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        kind = {401: "authentication_error", 429: "rate_limit_error"}.get(self.status, kind)
        code = self.code or {401: "invalid_api_key", 404: "not_found"}.get(self.status)
        error = {"message": self.message, "type": kind, "param": self.param, "code": code}
        return {"error": error}


def wrong_input(message: str, param: str | None = None) -> Refused:
    """A body that is JSON and not what the route takes."""
    return Refused(422, "validation", message, param=param)


def no_text(message: str, empty: bool) -> Refused:
    """An item that the run cannot read. text-embeddings-inference has a status of its own for one
    that is empty."""
    return Refused(400, "empty", message) if empty else Refused(422, "tokenizer", message)


def as_json(value: Any) -> str:
    """What a request has in some place, as its client wrote it, no more than 60 characters. A lone
    surrogate is shown as its escape: an answer is UTF-8, which has none."""
    try:
        text = json.dumps(value, ensure_ascii=False)
    except RecursionError:
        return "nested too deep"
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= 60 else f"{text[:59]}…"


def model_failed(error: BaseException) -> Refused:
    """The model itself stumbled."""
    reason = str(error).strip().partition("\n")[0] or type(error).__name__
    return Refused(424, "backend", f"the model failed: {reason}")
