"""Losses of 200 steps on the device, in fp32 and in bf16, beside the CPU's in fp32."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gpu_steps.context import Context, Failed
from gpu_steps.shapes import SMALL, Task, tiny
from gpu_steps.work import make_work, set_up_torch, train, write_model

STEPS, LAST, LR = {"full": 200, "quick": 200, "dry": 20}, 50, 2e-4
MOST = {"fp32": 0.01, "bf16": 0.1}  # mean difference over all steps that is no longer rounding


def losses(
    task: Task, model: Path, device: str, dtype: str, dropout: float, steps: int
) -> list[float]:
    """The loss of each step."""
    work = make_work(task, model, device, dtype, dropout=dropout, steps=steps, lr=LR)
    curve: list[float] = []
    train(work, lambda result, progress: curve.append(result.loss))
    return curve


def compare(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, float]:
    """The largest and the mean difference of two curves, and how far they come."""
    apart = [abs(a - b) for a, b in zip(ours, theirs, strict=True)]
    return {
        "largest": max(apart),
        "mean": statistics.fmean(apart),
        "first": ours[0],
        "last": statistics.fmean(ours[-LAST:]),
        "last_there": statistics.fmean(theirs[-LAST:]),
    }


def run(context: Context, figures: dict[str, Any]) -> None:
    set_up_torch()
    task, steps = tiny(SMALL) if context.size == "dry" else SMALL, STEPS[context.size]
    model = write_model(task, context.scratch / "model")
    figures["steps"] = steps
    there = losses(task, model, "cpu", "fp32", 0.0, steps)
    for dtype in ("fp32", "bf16"):
        here = losses(task, model, context.device, dtype, 0.0, steps)
        figures[dtype] = compare(here, there)
        context.keep(figures)
    here = losses(task, model, context.device, context.dtype, 0.1, steps)
    figures["dropout"] = compare(here, losses(task, model, "cpu", "fp32", 0.1, steps))
    if over := [d for d, most in MOST.items() if figures[d]["mean"] > most]:
        raise Failed(f"the losses in {' and '.join(over)} are not the CPU's")
