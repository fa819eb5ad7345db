"""Real tokens a second of openloop beside the stock Trainer, as it comes and tuned, in turns."""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from windows import Child

from gpu_steps.contestant import CONTESTANTS
from gpu_steps.context import Context, Failed
from gpu_steps.shapes import TASKS, tiny
from gpu_steps.work import write_model

ENOUGH_CORES = 12  # to start the processes of all tasks at once
SPARE = 8.0  # seconds kept back to end everything


@dataclass(frozen=True)
class Lengths:
    """Seconds of a window, of warming up, and how many windows count."""

    window: float
    warm: float
    rounds: int


LENGTHS = {"full": Lengths(4.0, 2.5, 2), "quick": Lengths(3.0, 1.5, 1), "dry": Lengths(0.3, 0.1, 1)}
NAMES = tuple(CONTESTANTS)
CHOSEN: dict[str, dict[str, Sequence[str]]] = {
    "full": dict.fromkeys(TASKS, NAMES),
    "quick": {"minilm_lora": NAMES[1:]},  # compiling takes too long
    "dry": {"minilm_lora": ("openloop", "tuned"), "bert_eval": ("openloop", "stock")},
}


def why_not(name: str, size: str) -> str | None:
    """Why a contestant cannot take part here; None where it can."""
    if name == "uncompiled" and size == "dry":
        return "layers are compiled on CUDA alone"
    needs = ("accelerate", "peft") if name in ("stock", "tuned") else ()
    lacking = [package for package in needs if find_spec(package) is None]
    return f"not installed: {', '.join(lacking)}" if lacking else None


class Race:
    """The contestants of one task, each in a process of its own. Who fails leaves; the others go
    on."""

    def __init__(self, task: str, model: Path, names: Sequence[str], size: str) -> None:
        self.begun: set[str] = set()  # who was asked for a window that nobody has waited for
        self.results: dict[str, dict[str, Any]] = {name: {"windows": []} for name in names}
        self.children = {
            name: Child(
                [sys.executable, "-m", "gpu_steps.contestant", name, task, str(model), size]
            )
            for name in names
        }

    def begin(self, name: str) -> None:
        """Let a contestant, if it takes part, begin its first step as soon as it is ready."""
        if name in self.children:
            self.children[name].send(0.0)
            self.begun.add(name)

    def attempt(self, name: str, seconds: float) -> dict[str, Any] | None:
        """A window of one contestant; None, and it leaves, where it fails or has left."""
        if name not in self.children:
            return None
        try:
            if name in self.begun:
                self.begun.remove(name)
                return self.children[name].wait_ready() | self.children[name].read()
            return self.children[name].ask(seconds)
        except (RuntimeError, OSError) as error:
            print(f"{name}: {error}", file=sys.stderr, flush=True)
            self.results[name]["failed"] = str(error).strip().splitlines()[-1][:300]
            self.children.pop(name).close()
            return None

    def take_first_step(self, name: str) -> None:
        """The step that pays for whatever is made on first use."""
        if first := self.attempt(name, 0.0):
            keep = ("dtype", "built", "paths")
            self.results[name] |= {key: first[key] for key in keep}
            self.results[name]["first_step"] = first["seconds"]

    def run(self, lengths: Lengths) -> None:
        """Warm up, then windows in turn."""
        for name in list(self.children):
            self.attempt(name, lengths.warm)
        for _ in range(lengths.rounds):
            for name in list(self.children):
                if window := self.attempt(name, lengths.window):
                    keep = ("tokens", "flops", "steps", "seconds", "peak")
                    self.results[name]["windows"].append({key: window[key] for key in keep})

    def close(self) -> None:
        """End all that are left."""
        for child in self.children.values():
            child.close()


def seconds_of(contestants: int, lengths: Lengths) -> float:
    """About how long the windows of a task take."""
    return contestants * (lengths.warm + lengths.rounds * lengths.window + 1.0)


def run_together(
    chosen: Mapping[str, Sequence[str]], context: Context, figures: dict[str, Any]
) -> None:
    """All processes of these tasks, each with its contestants, start at once; then one task after
    the other is measured."""
    lengths, races = LENGTHS[context.size], {}
    try:
        for task, names in chosen.items():
            races[task] = Race(task, context.scratch / task, names, context.size)
        for race in races.values():  # compiling takes long: all at once, and nobody else meanwhile
            race.begin("openloop")
        for name in CONTESTANTS:
            for race in races.values():
                race.take_first_step(name)
        for task, race in races.items():
            if context.seconds_left() < seconds_of(len(race.children), lengths) + SPARE:
                figures["left_out"].append(task)
            else:
                race.run(lengths)
                figures["tasks"][task] = race.results
            race.close()
            context.keep(figures)
    finally:
        for race in races.values():
            race.close()


def complaint(figures: Mapping[str, Any]) -> str:
    """Who ended early and which tasks were not reached; "" where all was measured."""
    failed = [
        f"{task}: {name} ended early ({row['failed']})"
        for task, results in figures["tasks"].items()
        for name, row in results.items()
        if "failed" in row
    ]
    late = [f"no time was left for {task}" for task in figures["left_out"]]
    return "; ".join([*failed, *late])


def run(context: Context, figures: dict[str, Any]) -> None:
    reasons = {name: why_not(name, context.size) for name in CONTESTANTS}
    figures["not_run"] = {name: reason for name, reason in reasons.items() if reason}
    figures |= {"tasks": {}, "left_out": []}
    chosen: dict[str, list[str]] = {}
    for task, names in CHOSEN[context.size].items():
        chosen[task] = [name for name in names if name not in figures["not_run"]]
        shape = tiny(TASKS[task]) if context.size == "dry" else TASKS[task]
        write_model(shape, context.scratch / task)
    at_once = (os.cpu_count() or 1) >= ENOUGH_CORES
    apart = [{task: names} for task, names in chosen.items()]
    for group in [chosen] if at_once else apart:
        run_together(group, context, figures)
    if reason := complaint(figures):
        raise Failed(reason)
