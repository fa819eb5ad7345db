"""A loop of your own: fit() copied from engine/loop.py and changed, so that a run ends when its
time is over. It then evaluates, saves, tests and exports as any other run.

    python -m examples.own_fit 600 configs/imdb_quick.toml run.name=ten_minutes

The lines that were added are marked, the others are fit()'s. Whatever takes fit()'s arguments can
take its place.
"""

import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from openloop import open_job, read_config, run_job
from engine.loop import StepResult, Unread, evaluate_and_save, train_step
from engine.losses import Batch
from engine.optim import Schedule, set_learning_rate
from engine.plan import Plan, Progress, advance, evaluation_due, finished, save_due
from engine.precision import Precision
from engine.signs import note
from engine.stop import StopRequest
from engine.windows import windows
from engine.world import agree_to_stop


def fit_until(end: float) -> Callable[..., None]:
    """A fit() that ends when time.monotonic() passes `end`."""

    def fit(
        model: nn.Module,
        batches: Callable[[int, int], Iterable[Batch]],
        compute_loss: Callable[[nn.Module, Batch], Tensor],
        count: Callable[[Batch], int],
        optimizer: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler,
        schedule: Schedule,
        precision: Precision,
        plan: Plan,
        progress: Progress,
        on_step: Callable[[StepResult, Progress, float], None],
        evaluate: Callable[[Progress], Any],
        save: Callable[[Progress], None],
        stop: StopRequest,
    ) -> None:
        model.train()
        set_learning_rate(optimizer, schedule, progress.step)
        optimizer.zero_grad(set_to_none=True)
        if evaluation_due(progress, plan):  # stopped between the last step and its evaluation
            evaluate_and_save(progress, evaluate, save)
        unsaved = False
        with Unread(progress, on_step) as unread:
            while not (agree_to_stop(stop) or finished(progress, plan)):
                start = progress.micro_batch
                for micro_batches in windows(batches(progress.epoch, start), plan, start):
                    note(f"step {progress.step + 1}")
                    rate = optimizer.param_groups[0]["lr"]
                    launched = train_step(
                        model, micro_batches, compute_loss, count,
                        optimizer, scaler, schedule, precision, plan, progress,
                    )  # fmt: skip
                    unread.report()  # the step before
                    advance(progress, plan)
                    unread.add(launched, rate)
                    if time.monotonic() > end:  # added
                        plan = replace(plan, total_steps=progress.step)  # added
                    unsaved, saves = True, save_due(launched.skipped, progress, plan)
                    if saves or evaluation_due(progress, plan) or progress.micro_batch == 0:
                        unread.report()
                    stopping = agree_to_stop(stop)
                    if not stopping and evaluation_due(progress, plan):
                        evaluate_and_save(progress, evaluate, save)
                        unsaved, stopping = False, agree_to_stop(stop)
                    elif not stopping and saves:
                        save(progress)
                        unsaved, stopping = False, agree_to_stop(stop)
                    if stopping or finished(progress, plan):
                        break
            unread.report()
            if unsaved:  # stopped, whenever it was
                save(progress)

    return fit


def main(words: Sequence[str]) -> dict[str, Any]:
    """Train the recipe words[1], changed by words[2:], for words[0] seconds."""
    job = open_job(read_config(words[1], words[2:]))
    job.fit = fit_until(time.monotonic() + float(words[0]))
    return run_job(job)


if __name__ == "__main__":
    main(sys.argv[1:]) if len(sys.argv) > 1 else sys.exit(__doc__)
