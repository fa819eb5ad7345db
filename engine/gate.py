"""One error ends a run on all its processes, with one message, in seconds.

    the first that fails   claims the end, says what is wrong, leaves
    all others             see the claim, say nothing, leave with the same status

The claim stands in the store at which torchrun's processes meet. A thread of each looks at it, so
that a process leaves too that waits for one that has gone.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import Any

from engine.world import World, started

EVERY, GRACE = 0.2, 2.0  # seconds between two looks; until a process leaves that does not by itself


class Gate:
    """Who ends the run."""

    def __init__(self, here: World) -> None:
        from torch.distributed import PrefixStore, TCPStore

        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")  # of torchrun --max-restarts
        host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        # without torchrun, whose agent has one, rank 0 opens the store that all meet at
        opens = here.rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
        store = TCPStore(host, port, is_master=opens, wait_for_workers=False, multi_tenant=True)
        self.store: Any = PrefixStore(f"openloop/{attempt}", store)
        self.here, self.lock, self.open = here, threading.Lock(), True
        threading.Thread(target=self.watch, name="gate", daemon=True).start()

    def claim(self, status: int) -> bool:
        """Whether this process is the first to end the run, with this exit status."""
        mine = f"{self.here.rank} {status}"
        with self.lock:
            self.open = False  # it leaves by itself
            try:
                return self.store.compare_set("claim", "", mine).decode() == mine
            except RuntimeError:  # the store has gone with the process that held it
                return True

    def watch(self) -> None:
        """Leave once another process has claimed the end."""
        while True:
            time.sleep(EVERY)
            with self.lock:
                if not self.open:
                    return
                try:
                    if not self.store.check(["claim"]):
                        continue
                    status = int(self.store.get("claim").decode().split()[1])
                except RuntimeError:  # torchrun has gone: nobody would end a process that hangs
                    os.kill(os.getpid(), signal.SIGTERM)
                    return
            time.sleep(GRACE)
            os._exit(status)

    def close(self) -> None:
        """The run has ended: nothing is watched any more."""
        with self.lock:
            self.open = False


_gate: Gate | None = None


def open_gate() -> None:
    """Where several processes make the run: let the first error end all of them."""
    global _gate
    if _gate is None and not started().alone:
        _gate = Gate(started())


def close_gate() -> None:
    """The run has ended well, or was stopped."""
    if _gate is not None:
        _gate.close()


def claim_end(status: int) -> bool:
    """Whether it is for this process to say why the run ends."""
    return _gate is None or _gate.claim(status)


def sign(message: str) -> str:
    """The message, with the rank it comes from where there are several."""
    here = started()
    return message if here.alone else f"rank {here.rank} of {here.size}: {message}"
