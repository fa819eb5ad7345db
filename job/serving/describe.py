"""What the server says of itself: /openapi.json, of the routes that this run answers."""

from collections.abc import Mapping
from typing import Any

from job.serving.service import Service

Schema = Mapping[str, Any]
STRING: Schema = {"type": "string"}
NUMBER: Schema = {"type": "number"}
WHOLE: Schema = {"type": "integer"}
FLAG: Schema = {"type": "boolean"}
WHY = {  # status -> when
    400: "no text at all, or an empty one; of a chat, a request that cannot be met",
    401: "the token is missing or wrong",
    404: "this run does not answer that",
    408: "the body came too slowly",
    413: "the body is too large, it has too many texts, or one is too long and must not be cut",
    415: "the body is not application/json",
    421: "the request is for another host",
    422: "the body is no JSON, or not of this shape; or an item is no text (which one is said)",
    424: "the model failed",
    429: "too many texts are waiting; Retry-After says for how many seconds",
    500: "the model failed",
    503: "the server is shutting down",
    504: "no answer in time",
}


def fields(required: Mapping[str, Schema], optional: Mapping[str, Schema] | None = None) -> Schema:
    """An object with these fields and no others."""
    return {
        "type": "object",
        "properties": {**required, **(optional or {})},
        "required": list(required),
        "additionalProperties": False,
    }


def listed(item: Schema, least: int = 0, most: int | None = None) -> Schema:
    """A list of such items."""
    bounds = {} if most is None else {"maxItems": most}
    return {"type": "array", "items": item, "minItems": least, **bounds}


def or_null(schema: Schema) -> Schema:
    """The same, or null."""
    return {"anyOf": [schema, {"type": "null"}]}


def openapi(service: Service) -> dict[str, Any]:
    """The whole description."""
    info = service.info()
    chat, most = info["task"] == "chat", service.limits.texts
    paths = chat_paths(info) if chat else label_paths(info, most)
    paths |= {  # behind what a run is for
        "/health": {"get": get_route("Whether the server is well", state(), (421, 503))},
        "/ready": {"get": get_route("Whether it takes requests", state(), (421, 503))},
        "/info": {
            "get": get_route("The run, and what is taken at once", {"type": "object"}, GET_ERRORS)
        },
        "/metrics": {"get": get_route("Counters for Prometheus", STRING, GET_ERRORS, "text/plain")},
    }
    described: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": f"openloop: {info['model_id']}",
            "version": service.version,
            "description": "Errors have a sentence that says what to do.",
        },
        "paths": paths,
    }
    for methods in paths.values():
        for route in methods.values():
            if service.token is None:
                route["responses"].pop("401", None)
            if service.names is None:
                route["responses"].pop("421", None)
    if service.token is not None:
        for path in ("/health", "/ready"):
            paths[path]["get"]["security"] = []
        bearer = {"type": "http", "scheme": "bearer"}
        described["components"] = {"securitySchemes": {"token": bearer}}
        described["security"] = [{"token": []}]
    return described


def state() -> Schema:
    """{"status": "ok"}."""
    return fields({"status": STRING})


def get_route(
    what: str, schema: Schema, errors: tuple[int, ...], kind: str = "application/json",
    openai: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """A route with GET."""
    answer = {"description": what, "content": {kind: {"schema": schema}}}
    return {"summary": what, "responses": {"200": answer, **failures(errors, openai)}}


def post_route(
    what: str, body: Schema, answers: Mapping[str, Schema], errors: tuple[int, ...],
    example: Mapping[str, Any], openai: bool = False,
) -> Schema:  # fmt: skip
    """A route with POST; `answers`: media type -> schema."""
    content = {kind: {"schema": schema} for kind, schema in answers.items()}
    request = {"application/json": {"schema": body, "example": example}}
    return {
        "summary": what,
        "requestBody": {"required": True, "content": request},
        "responses": {
            "200": {"description": "the answer", "content": content},
            **failures(errors, openai),
        },
    }


def failures(statuses: tuple[int, ...], openai: bool) -> dict[str, Schema]:
    """What else may come, and when."""
    schema = fields({"error": STRING, "error_type": STRING})
    if openai:
        words = {"param": or_null(STRING), "code": or_null(STRING)}
        schema = fields({"error": fields({"message": STRING, "type": STRING, **words})})
    return {
        str(status): {
            "description": WHY[status],
            "content": {"application/json": {"schema": schema}},
        }
        for status in statuses
    }


GET_ERRORS = (401, 421)
POST_ERRORS = (400, 401, 408, 413, 415, 421, 422, 424, 429, 503, 504)


def label_paths(info: Mapping[str, Any], most: int) -> dict[str, Any]:
    """/predict and /explain."""
    pair = listed(STRING, 2, 2)
    single, item = (pair, pair) if info["pairs"] else (STRING, listed(STRING, 1, 1))
    example: Any = ["a first text", "and a second one"] if info["pairs"] else "It was good."
    body = fields(
        {"inputs": {"anyOf": [single, item, listed(item, 1, most)]}},
        {
            "raw_scores": {**FLAG, "default": False, "description": "logits, not probabilities"},
            "truncate": {
                **FLAG, "default": True,
                "description": "false: a text that is longer than is read is refused (413)",
            },
            "top_k": or_null({**WHOLE, "minimum": 1}),
            "partial": {
                **FLAG, "default": False,
                "description": "an item of a batch that is no text gets its error, the others "
                "their answers",
            },
        },
    )  # fmt: skip
    element = fields({
        "score": NUMBER, "label": STRING, "holds": FLAG, "truncated": FLAG, "unsure": or_null(FLAG),
    })  # fmt: skip
    cell = {"anyOf": [element, fields({"error": STRING, "error_type": STRING})]}
    answer = {"anyOf": [listed(cell), listed(listed(cell))]}
    piece = fields({
        "text": STRING, "start": WHOLE, "end": WHOLE, "weight": NUMBER,
        "unit": {"enum": ["word", "sentence"]}, "side": WHOLE,
    })  # fmt: skip
    label = {"enum": [*info["labels"], None]} if info["labels"] else {"type": "null"}
    explained = fields({"label": STRING, "truncated": FLAG, "pieces": listed(piece)})
    return {
        "/predict": {
            "post": post_route(
                "Labels and scores, the largest first", body, {"application/json": answer},
                POST_ERRORS, {"inputs": example},
            )
        },
        "/explain": {
            "post": post_route(
                "The words and sentences that an answer rests on",
                fields({"inputs": {"anyOf": [single, item]}}, {"label": label}),
                {"application/json": explained}, POST_ERRORS, {"inputs": example},
            )
        },
    }  # fmt: skip


def chat_paths(info: Mapping[str, Any]) -> dict[str, Any]:
    """/v1/models and /v1/chat/completions."""
    message = fields({
        "role": {"enum": ["system", "developer", "user", "assistant"]}, "content": STRING,
    })  # fmt: skip
    body = fields(
        {"model": {"const": info["model_id"]}, "messages": listed(message, 1)},
        {
            "temperature": or_null({**NUMBER, "minimum": 0, "maximum": 2}),
            "top_p": or_null({**NUMBER, "minimum": 0, "maximum": 1}),
            "max_tokens": or_null({**WHOLE, "minimum": 1}),
            "max_completion_tokens": or_null({**WHOLE, "minimum": 1}),
            "stop": or_null({"anyOf": [STRING, listed(STRING, 1, 4)]}),
            "seed": or_null(WHOLE),
            "stream": or_null(FLAG),
            "stream_options": or_null(fields({}, {"include_usage": FLAG})),
            "n": or_null({"const": 1}),
        },
    )
    answers = {"application/json": {"type": "object"}, "text/event-stream": STRING}
    errors = (400, 401, 404, 408, 413, 415, 421, 422, 429, 500, 503, 504)
    example = {
        "model": info["model_id"], "messages": [{"role": "user", "content": "Hello!"}],
    }  # fmt: skip
    model = fields({
        "id": {"const": info["model_id"]}, "object": {"const": "model"}, "created": WHOLE,
        "owned_by": STRING,
    })  # fmt: skip
    models = fields({"object": {"const": "list"}, "data": listed(model, 1, 1)})
    named = get_route("The one model, by its name", model, (*GET_ERRORS, 404), openai=True)
    named["parameters"] = [{
        "name": "model", "in": "path", "required": True, "schema": STRING,
        "example": info["model_id"],
    }]  # fmt: skip
    return {
        "/v1/chat/completions": {
            "post": post_route("A reply", body, answers, errors, example, openai=True)
        },
        "/v1/models": {"get": get_route("The one model", models, GET_ERRORS, openai=True)},
        "/v1/models/{model}": {"get": named},
    }
