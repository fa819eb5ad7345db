"""The learning-rate range test (Smith 2017, arXiv:1506.01186): the loss while the rate rises from
far too low to far too high. It shows a range, and nothing is written into a recipe: the best rate
depends on how long a run is, which this does not ask.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from configs.schema import Config
from engine.loop import NonFiniteError, StepResult
from engine.losses import count_items
from engine.memory import explained
from engine.optim import Schedule
from engine.plan import Plan, Progress
from engine.stop import StopRequest
from job.fit import epoch_batches
from job.parallel.placed import through
from job.training.needs import memory_advice
from job.tuning.space import rate_range, way_of
from job.tuning.trial import first_rows, open_pool, open_trial

STEPS = 100
BELOW, ABOVE = 30, 10  # times the ends of the rates that are usual for what learns
SMOOTH = 0.8  # weight of the steps before, in the smoothed loss
BROKEN = 2.0  # times the first loss, from which the test is over
FALLS = 0.1  # of the whole fall: where it begins
ENDS = 0.9  # and where most of it is over


@dataclass(frozen=True)
class Rising(Schedule):
    """A factor that goes from 1 / `times` to 1, evenly by its logarithm."""

    times: float = 1.0

    def factor(self, step: int) -> float:
        """The factor for the update after `step` finished ones."""
        done = min(1.0, step / max(1, self.total_steps - 1))
        return math.exp(math.log(self.times) * (done - 1))


@dataclass(frozen=True)
class Curve:
    """The loss at each rate, smoothed too, and the range in which it falls; None where it does not.
    `broken`: whether the loss left all bounds."""

    rates: list[float]
    losses: list[float]
    smoothed: list[float]
    low: float | None
    high: float | None
    broken: bool


def rate_test(config: Config, allow_code: bool, stop: StopRequest) -> Curve:
    """Train once over rising rates, on the training rows of a recipe in their order, and throw the
    weights away. Raises Stopped where it was asked to end."""
    low, high = rate_range(way_of(config), config.train.lr)
    low, high = low / BELOW, high * ABOVE
    tables = config.model_dump(exclude_none=True)
    tables["train"] |= {"lr": high, "epochs": 1000, "max_steps": STEPS}
    tables["train"].pop("head_lr", None)
    tables["model"]["cache"] = "off"  # the steps are few
    raised = Config.model_validate(tables)
    pool = open_pool(raised)
    batch = config.train.micro_batch_size * config.train.accumulate
    rows = min(len(pool.splits["train"]), STEPS * batch)
    job = open_trial(raised, first_rows(pool, rows, 1), allow_code, None)
    schedule = Rising("rising", STEPS, 0, high / low)
    plan = Plan(
        config.run.seed, 1000, job.plan.micro_batches_per_epoch, job.plan.accumulate, STEPS,
        job.plan.max_grad_norm, None, None,
    )  # fmt: skip
    rates, losses, progress = list[float](), list[float](), Progress()

    def on_step(result: StepResult, after: Progress, rate: float) -> None:
        rates.append(rate)
        losses.append(result.loss)
        if smooth(losses)[-1] > BROKEN * losses[0]:
            progress.stopped_early = True

    try:
        with explained(memory_advice(config)):
            job.fit(
                job.built.model, lambda epoch, first: epoch_batches(job, epoch, first),
                through(job.placed, job.compute_loss), count_items, job.optimizer, job.scaler,
                schedule, job.precision, plan, progress,
                on_step, lambda progress: None, lambda progress: None, stop,
            )  # fmt: skip
    except NonFiniteError:
        progress.stopped_early = True
    stop.check()
    return curve_of(rates, losses, progress.stopped_early)


def smooth(losses: Sequence[float]) -> list[float]:
    """An exponential mean, its start taken out."""
    mean, weight, smoothed = 0.0, 0.0, []
    for loss in losses:
        mean, weight = SMOOTH * mean + (1 - SMOOTH) * loss, SMOOTH * weight + (1 - SMOOTH)
        smoothed.append(mean / weight)
    return smoothed


def curve_of(rates: Sequence[float], losses: Sequence[float], broken: bool) -> Curve:
    """The range: from where the smoothed loss has fallen by a tenth of its whole fall to where nine
    tenths of it are done, which is before it turns."""
    smoothed = smooth(losses)
    low = high = None
    if smoothed:
        lowest = min(range(len(smoothed)), key=smoothed.__getitem__)
        top = max(smoothed[: lowest + 1])
        fall = top - smoothed[lowest]
        if fall > 0.02 * top:
            begins = last_above(smoothed, lowest, top - FALLS * fall)
            ends = last_above(smoothed, lowest, top - ENDS * fall)
            low, high = rates[begins], rates[max(begins, ends)]
    return Curve(list(rates), list(losses), smoothed, low, high, broken)


def last_above(values: Sequence[float], end: int, limit: float) -> int:
    """The first place after the last value before `end` that is above the limit."""
    return next((n + 1 for n in range(end, -1, -1) if values[n] > limit), 0)
