"""serve.py at work: open the run, listen, take a newer run on SIGHUP, and end in good order."""

import os
import signal
import sys
import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING

from job.extras import need_extra, read_project
from job.folder import Folder
from job.serving.queue import Desk, Worker
from job.serving.service import Limits, Service
from report.format import clean_line

if TYPE_CHECKING:
    from job.serving.listen import Listener

LOOPBACK = ("127.", "localhost", "::1")
LINGER = 0.5  # seconds after a signal in which a new request is told 503 and not cut off
Open = Callable[[], Desk]


def say(line: str) -> None:
    """A line on standard error."""
    print(f"serve.py: {clean_line(line)}", file=sys.stderr, flush=True)


def read_token(name: str | None) -> bytes | None:
    """The token that requests have to bring, from an environment variable. Raises ValueError where
    there is none in it."""
    if name is None:
        return None
    token = os.environ.get(name, "").strip()
    if not token:
        raise ValueError(
            f"--token-env {name}: there is no environment variable {name}, or nothing in it"
        )
    return token.encode("utf-8", "surrogateescape")


def digest_of(folder: Folder) -> str | None:
    """The sha256 that a finished run is sealed with; None of an older one."""
    sealed = folder.read_json("result.json").get("sha256")
    return sealed if isinstance(sealed, str) else None


def serve(options: Namespace, open_desk: Callable[[int], Desk]) -> int:
    """Answer until somebody says to end; the exit status. `open_desk` opens the run, for so many
    tokens in one batch. Raises ValueError where it cannot be opened, or nobody can listen."""
    need_extra("serve", "serve.py")
    from job.serving.app import make_app
    from job.serving.listen import Listener, bind

    signals: SimpleQueue[int] = SimpleQueue()
    folder = Folder(Path(options.run))
    token, limits = read_token(options.token_env), Limits(options.timeout, options.queue)
    held = bind(options.host, options.port)
    desk = open_desk(limits.tokens)
    desk.warm()
    worker = Worker(desk)
    service = Service(
        worker, limits, folder.path.resolve().name, read_project()["version"], token,
        digest_of(folder),
    )  # fmt: skip
    listener = Listener(make_app(service, say, options.verbose), held)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup sets it
            signal.signal(number, lambda number, frame: signals.put(number))
    worker.start()
    listener.start()
    host, port = held.getsockname()[:2]
    announce(service, host, port)
    while (number := signals.get()) == signal.SIGHUP:
        reload(service, folder, lambda: open_desk(limits.tokens))
    return drain(service, listener, options.grace, signals)


def announce(service: Service, host: str, port: int) -> None:
    """One line: where, what, and what it answers; a warning where others can ask it too."""
    shown = f"[{host}]" if ":" in host else host
    routes = ", ".join(service.worker.desk.info()["routes"])
    say(f"http://{shown}:{port} answers for {service.run}: {routes}; /docs says how, Ctrl-C ends")
    if not host.startswith(LOOPBACK) and service.token is None:
        say(
            "WARNING: whoever reaches this machine can ask the model; --token-env NAME wants a "
            "token of them"
        )


def reload(service: Service, folder: Folder, open_desk: Open) -> None:
    """Let a newer run take over; where it cannot be opened the old one goes on, and why is said."""
    begun = time.perf_counter()
    try:
        desk = open_desk()
        desk.warm()
        digest = digest_of(folder)
    except Exception as error:  # whatever it is: the old one still answers
        service.metrics.totals["reload_failures_total"] += 1
        say(f"SIGHUP: {folder.path} cannot be opened, the run of before goes on: {error}")
        return
    same = " (the same as before)" if digest is not None and digest == service.digest else ""
    service.take_over(desk, folder.path.resolve().name, digest)
    say(f"SIGHUP: {service.run} answers now{same}, after {time.perf_counter() - begun:.1f} s")


def drain(service: Service, listener: "Listener", grace: float, signals: SimpleQueue[int]) -> int:
    """Answer what was accepted, refuse what is new, and end within so many seconds; a second
    signal ends at once."""
    begun = time.perf_counter()
    service.draining = True
    say(f"ending: {service.in_flight} requests are being answered, new ones get 503")
    linger, end = begun + min(LINGER, grace / 2), begun + grace
    while time.perf_counter() < end and signals.empty():
        if not service.in_flight and time.perf_counter() > linger:
            break
        time.sleep(0.01)
    left = service.in_flight
    service.worker.line.close()
    clean = listener.stop(max(0.2, min(2.0, end - time.perf_counter())))
    service.worker.join(0.2)
    if left:
        say(f"ended with {left} requests unanswered after {time.perf_counter() - begun:.1f} s")
    if not clean or service.worker.is_alive():
        sys.stderr.flush()
        os._exit(0)  # a thread inside of torch would end the interpreter's end in a crash
    return 0
