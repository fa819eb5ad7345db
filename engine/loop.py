"""The heart: fit() and train_step(), written out in order.

    epoch:   micro-batch 0   1   2   3   4   5   6        one forward and backward each
             └─ window ──┘ └─ window ──┘ └ ragged ┘       `accumulate` of them: one optimizer step

Every loss is a sum; a window's sum is divided once, by the window's own number of items. So one
step over k micro-batches equals, to rounding, one step over the concatenated batch.

A reader who wants another loop copies fit() and edits it.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from engine.evaluate import to_device
from engine.losses import Batch
from engine.optim import Schedule, set_learning_rate
from engine.precision import Precision
from engine.randomness import seed_forward
from engine.stop import Stopped, StopRequest

MAX_SKIPS = 50  # fp16 steps skipped in a row before we call it hopeless: the scale fell by 2^50


class NonFiniteError(ValueError):
    """A loss or gradient that is not a number, caught before it could reach the weights."""

    def __init__(self, message: str, rows: list[int]):
        super().__init__(message)
        self.rows = rows  # of the step, as their batches number them


@dataclass
class Progress:
    """Where a run stands. Counters only: with the tensors they are all a resumed run needs."""

    step: int = 0  # optimizer steps done; a skipped step does not count
    epoch: int = 0
    micro_batch: int = 0  # micro-batches of this epoch already used
    skipped: int = 0  # fp16 steps skipped, over the run
    skipped_in_a_row: int = 0
    evaluated_step: int = -1  # the step of the last evaluation
    best_step: int | None = None
    best_value: float | None = None
    best_loss: float | None = None  # between evaluations of equal value the lower loss is better
    without_improvement: int = 0  # evaluations since the best one
    stopped_early: bool = False


@dataclass(frozen=True)
class Plan:
    """How long to train and when to evaluate and save."""

    seed: int
    epochs: int
    micro_batches_per_epoch: int
    accumulate: int
    total_steps: int
    max_grad_norm: float | None
    evaluate_every: int | None  # optimizer steps; None: at the end of each epoch
    save_every: int | None  # optimizer steps, besides the save after each evaluation

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of one pass over the training rows."""
        return math.ceil(self.micro_batches_per_epoch / self.accumulate)


@dataclass(frozen=True)
class StepResult:
    loss: float  # mean over the window's items
    grad_norm: float  # before clipping
    skipped: bool  # fp16 only: the gradient overflowed, the weights did not move
    count: int  # items
    tokens: int  # real tokens, padding not counted


def planned_steps(epochs: int, micro_batches: int, accumulate: int, max_steps: int | None) -> int:
    """Optimizer steps of a run. The ragged last window of an epoch is a step of its own."""
    steps = epochs * math.ceil(micro_batches / accumulate)
    return steps if max_steps is None else min(steps, max_steps)


def windows(batches: Iterable[Batch], size: int) -> Iterator[list[Batch]]:
    """Consecutive lists of `size` micro-batches; the last one of an epoch may be shorter."""
    iterator = iter(batches)
    while window := list(islice(iterator, size)):
        yield window


def train_step(
    model: nn.Module,
    micro_batches: list[Batch],
    compute_loss: Callable[[nn.Module, Batch], Tensor],
    count: Callable[[Batch], int],
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    schedule: Schedule,
    precision: Precision,
    plan: Plan,
    progress: Progress,
) -> StepResult:
    """One optimizer step over a window of micro-batches; moves step and skip counters on.

    Raises NonFiniteError, before the update, for a loss or (outside fp16) a gradient that is not
    finite. There is one host sync: the loss and the gradient norm together.
    """
    items = sum(count(batch) for batch in micro_batches)  # known on the host before any backward
    losses = []  # stay on the device until the window is done
    for index, on_host in enumerate(micro_batches, start=progress.micro_batch):
        seed_forward(plan.seed, progress.epoch, index)
        batch = to_device(on_host, precision.device)
        with precision.autocast():
            # a window without items (every label -100) has loss 0, not 0 / 0
            micro_loss = compute_loss(model, batch) / max(items, 1)
        scaler.scale(micro_loss).backward()
        losses.append(micro_loss.detach())
    scaler.unscale_(optimizer)
    grad_norm = clip_gradients(optimizer, plan.max_grad_norm)
    loss = torch.stack(losses).sum()
    loss_value, norm_value = torch.stack([loss, grad_norm]).tolist()  # the one host sync
    overflow = not math.isfinite(norm_value)
    if not math.isfinite(loss_value) or (overflow and not scaler.is_enabled()):
        optimizer.zero_grad(set_to_none=True)
        raise non_finite(loss_value, norm_value, micro_batches, progress)
    if not overflow:
        optimizer.step()
        progress.step += 1
    scaler.update()  # after an overflow it halves the scale
    set_learning_rate(optimizer, schedule, progress.step)
    optimizer.zero_grad(set_to_none=True)
    progress.skipped += overflow
    progress.skipped_in_a_row = progress.skipped_in_a_row + 1 if overflow else 0
    tokens = sum(batch.get("tokens", 0) for batch in micro_batches)
    return StepResult(loss_value, norm_value, overflow, items, tokens)


def clip_gradients(optimizer: torch.optim.Optimizer, max_norm: float | None) -> Tensor:
    """Scale all gradients to a joint norm of at most `max_norm`; returns the norm before."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    limit = math.inf if max_norm is None else max_norm
    return nn.utils.clip_grad_norm_(parameters, limit)


def non_finite(
    loss: float, grad_norm: float, micro_batches: list[Batch], progress: Progress
) -> NonFiniteError:
    """The error for a step that must not reach the weights: it names the step and the rows."""
    rows = [row for batch in micro_batches for row in batch["rows"].tolist()]
    return NonFiniteError(
        f"step {progress.step + 1} (epoch {progress.epoch + 1}, micro-batch "
        f"{progress.micro_batch + 1}): the loss is {loss} and the gradient norm {grad_norm}; both "
        f"must be finite. The weights were not touched. Rows of this step: {rows}. Look at those "
        "rows, lower train.lr, or use precision.dtype = 'fp32'.",
        rows,
    )


def advance(progress: Progress, plan: Plan, used: int) -> None:
    """Count the micro-batches of a finished window; roll over at the end of an epoch."""
    progress.micro_batch += used
    if progress.micro_batch >= plan.micro_batches_per_epoch:
        progress.epoch, progress.micro_batch = progress.epoch + 1, 0


def check_epoch_end(progress: Progress, plan: Plan) -> None:
    """Raise ValueError where `batches` gave another number of micro-batches than planned."""
    if progress.micro_batch != 0:
        raise ValueError(
            f"batches() ended at micro-batch {progress.micro_batch} of epoch {progress.epoch + 1}; "
            f"the plan has {plan.micro_batches_per_epoch} an epoch: batches(epoch, start) must "
            "give all of them from index start on"
        )


def finished(progress: Progress, plan: Plan) -> bool:
    """True when the run has nothing left to train."""
    done = progress.step >= plan.total_steps or progress.epoch >= plan.epochs
    return done or progress.stopped_early


def evaluation_due(progress: Progress, plan: Plan) -> bool:
    """A pure function of where the run stands, so a resumed run asks it again and gets the same."""
    if progress.step in (0, progress.evaluated_step):
        return False
    if finished(progress, plan):
        return True
    if plan.evaluate_every is None:
        return progress.micro_batch == 0
    return progress.step % plan.evaluate_every == 0


def save_due(result: StepResult, progress: Progress, plan: Plan) -> bool:
    """True after each `save_every` optimizer steps."""
    if plan.save_every is None or result.skipped:
        return False
    return progress.step % plan.save_every == 0


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
    """Train until the plan is done, `evaluate` stops it early, or `stop` is requested.

    `batches(epoch, start)` gives an epoch's micro-batches from index `start` on. `evaluate` updates
    the best and early-stopping counters of `progress`; `on_step` gets each step's result and rate.
    job/fit.py is the place that calls it, with everything it needs.
    """
    model.train()
    set_learning_rate(optimizer, schedule, progress.step)
    optimizer.zero_grad(set_to_none=True)
    if evaluation_due(progress, plan):  # stopped between the last step and its evaluation
        evaluate_and_save(progress, evaluate, save)
    while not (stop.requested or finished(progress, plan)):
        epoch = batches(progress.epoch, progress.micro_batch)
        for micro_batches in windows(epoch, plan.accumulate):
            rate = optimizer.param_groups[0]["lr"]
            result = train_step(
                model, micro_batches, compute_loss, count,
                optimizer, scaler, schedule, precision, plan, progress,
            )  # fmt: skip
            advance(progress, plan, used=len(micro_batches))
            on_step(result, progress, rate)
            if progress.skipped_in_a_row >= MAX_SKIPS:
                raise NonFiniteError(
                    f"{MAX_SKIPS} fp16 steps in a row overflowed after step {progress.step}; the "
                    "loss scale cannot help any more. Use precision.dtype = 'bf16' or 'fp32'.",
                    rows=[],
                )
            if not stop.requested and evaluation_due(progress, plan):
                evaluate_and_save(progress, evaluate, save)
            elif stop.requested or save_due(result, progress, plan):
                save(progress)
            if stop.requested or finished(progress, plan):
                break
        else:  # the epoch is used up, so it must have rolled over
            check_epoch_end(progress, plan)


def evaluate_and_save(
    progress: Progress, evaluate: Callable[[Progress], Any], save: Callable[[Progress], None]
) -> None:
    """Evaluate, then keep these weights together with what the evaluation found.

    An evaluation that is stopped half-way leaves no trace; the resumed run starts it again.
    """
    try:
        evaluate(progress)
        progress.evaluated_step = progress.step
    except Stopped:
        pass
    save(progress)
