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
from job.serving.queue import Desk, Opened, Worker
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


def open_run(folder: Folder, open_desk: Open) -> Opened:
    """The run that is in the folder now, warm."""
    desk = open_desk()
    desk.warm()
    digest = folder.read_json("result.json").get("sha256")
    return Opened(
        desk, folder.path.resolve().name, digest if isinstance(digest, str) else None,
        int(folder.result.stat().st_mtime),
    )  # fmt: skip


def serve(options: Namespace, open_desk: Open) -> int:
    """Answer until somebody says to end; the exit status. `open_desk` opens the run, now and when
    there is a newer one. Raises ValueError where it cannot be opened, or nobody can listen."""
    need_extra("serve", "serve.py")
    from job.serving.app import make_app
    from job.serving.listen import Listener, bind

    signals: SimpleQueue[int] = SimpleQueue()
    folder = Folder(Path(options.run))
    token, limits = read_token(options.token_env), Limits(options.timeout, options.queue)
    held = bind(options.host, options.port)
    worker = Worker(open_run(folder, open_desk))
    service = Service(worker, limits, read_project()["version"], token)
    listener = Listener(make_app(service, say, options.verbose), held)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup sets it
            signal.signal(number, lambda number, frame: signals.put(number))
    worker.start()
    listener.start()
    host, port = held.getsockname()[:2]
    announce(service, host, port)
    while signals.get() == signal.SIGHUP:
        reload(service, folder, open_desk)
    return drain(service, listener, options.grace, signals)


def announce(service: Service, host: str, port: int) -> None:
    """One line: where, what, and what it answers; a warning where others can ask it too."""
    shown = f"[{host}]" if ":" in host else host
    routes = ", ".join(service.run.desk.info()["routes"])
    say(
        f"http://{shown}:{port} answers for {service.run.name}: {routes}; /docs says how, "
        "Ctrl-C ends"
    )
    if not host.startswith(LOOPBACK) and service.token is None:
        say(
            "WARNING: whoever reaches this machine can ask the model; --token-env NAME wants a "
            "token of them"
        )


def reload(service: Service, folder: Folder, open_desk: Open) -> None:
    """Let a newer run take over; where it cannot be opened the old one goes on, and why is said."""
    begun, before = time.perf_counter(), service.run
    try:
        run = open_run(folder, open_desk)
        if run.desk.info()["task"] != before.desk.info()["task"]:
            raise ValueError("it is a run of another task; start a server of its own for it")
    except Exception as error:  # whatever it is: the old one still answers
        service.metrics.totals["reload_failures_total"] += 1
        say(f"SIGHUP: {folder.path} cannot be opened, the run of before goes on: {error}")
        return
    same = " (the same as before)" if run.digest and run.digest == before.digest else ""
    service.metrics.totals["reloads_total"] += 1
    service.worker.exchange(run)
    say(f"SIGHUP: {run.name} answers now{same}, after {time.perf_counter() - begun:.1f} s")


def drain(service: Service, listener: "Listener", grace: float, signals: SimpleQueue[int]) -> int:
    """Answer what was accepted, refuse what is new, and end within so many seconds; a second
    signal ends at once."""
    begun = time.perf_counter()
    service.draining = True
    say(f"ending: {len(service.tickets)} requests are being answered, new ones get 503")
    linger, end = begun + min(LINGER, grace / 2), begun + max(grace - LINGER, grace / 2)
    while time.perf_counter() < end and signals.empty():
        if not service.tickets and time.perf_counter() > linger:
            break
        time.sleep(0.01)
    left = len(service.tickets)
    service.give_up()
    while service.tickets and time.perf_counter() < begun + grace:
        time.sleep(0.01)
    service.worker.line.close()
    clean = listener.stop(max(0.2, min(2.0, begun + grace - time.perf_counter())))
    service.worker.join(0.2)
    if left:
        say(
            f"ended after {time.perf_counter() - begun:.1f} s; {left} requests got 503, not answers"
        )
    if not clean or service.worker.is_alive():
        sys.stderr.flush()
        os._exit(0)  # a thread inside of torch would end the interpreter's end in a crash
    return 0
