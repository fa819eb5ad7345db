"""When to train, evaluate and save: pure functions of where a run stands and of its plan."""

import math
from dataclasses import dataclass


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


def planned_steps(epochs: int, micro_batches: int, accumulate: int, max_steps: int | None) -> int:
    """Optimizer steps of a run. The ragged last window of an epoch is a step of its own."""
    steps = epochs * math.ceil(micro_batches / accumulate)
    return steps if max_steps is None else min(steps, max_steps)


def window(plan: Plan, first: int) -> range:
    """The micro-batches of the optimizer step that begins with number `first` of an epoch; the last
    step of an epoch may have fewer."""
    return range(first, min(first + plan.accumulate, plan.micro_batches_per_epoch))


def advance(progress: Progress, plan: Plan) -> None:
    """Count the micro-batches of a finished window; roll over at the end of an epoch."""
    progress.micro_batch += len(window(plan, progress.micro_batch))
    if progress.micro_batch >= plan.micro_batches_per_epoch:
        progress.epoch, progress.micro_batch = progress.epoch + 1, 0


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


def save_due(skipped: bool, progress: Progress, plan: Plan) -> bool:
    """True after each `save_every` optimizer steps; a skipped one is none."""
    if plan.save_every is None or skipped:
        return False
    return progress.step % plan.save_every == 0
