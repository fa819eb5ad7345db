"""The heart: fit() and train_step(), written out in order.

    epoch:   micro-batch 0   1   2   3   4   5   6        one forward and backward each
             └─ window ──┘ └─ window ──┘ └ ragged ┘       `accumulate` of them: one optimizer step

Every loss is a sum; a window's sum is divided once, by the window's own number of items. So one
step over k micro-batches equals, to rounding, one step over the concatenated batch. Of several
processes each takes its share of a window (world.py), and the same holds.

A reader who wants another loop copies fit() and edits it.
"""

import math
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from engine.evaluate import to_device
from engine.gradients import (
    clip_gradients,
    sum_gradients,
    sum_in_this_backward,
    unscale_gradients,
)
from engine.losses import Batch
from engine.optim import Schedule, rest_waiting, set_learning_rate, trained
from engine.plan import Plan, Progress, advance, evaluation_due, finished, save_due
from engine.precision import Precision
from engine.randomness import seed_forward
from engine.signs import note
from engine.stop import Stopped, StopRequest
from engine.windows import count_window, windows
from engine.world import agree_to_stop, deal, gather_shares

MAX_SKIPS = 50  # fp16 steps skipped in a row before we call it hopeless: the scale fell by 2^50


class NonFiniteError(ValueError):
    """A loss or gradient that is not a number, caught before it could reach the weights."""

    def __init__(self, message: str, rows: list[int]):
        super().__init__(message)
        self.rows = rows  # of the step, as their batches number them


@dataclass(frozen=True)
class StepResult:
    loss: float  # mean over the window's items
    grad_norm: float  # before clipping
    skipped: bool  # fp16 only: the gradient overflowed, the weights did not move
    count: int  # items, of all processes
    tokens: int  # real tokens of all processes, padding not counted


@dataclass(frozen=True)
class Launched:
    """A step as it was given to the device. Its figures come over while the next one is launched;
    only `result` waits for them."""

    figures: Tensor  # (2,) loss and gradient norm, on the host or on their way there
    arrival: torch.cuda.Event | None
    optimizer: torch.optim.Optimizer
    micro_batches: list[Batch]  # of this process
    before: Progress  # a copy
    skipped: bool
    items: int  # of all processes, and real tokens
    tokens: int

    def result(self, progress: Progress) -> StepResult:
        """Its figures. Raises NonFiniteError for those that are no numbers: neither this step nor
        one launched after it has moved the weights, and `progress` goes back."""
        if self.arrival is not None:
            self.arrival.synchronize()
        loss, grad_norm = self.figures.tolist()  # the one host sync
        if not math.isfinite(loss) or not (math.isfinite(grad_norm) or self.skipped):
            vars(progress).update(vars(self.before))
            self.optimizer.found_inf = None  # type: ignore[attr-defined]  # the next one may move
            raise non_finite(loss, grad_norm, self.micro_batches, progress)
        return StepResult(loss, grad_norm, self.skipped, self.items, self.tokens)


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
) -> Launched:
    """One optimizer step over a window of micro-batches; moves step and skip counters on.

    A loss or (outside fp16) a gradient that is not finite never reaches the weights: `result` of
    what is returned raises NonFiniteError for it. That is the only host sync of a step, and comes
    when the caller likes; fp16, and an optimizer that cannot be held back on the device, wait here.
    """
    before = replace(progress)
    items, tokens = count_window(micro_batches, count)  # known on all hosts before any backward
    losses: list[Tensor] = []  # stay on the device until the window is done
    numbers = deal(range(progress.micro_batch, sys.maxsize))  # in the epoch, whoever does the rest
    for index, on_host in zip(numbers, micro_batches, strict=False):
        seed_forward(plan.seed, progress.epoch, index)
        sum_in_this_backward(last=len(losses) == len(micro_batches) - 1)
        batch = to_device(on_host, precision.device)
        with precision.autocast():
            # a window without items (every label -100) has loss 0, not 0 / 0
            micro_loss = compute_loss(model, batch) / max(items, 1)
        if "stand_in" in batch:  # of this window this process has fewer than others
            micro_loss = micro_loss * 0
        scaler.scale(micro_loss).backward()
        losses.append(micro_loss.detach())
    loss = sum_gradients(trained(optimizer), losses, precision.device)
    # fp16 gradients are `scale` times too large so far: max_norm is meant for the true ones
    unscale_gradients(scaler, trained(optimizer))
    rest_waiting(optimizer, progress.step)
    grad_norm = clip_gradients(trained(optimizer), plan.max_grad_norm)
    figures = torch.stack([loss.to(grad_norm), grad_norm])  # (2,)
    overflow = False
    if scaler.is_enabled() or not hold_back(optimizer, figures):
        figures = figures.cpu()  # the host has to know before it updates
        overflow = scaler.is_enabled() and not math.isfinite(figures[1])
        counts = (overflow, items, tokens)
        Launched(figures, None, optimizer, micro_batches, before, *counts).result(progress)
    if not overflow:
        # not scaler.step(optimizer): it skips in silence, and the step counter would move on
        optimizer.step()
        progress.step += 1
    scaler.update()  # after an overflow it halves the scale
    # after the step: the rate is a function of the steps done, and stays where one was skipped
    set_learning_rate(optimizer, schedule, progress.step)
    optimizer.zero_grad(set_to_none=True)
    progress.skipped += overflow
    progress.skipped_in_a_row = progress.skipped_in_a_row + 1 if overflow else 0
    check_skips(progress)
    return Launched(*send_home(figures), optimizer, micro_batches, before, overflow, items, tokens)


def hold_back(optimizer: torch.optim.Optimizer, figures: Tensor) -> bool:
    """Let the device itself leave out this update, and all after it, where a figure is not finite;
    whether this optimizer can. Fused ones look at `found_inf`, as GradScaler uses it."""
    if not getattr(optimizer, "_step_supports_amp_scaling", False):
        return False
    bad = (~figures.isfinite().all()).float()  # ()
    earlier = getattr(optimizer, "found_inf", None)
    optimizer.found_inf = bad if earlier is None else torch.maximum(bad, earlier)  # type: ignore[attr-defined]
    return True


def send_home(figures: Tensor) -> tuple[Tensor, torch.cuda.Event | None]:
    """The figures on their way to the host, and the event of their arrival."""
    if figures.device.type != "cuda":
        return figures, None
    home = torch.empty(figures.shape, dtype=figures.dtype, pin_memory=True)
    home.copy_(figures, non_blocking=True)
    arrival = torch.cuda.Event()
    arrival.record()
    return home, arrival


def non_finite(
    loss: float, grad_norm: float, micro_batches: list[Batch], progress: Progress
) -> NonFiniteError:
    """The error for a step that must not reach the weights: it names the step and the rows."""
    own = [row for batch in micro_batches for row in batch["rows"].tolist()]
    rows = [row for part in gather_shares(own) for row in part]
    return NonFiniteError(
        f"step {progress.step + 1} (epoch {progress.epoch + 1}, micro-batch "
        f"{progress.micro_batch + 1}): the loss is {loss} and the gradient norm {grad_norm}; both "
        f"must be finite. The weights were not touched. Rows of this step: {rows}. Look at those "
        "rows, lower train.lr, or use precision.dtype = 'fp32'.",
        rows,
    )


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
    the best and early-stopping counters of `progress`; `on_step` gets each step's result and rate,
    on CUDA once the next step is launched. job/fit.py calls it, with everything it needs.
    """
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


class Unread:
    """Steps that are launched and not reported yet, at most one. While it is entered none gets
    lost: before an error goes on, the step before it is reported."""

    def __init__(
        self, progress: Progress, on_step: Callable[[StepResult, Progress, float], None]
    ) -> None:
        self.progress, self.on_step = progress, on_step
        self.steps: list[tuple[Launched, Progress, float]] = []

    def add(self, launched: Launched, rate: float) -> None:
        """A step, and where the run stands after it; reported at once if its figures are here."""
        self.steps.append((launched, replace(self.progress), rate))
        if launched.arrival is None:
            self.report()

    def report(self) -> None:
        """Wait for what is not read yet. Raises NonFiniteError as `result` does."""
        while self.steps:
            launched, after, rate = self.steps.pop(0)
            self.on_step(launched.result(self.progress), after, rate)

    def __enter__(self) -> "Unread":
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is not None:
            self.report()


def check_skips(progress: Progress) -> None:
    """Raise NonFiniteError where fp16 overflows again and again."""
    if progress.skipped_in_a_row >= MAX_SKIPS:
        raise NonFiniteError(
            f"{MAX_SKIPS} fp16 steps in a row overflowed after step {progress.step}; the "
            "loss scale cannot help any more. Use precision.dtype = 'bf16' or 'fp32'.",
            rows=[],
        )


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
