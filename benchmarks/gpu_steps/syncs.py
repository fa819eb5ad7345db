"""How often the host waits for the device in a window of three micro-batches: once is allowed."""

import warnings
from collections import Counter
from typing import Any

import torch

from engine.loop import StepResult
from engine.plan import Progress
from gpu_steps.context import Context, Failed
from gpu_steps.shapes import TASKS, tiny
from gpu_steps.work import make_work, set_up_torch, train, write_model

NAMES = ("minilm_lora", "bert_full")
MICRO_BATCHES, WARM, WINDOWS = 3, 5, 3  # a window; windows before, and those that count
ALLOWED = 1.0


class EventWaits:
    """Counts the waits for an event, of which torch does not warn."""

    counting, count = False, 0

    def __enter__(self) -> None:
        self.plain = plain = torch.cuda.Event.synchronize

        def synchronize(event: torch.cuda.Event) -> None:
            self.count += self.counting
            plain(event)

        torch.cuda.Event.synchronize = synchronize  # type: ignore[assignment, method-assign]

    def __exit__(self, *raised: object) -> None:
        torch.cuda.Event.synchronize = self.plain  # type: ignore[method-assign]


def count_waits(name: str, context: Context) -> dict[str, Any]:
    """Waits a window in the steady state, and the lines of ours or torch's where they are."""
    task = tiny(TASKS[name]) if context.size == "dry" else TASKS[name]
    model = write_model(task, context.scratch / name)
    steps = WARM + WINDOWS + 2
    work = make_work(
        task, model, context.device, context.dtype, context.compiled,
        accumulate=MICRO_BATCHES, steps=steps,
    )  # fmt: skip
    watch = torch.cuda.set_sync_debug_mode if context.device == "cuda" else lambda mode: None
    events = EventWaits()

    def on_step(result: StepResult, progress: Progress) -> None:
        if progress.step == WARM:
            watch("warn")
            events.counting = True
        elif progress.step == WARM + WINDOWS:
            watch("default")
            events.counting = False

    with warnings.catch_warnings(record=True) as caught, events:
        warnings.simplefilter("always")
        try:
            train(work, on_step)
        finally:
            watch("default")
    waits = [w for w in caught if "synchroniz" in str(w.message)]
    places = Counter(f"{w.filename}:{w.lineno}" for w in waits)
    return {
        "waits": (len(waits) + events.count) / WINDOWS,
        "for_events": events.count / WINDOWS,
        "places": dict(places),
        "paths": work.speed.resolved,
    }


def run(context: Context, figures: dict[str, Any]) -> None:
    set_up_torch()
    for name in NAMES if context.size == "full" else NAMES[:1]:
        figures[name] = count_waits(name, context)
        context.keep(figures)
    if over := [name for name, task in figures.items() if task["waits"] > ALLOWED]:
        raise Failed(f"more than one wait a window in {', '.join(over)}")
