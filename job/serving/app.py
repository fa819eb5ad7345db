"""The routes, and the gate before them: the token, the count, and one form for every error."""

import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping
from contextlib import AsyncExitStack
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException

from job.serving.answers import Answer
from job.serving.describe import openapi
from job.serving.docs import STYLE, address_of, docs_page
from job.serving.errors import Refused
from job.serving.front import front_page, read_page
from job.serving.replies import pieces, whole_reply
from job.serving.service import Service, closing

OPEN = (
    "/",
    "/health",
    "/ready",
    "/docs",
    "/docs.css",
    "/openapi.json",
)  # without a token, with GET
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
SAFE = {
    "Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer", "Cache-Control": "no-cache",
}  # fmt: skip
Scope = MutableMapping[str, Any]
Call = Callable[..., Awaitable[Any]]


def make_app(service: Service, say: Callable[[str], None], verbose: bool = False) -> Call:
    """The ASGI application of a service. `say` gets a line where something of ours went wrong, with
    `verbose` one for each request."""
    app = FastAPI(title="openloop", docs_url=None, redoc_url=None, openapi_url=None)
    add_pages(app, service)
    add_labels(app, service)
    add_talks(app, service)
    app.add_exception_handler(Refused, refused)
    app.add_exception_handler(HTTPException, unknown)
    app.add_exception_handler(Exception, broken)
    return Gate(app, service, say, verbose)


def add_pages(app: FastAPI, service: Service) -> None:
    """What is looked at: the page, the state, the numbers, the description."""
    files = read_page()
    html = files.pop("index.html")[0].decode()

    @app.api_route("/", methods=["GET", "HEAD"])
    async def front() -> Response:
        page = front_page(html, service.run.name, service.token is not None)
        return HTMLResponse(page, headers=SAFE)

    for name, (content, kind) in files.items():

        def show(content: bytes = content, kind: str = kind) -> Response:
            return Response(content, media_type=kind, headers=SAFE)

        app.add_api_route(f"/page/{name}", show, methods=["GET", "HEAD"])

    @app.get("/health")
    async def health() -> Response:
        if not service.healthy():
            raise Refused(503, "unhealthy", "the thread of the model has ended; start it again")
        return JSONResponse({"status": "ok"})

    @app.get("/ready")
    async def ready() -> Response:
        if service.draining:
            raise closing()
        return await health()

    @app.get("/info")
    async def info() -> Response:
        return JSONResponse(service.info())

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(service.text_of_metrics(), media_type="text/plain; version=0.0.4")

    @app.get("/openapi.json")
    async def description() -> Response:
        return JSONResponse(openapi(service))

    @app.get("/docs")
    async def docs(request: Request) -> Response:
        address = address_of(request["scheme"], request.headers.get("host"), request["server"])
        return HTMLResponse(docs_page(openapi(service), address), headers=SAFE)

    @app.get("/docs.css")
    async def style() -> Response:
        return Response(STYLE, media_type="text/css", headers=SAFE)


def add_labels(app: FastAPI, service: Service) -> None:
    """What a run on labels answers."""

    @app.post("/")
    @app.post("/predict")
    async def predict(request: Request) -> Response:
        return await answer(service, request, "predict")

    @app.post("/explain")
    async def explain(request: Request) -> Response:
        return await answer(service, request, "explain")


def add_talks(app: FastAPI, service: Service) -> None:
    """What a chat run answers, as OpenAI's clients ask it."""

    def check() -> None:
        if (why := service.run.desk.answers("chat")) is not None:
            raise Refused(404, "validation", why)

    @app.get("/v1/models")
    async def models() -> Response:
        check()
        return JSONResponse({"object": "list", "data": [service.model()]})

    @app.get("/v1/models/{name}")
    async def model(name: str) -> Response:
        check()
        if name != service.run.name:
            message = f"there is no model {name!r:.60}; here is {service.run.name!r}"
            raise Refused(404, "validation", message, param="model", code="model_not_found")
        return JSONResponse(service.model())

    @app.post("/v1/chat/completions")
    async def complete(request: Request) -> Response:
        check()
        body = await service.read_body(request.headers, request.receive)
        talk, size = service.run.desk.read("chat", body, 1)
        async with AsyncExitStack() as stack:
            taken = service.accepted(talk, size, request.receive)
            ticket = await stack.enter_async_context(taken)
            begun = await service.next_event(ticket)
            if not talk.stream:
                return JSONResponse(await whole_reply(service, ticket, begun))
            return Events(pieces(service, ticket, begun), stack.pop_all())


class Events(StreamingResponse):
    """Server-sent events that give up their ticket at the end, whatever that is: a generator that
    nobody began to read would keep it."""

    def __init__(self, events: AsyncIterator[str], stack: AsyncExitStack) -> None:
        super().__init__(events, media_type="text/event-stream")
        self.headers["Cache-Control"] = "no-store"
        self.headers["X-Accel-Buffering"] = "no"  # nginx would wait for more
        self.stack = stack

    async def __call__(self, scope: Scope, receive: Call, send: Call) -> None:
        """Send them."""
        async with self.stack:
            await super().__call__(scope, receive, send)


async def answer(service: Service, request: Request, route: str) -> Response:
    """Read a body, put it in line, and send what comes of it."""
    desk = service.run.desk
    if (why := desk.answers(route)) is not None:
        raise Refused(404, "validation", why)
    begun = time.perf_counter()
    body = await service.read_body(request.headers, request.receive)
    ask, size = desk.read(route, body, service.limits.texts)
    async with service.accepted(ask, size, request.receive) as ticket:
        done: Answer = await service.next_event(ticket)
    note_answer(service, done, len(ask.texts))
    milliseconds = {
        "x-total-time": time.perf_counter() - begun,
        "x-queue-time": done.waited,
        "x-inference-time": done.worked,
    }
    headers = {name: str(round(1000 * seconds)) for name, seconds in milliseconds.items()}
    return Response(json.dumps(done.body), media_type="application/json", headers=headers)


def note_answer(service: Service, done: Answer, size: int) -> None:
    """Count an answer."""
    metrics = service.metrics
    metrics.labels.update(done.labels)
    metrics.totals.update(
        texts_total=size, tokens_total=done.tokens, truncated_total=done.truncated,
        unsure_total=done.unsure,
    )  # fmt: skip
    metrics.queue.note(done.waited)
    metrics.work.note(done.worked)
    service.note_done(size)


# ---- the gate --------------------------------------------------------------------------------


async def refused(request: Request, error: Exception) -> Response:
    """An error as its client reads it."""
    assert isinstance(error, Refused)
    body = error.body(openai=request.url.path.startswith("/v1/"))
    return JSONResponse(body, error.status, headers=dict(error.headers))


async def unknown(request: Request, error: Exception) -> Response:
    """No such route, or not by this method."""
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    reason = f"{error.detail}; GET /docs lists all routes"
    if error.status_code == 404:
        reason = "there is no such route; GET /docs lists all"
    elif "Allow" in headers:
        reason = f"it is asked by {headers['Allow']}; GET /docs says how"
    message = f"{request.method} {request.url.path[:100]}: {reason}"
    refusal = Refused(error.status_code, "validation", message, headers)
    return await refused(request, refusal)


async def broken(request: Request, error: Exception) -> Response:
    """A fault of ours. The gate says which; the client is not told what stands in it."""
    message = "something went wrong in the server; what it was stands on its standard error"
    return await refused(request, Refused(500, "backend", message))


class Gate:
    """Before every route: whether the token is there; behind it: what became of the request."""

    def __init__(
        self, app: FastAPI, service: Service, say: Callable[[str], None], verbose: bool
    ) -> None:
        self.app, self.service, self.say, self.verbose = app, service, say, verbose
        self.routes = {route.path for route in app.routes if hasattr(route, "path")}

    async def __call__(self, scope: Scope, receive: Call, send: Call) -> None:
        """One request."""
        if scope["type"] != "http":
            return
        service, begun, status = self.service, time.perf_counter(), 500

        async def note(message: Mapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = message.get("headers", ())
                if service.draining and b"connection" not in dict(headers):
                    message = {**message, "headers": [*headers, (b"connection", b"close")]}
            await send(message)

        service.in_flight += 1
        try:
            await self.answer(scope, receive, note)
        except Exception as error:  # broken() has answered it by now
            self.say(f"{scope['method']} {scope['path']!r:.100}: {type(error).__name__}: {error}")
        finally:
            service.in_flight -= 1
            seconds = time.perf_counter() - begun
            route = scope["path"] if scope["path"] in self.routes else "other"
            service.metrics.requests[route, status] += 1
            service.metrics.request.note(seconds)
            if self.verbose:
                client = (scope.get("client") or ("-",))[0]
                self.say(f"{client} {scope['method']} {route} {status} {1000 * seconds:.1f} ms")

    async def answer(self, scope: Scope, receive: Call, send: Call) -> None:
        """The route's own answer, or why there is none."""
        request = Request(scope, receive)
        path, looks = scope["path"], scope["method"] in ("GET", "HEAD")
        try:
            self.service.check_host(request.headers.get("host"))
            if not (looks and (path in OPEN or path.startswith("/page/"))):
                self.service.check_token(request.headers.get("authorization"))
            if self.service.draining and not looks:
                raise closing()
            if not looks and self.service.in_flight > self.service.limits.waiting:
                raise self.service.full()  # before its body is read, which takes memory too
        except Refused as error:
            await (await refused(request, error))(scope, receive, send)
            return
        await self.app(scope, receive, send)
