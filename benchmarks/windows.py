"""The parent's side: children that work in turns, and a store that survives an interruption."""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from child import ROOT  # makes the project importable

from files.write import save_text

HERE = Path(__file__).resolve().parent
WARM_UP = 5.0  # seconds of work that a child does before its first window that counts
Measurement = dict[str, Any]


class Store:
    """Measurements by key in one JSON file, written as each of them is made."""

    def __init__(self, path: Path, fingerprint: dict[str, Any], fresh: bool = False) -> None:
        self.path, self.note = path, ""
        self.content: dict[str, Any] = {"fingerprint": fingerprint, "measurements": {}}
        if fresh or not path.exists():
            return
        stored = json.loads(path.read_text(encoding="utf-8"))
        then = stored.get("fingerprint", {}) if isinstance(stored, dict) else {}
        if then == fingerprint:
            self.content = stored
            self.note = f"{path} holds {len(stored['measurements'])} measurements: doing the rest"
        elif not then:
            self.note = f"{path} is of another form: starting over"
        else:
            parts = [name for name in fingerprint if then.get(name) != fingerprint[name]]
            self.note = f"{path} was measured with another {', '.join(parts)}: starting over"

    def get(self, key: str) -> Measurement | None:
        """A finished measurement, or None."""
        return self.content["measurements"].get(key)

    def put(self, key: str, value: Measurement) -> None:
        """Keep a measurement."""
        self.content["measurements"][key] = value
        self.write()

    def write(self) -> None:
        """Replace the file in one step: an interruption leaves the old one or the new one."""
        save_text(self.path, json.dumps(self.content, indent=1) + "\n")


class Works(Protocol):
    """What `alternate` asks of a Child."""

    def wait_ready(self) -> Measurement: ...

    def ask(self, seconds: float) -> Measurement: ...

    def close(self) -> None: ...


class Child:
    """A process that works when asked. `folder` lives as long as it does; `environment` is added
    to this process's own."""

    def __init__(
        self,
        command: Sequence[str],
        folder: tempfile.TemporaryDirectory | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self.noise = tempfile.TemporaryFile()  # noqa: SIM115  as long as the process
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.noise,
            encoding="utf-8", cwd=ROOT, env={**os.environ, **(environment or {})},
        )  # fmt: skip
        self.ready: Measurement | None = None

    def read(self) -> Measurement:
        """The child's next answer. Raises RuntimeError with its last words where it has ended."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.noise.seek(0)
            words = self.noise.read().decode(errors="replace")[-3000:]
            raise RuntimeError(f"a contestant ended early: {self.process.args!r}\n{words}")
        return json.loads(line)

    def wait_ready(self) -> Measurement:
        """What it said when it had loaded everything: its dtype and what its imports cost."""
        if self.ready is None:
            self.ready = self.read()
        return self.ready

    def send(self, seconds: float) -> None:
        """Ask for a window and wait for nothing; `read` gives it, once it was ready."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{seconds}\n")
        self.process.stdin.flush()

    def ask(self, seconds: float) -> Measurement:
        """One window."""
        ready = self.wait_ready()
        self.send(seconds)
        return ready | self.read()

    def close(self) -> None:
        """End it; nothing of it is kept."""
        self.process.kill()
        self.process.wait()
        self.noise.close()
        if self.folder is not None:
            self.folder.cleanup()


def speed(window: Mapping[str, Any]) -> float:
    """Real tokens per second."""
    return window["tokens"] / window["seconds"]


def round_ratio(mine: Sequence[Mapping], theirs: Sequence[Mapping]) -> dict[str, float]:
    """Median, lowest and highest of the rounds' ratios of speed."""
    ratios = [speed(a) / speed(b) for a, b in zip(mine, theirs, strict=True)]
    return {"median": statistics.median(ratios), "low": min(ratios), "high": max(ratios)}


def window_key(task: str, name: str, number: int, seconds: float) -> str:
    """Where a window is kept."""
    return f"{task}/{name}/round {number + 1}/{seconds:g} s"


def alternate(
    store: Store,
    task: str,
    names: Sequence[str],
    rounds: int,
    seconds: float,
    start: Callable[[str], Works],
) -> dict[str, list[Measurement]]:
    """Windows of all in turn, those that the store has not; returns every name's windows.

    Only who has a window left to do is started, and warms up before the first that counts.
    """
    keys = {(n, name): window_key(task, name, n, seconds) for n in range(rounds) for name in names}
    missing = [pair for pair, key in keys.items() if store.get(key) is None]
    children: dict[str, Works] = {}
    try:
        for name in names:
            if any(name == other for _, other in missing):
                children[name] = start(name)
                children[name].wait_ready()  # several at once would only be in each other's way
        for worker in children.values():
            worker.ask(min(seconds, WARM_UP))
        for number, name in missing:
            window = children[name].ask(seconds)
            store.put(keys[number, name], window)
            line = f"{task}, round {number + 1}: {name} {speed(window):,.0f} tokens/s"
            print(line, flush=True)
    finally:
        for worker in children.values():
            worker.close()
    return {name: [store.get(keys[n, name]) or {} for n in range(rounds)] for name in names}


def look_at_machine() -> dict[str, Any]:
    """What machine.py says of this machine, in a process that leaves nothing behind."""
    done = subprocess.run(
        [sys.executable, str(HERE / "machine.py")],
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"the machine cannot be described:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def keep_peak(store: Store, peak: dict[str, float]) -> None:
    """Keep the highest products measured so far; a slow moment lowers no peak."""
    before = store.get("peak") or {}
    store.put("peak", {name: max(value, before.get(name, 0.0)) for name, value in peak.items()})


def add_options(parser: argparse.ArgumentParser, name: str) -> None:
    """The options of a command that measures in windows and keeps them in NAME.json."""
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=60.0, help="length of a window")
    parser.add_argument("--fresh", action="store_true", help="measure again what is there already")
    parser.add_argument("--out", type=Path, default=HERE, help=f"folder of {name}.json and .md")


def open_store(folder: Path, name: str, fresh: bool = False) -> tuple[Store, dict[str, Any]]:
    """The measurements kept in `folder`, and the machine, whose peak they now hold."""
    machine = look_at_machine()
    folder.mkdir(parents=True, exist_ok=True)
    store = Store(folder / f"{name}.json", machine["fingerprint"], fresh)
    print(store.note or f"writing to {store.path}", flush=True)
    keep_peak(store, machine["peak"])
    return store, machine
