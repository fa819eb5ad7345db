"""serve.py at work: open the run, listen, take a newer run on SIGHUP, and end in good order."""

import os
import signal
import sys
import threading
import time
from argparse import Namespace
from collections.abc import Callable, Mapping
from ipaddress import ip_address
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from job.ending import stop
from job.extras import need_extra, read_project
from job.folder import Folder
from job.serving.queue import Desk, Opened, Worker
from job.serving.service import Limits, Service
from report.format import clean_line

if TYPE_CHECKING:
    from job.serving.listen import Listener

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
    if not (token.isascii() and token.isprintable()):
        raise ValueError(
            f"--token-env {name}: the token holds something else than ASCII letters, digits and "
            "signs, which clients send in different ways; choose another one"
        )
    return token.encode()


def own_names(host: str, address: str, token: bytes | None) -> frozenset[str] | None:
    """The names under which this machine alone asks: those of a server on a loopback address that
    wants no token. None of another server, which does not know how it is reached."""
    if token is not None or not is_loopback(address):
        return None
    return frozenset({"localhost", host.lower()})


def is_loopback(address: str) -> bool:
    """Whether an address is one that other machines do not reach."""
    return ip_address(address.partition("%")[0]).is_loopback


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
    from job.serving.listen import Listener, bind

    signals: SimpleQueue[int] = SimpleQueue()
    put_signals(signals, signal.SIGHUP)  # one that comes while the run is opened waits
    if signal.getsignal(signal.SIGTERM) is not signal.SIG_IGN:
        signal.signal(signal.SIGTERM, stop)  # the first program of a container ends by no other way
    folder = Folder(Path(options.run))
    token, limits = read_token(options.token_env), Limits(options.timeout, options.queue)
    held = bind(options.host, options.port)  # whoever holds it is named before torch is loaded
    say(f"opening {options.run} …")
    worker = Worker(open_run(folder, open_desk))
    from job.serving.app import make_app

    address, port = held.getsockname()[:2]
    names = own_names(options.host, address, token)
    service = Service(worker, limits, read_project()["version"], token, names)
    listener = Listener(make_app(service, say, options.verbose), held)
    reloader = Reloader(service, folder, open_desk)
    put_signals(signals, signal.SIGTERM, signal.SIGINT)
    worker.start()
    listener.start()
    reloader.start()
    announce(service, address, port)
    while signals.get() == signal.SIGHUP:
        reloader.requests.put(None)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # it is no second signal to end
    clean = drain(service, listener, options.grace, signals)
    if not clean or reloader.busy():
        sys.stderr.flush()
        os._exit(0)  # a thread inside of torch would end the interpreter's end in a crash
    return 0


def put_signals(signals: SimpleQueue[int], *numbers: int) -> None:
    """From now on these signals are put into a queue, but those that are ignored, as by nohup."""
    for number in numbers:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda number, frame: signals.put(number))


def announce(service: Service, host: str, port: int) -> None:
    """One line: where, what, and what it answers; a warning where others can ask it too. `host` is
    an address."""
    shown = f"[{host}]" if ":" in host else host
    routes = ", ".join(service.run.desk.info()["routes"])
    say(
        f"http://{shown}:{port} answers for {service.run.name}: {routes}; / is a "
        "page to try it, /docs says how to ask, Ctrl-C ends"
    )
    if not is_loopback(host) and service.token is None:
        say(
            "WARNING: whoever reaches this machine can ask the model; --token-env NAME wants a "
            "token of them"
        )


class Reloader(threading.Thread):
    """Opens the run anew each time it is asked to, beside the one that answers, and beside whoever
    waits for the signal to end."""

    def __init__(self, service: Service, folder: Folder, open_desk: Open) -> None:
        super().__init__(name="reload", daemon=True)
        self.service, self.folder, self.open_desk = service, folder, open_desk
        self.requests: SimpleQueue[None] = SimpleQueue()
        self.opening = False

    def run(self) -> None:
        """Until the program ends."""
        while True:
            self.requests.get()
            self.opening = True
            if not self.service.draining:
                reload(self.service, self.folder, self.open_desk)
            self.opening = False

    def busy(self) -> bool:
        """Whether a run is being opened."""
        return self.opening or not self.requests.empty()


def reload(service: Service, folder: Folder, open_desk: Open) -> None:
    """Let a newer run take over; where it cannot be opened the old one goes on, and why is said."""
    begun, before = time.perf_counter(), service.run
    try:
        run = open_run(folder, open_desk)
        old, new = before.desk.info(), run.desk.info()
        if old["task"] != new["task"] or old.get("pairs") != new.get("pairs"):
            raise ValueError(
                f"it reads {reads(new)}, and the run of before {reads(old)}; start a server of its "
                "own for it"
            )
    except Exception as error:  # whatever it is: the old one still answers
        service.metrics.totals["reload_failures_total"] += 1
        say(f"SIGHUP: {folder.path} cannot be opened, the run of before goes on: {error}")
        return
    same = " (the same as before)" if run.digest and run.digest == before.digest else ""
    service.metrics.totals["reloads_total"] += 1
    service.worker.exchange(run)
    say(f"SIGHUP: {run.name} answers now{same}, after {time.perf_counter() - begun:.1f} s")


def reads(info: Mapping[str, Any]) -> str:
    """What a run is asked, by its /info."""
    if info["task"] == "chat":
        return "conversations"
    return "pairs of texts" if info["pairs"] else "single texts"


def drain(service: Service, listener: "Listener", grace: float, signals: SimpleQueue[int]) -> bool:
    """Answer what was accepted, refuse what is new, and end within so many seconds; a second
    signal ends at once. Whether all threads have ended."""
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
    clean = listener.stop(max(0.2, begun + grace - time.perf_counter()))
    service.worker.join(0.2)
    if left:
        say(
            f"ended after {time.perf_counter() - begun:.1f} s; {left} requests got 503, not answers"
        )
    return clean and not service.worker.is_alive()
