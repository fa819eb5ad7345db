"""Signs of life: what each process of a run does, for the one that says which did not come.

    each process       twice a second, by a thread:  "step 12, at data/loaders.py:80"  ──> store
    the one that ends the run where a meeting failed:  reads all, watches, names      <── store

Nothing of it costs a step anything: what the process does is noted here, and looked at by the
thread (gate.py).
"""

from __future__ import annotations

import json
import os
import socket
import sys
import sysconfig
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

WATCH = 3.0  # seconds until a process that gives no sign is taken for silent
SILENT = "gives no sign of life: it was killed or stopped, or the link to its machine is cut"
MOST = 3  # processes that one message names
HERE = Path(__file__).parent.parent
LIBRARIES = tuple(sysconfig.get_path(name) for name in ("purelib", "platlib", "stdlib"))
MEETINGS = "torch/distributed/"  # whoever is in there waits for the others


@dataclass(frozen=True)
class Sign:
    """What a process does, as it says itself."""

    beat: int  # one more with each sign
    host: str
    machine: str  # whose processes this one sees by their numbers
    pid: int
    doing: str  # as note() was told
    seconds: float  # since then
    place: str  # file and line of its code
    waits: bool  # in a meeting, for the others


_doing, _since, _lost = "its start", time.monotonic(), False


def note(doing: str) -> None:
    """What this process does from now on, as in "it was last in step 12"."""
    global _doing, _since
    _doing, _since = doing, time.monotonic()


def note_lost() -> None:
    """A meeting of this process has failed: it is none that the others wait for."""
    global _lost
    _lost = True


def own_sign(beat: int) -> Sign:
    """What the main thread does now; while it waits for a batch, the thread that makes it."""
    frames = sys._current_frames()
    frame = frames.get(threading.main_thread().ident or 0)
    waits = _lost or in_meeting(frame)
    if frame is not None and not waits:
        makes = [t.ident for t in threading.enumerate() if t.name == "feed"]
        if makes and any(one.f_code.co_name == "ahead" for one in inner(frame, 4)):
            frame = frames.get(makes[0] or 0, frame)
    seconds = round(time.monotonic() - _since, 1)
    host, here = socket.gethostname(), machine()
    return Sign(beat, host, here, os.getpid(), _doing, seconds, place_of(frame), waits)


@cache
def machine() -> str:
    """What tells this machine from others, which may have its name; containers are machines too.
    Empty where the system does not say."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return " ".join([boot, *(os.readlink(f"/proc/self/ns/{kind}") for kind in ("pid", "net"))])
    except OSError:
        return ""


def inner(frame: FrameType | None, most: int) -> list[FrameType]:
    """The frame and those that called it, at most so many."""
    frames: list[FrameType] = []
    while frame is not None and len(frames) < most:
        frames.append(frame)
        frame = frame.f_back
    return frames


def in_meeting(frame: FrameType | None) -> bool:
    """Whether it is in a collective of torch's, ours or one that torch itself calls."""
    files = [one.f_code.co_filename for one in inner(frame, 10)]
    if files and files[0].endswith("torch/_ops.py"):  # any operator, a collective among them
        return any(MEETINGS in file for file in files)
    return bool(files) and MEETINGS in files[0]


def place_of(frame: FrameType | None) -> str:
    """Where it is: the innermost line that is neither a library's nor Python's own."""
    for one in inner(frame, 1000):
        path = one.f_code.co_filename
        if not path.startswith((*LIBRARIES, "<")):
            name = Path(path)
            shown = name.relative_to(HERE) if name.is_relative_to(HERE) else name
            return f"{shown}:{one.f_lineno} ({one.f_code.co_name})"
    return "no line of Python"


def show(sign: Sign) -> str:
    """As it lies in the store."""
    return json.dumps(asdict(sign))


def read_signs(store: Any, size: int) -> dict[int, Sign]:
    """The newest sign of each rank that has given one."""
    keys = {rank: f"sign/{rank}" for rank in range(size)}
    if not store.check(list(keys.values())):
        keys = {rank: key for rank, key in keys.items() if store.check([key])}
    texts = store.multi_get(list(keys.values()))
    return {rank: Sign(**json.loads(text)) for rank, text in zip(keys, texts, strict=True)}


def fate(sign: Sign) -> str | None:
    """What has become of a process of this machine: "" where it is alive; None of any other."""
    if not sign.machine or sign.machine != machine():
        return None
    try:
        stat = Path(f"/proc/{sign.pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        stat = ") X"
    state = stat.rpartition(")")[2].split()[0]
    if state in "ZX":
        return "has gone: it crashed, or was killed by hand or for want of memory"
    return "is stopped, by SIGSTOP or a debugger" if state in "Tt" else ""


def watch(read: Callable[[], dict[int, Sign] | None], own: int) -> dict[int, tuple[Sign, str]]:
    """Of each rank that has given a sign, but our `own`, the last one and its fate, "" where it is
    alive. As soon as every fate is known, after WATCH seconds at the latest."""
    first = read() or {}
    deadline = time.monotonic() + WATCH
    while True:
        last = {rank: sign for rank, sign in (read() or first).items() if rank != own}
        fates = {rank: fate(sign) for rank, sign in last.items()}
        for rank, sign in last.items():
            if fates[rank] is None and sign.beat > first.get(rank, sign).beat:
                fates[rank] = ""
        if None not in fates.values() or time.monotonic() > deadline:
            return {rank: (sign, SILENT if (told := fates[rank]) is None else told)
                    for rank, sign in last.items()}  # fmt: skip
        time.sleep(0.2)


def absent(signs: dict[int, tuple[Sign, str]], own: int, size: int, limit: str) -> str:
    """Who did not come to a meeting, in words. `limit`: how long the others waited at most, empty
    where they did not wait so long. Those that have gone come first; of others only those that
    were not waiting themselves."""
    lines = [
        f"rank {rank} never came: its process did not start, or ended before the first meeting"
        for rank in range(size)
        if rank not in signs and rank != own
    ]
    lines += [
        f"rank {rank} (host {sign.host}, process {sign.pid}) {told}; it was last in {sign.doing}"
        for rank, (sign, told) in signs.items()
        if told
    ]
    if not lines:
        lines = [
            f"rank {rank} (host {sign.host}, process {sign.pid}) did not come: it is at "
            f"{sign.place}, for {sign.seconds:.0f} s in {sign.doing}"
            for rank, (sign, _) in signs.items()
            if not sign.waits
        ]
        if lines and limit:
            limit += "; where that takes its time, raise it"
    if not lines:
        lines = ["all processes are there, but a link between two of them is cut or too slow"]
    more = [f"and {len(lines) - MOST} more"] if len(lines) > MOST else []
    waited = f". The others waited {limit}" if limit else ""
    return "; ".join(lines[:MOST] + more) + waited
