"""A port of this machine, and uvicorn on it, in a thread of its own."""

import errno
import math
import socket
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import uvicorn

HELD = 256  # connections that wait to be taken


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens there. Raises ValueError where that cannot be."""
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise ValueError(f"--host {host}: no address of this machine ({error.strerror})") from None
    held = socket.socket(family, kind, proto)
    try:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(address)
        held.listen(HELD)
    except OSError as error:
        held.close()
        if error.errno == errno.EADDRINUSE:
            raise ValueError(
                f"port {port} of {host} is in use; choose another one (--port 0 takes any that is "
                "free)"
            ) from None
        raise ValueError(f"cannot listen on {host}, port {port}: {error.strerror}") from None
    return held


class Listener:
    """uvicorn with an application on a socket. It handles no signal: whoever started it does."""

    def __init__(self, app: Callable[..., Awaitable[Any]], held: socket.socket) -> None:
        config = uvicorn.Config(
            app, lifespan="off", ws="none", access_log=False, log_config=None, log_level="critical",
            server_header=False, backlog=HELD,
        )  # fmt: skip
        self.server = uvicorn.Server(config)
        self.held = held
        self.thread = threading.Thread(target=self.run, name="http", daemon=True)

    def run(self) -> None:
        """Answer until stop()."""
        self.server.run(sockets=[self.held])

    def start(self) -> None:
        """Answer from now on."""
        self.thread.start()
        while not self.server.started and self.thread.is_alive():
            time.sleep(0.005)

    def stop(self, seconds: float) -> bool:
        """Take no more connections, and send to its end what is on its way; whether it ended within
        so many seconds."""
        self.server.config.timeout_graceful_shutdown = math.ceil(seconds)
        self.server.should_exit = True
        self.thread.join(seconds)
        return not self.thread.is_alive()
