"""One trial: a whole schedule on a part of the rows, judged on validation rows; no file of it."""

import hashlib
import io
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor

from configs.schema import Config
from data.prepare import Data
from data.splits import sample
from engine.estimate import Estimate
from engine.loop import StepResult
from engine.losses import Batch, count_items
from engine.memory import explained
from engine.plan import Progress
from engine.stop import StopRequest
from job.fit import end_in_time, epoch_batches, note_evaluation, split_batches
from job.job import Job
from job.parallel.placed import ready, through
from job.rows import load_rows
from job.tasks.table import task_of
from job.testing.baseline import row_figures
from job.testing.scorer import plain_decision, scorer_of
from job.training.labelled import prepare_labelled
from job.training.needs import memory_advice

PARTS = ("train", "validation")  # test rows are in no trial

# trains a recipe; what it is given beside it sees the job before its first step, and the last one
# says whether it goes on where a run of its name stopped, if there is one
Train = Callable[[Config, Callable[[Job], None], bool], dict[str, Any]]


@dataclass(frozen=True)
class Trained:
    """What a trial came to. `rows`: for each validation row 1 where it is right and else 0, of a
    regression its squared error."""

    metric: str
    value: float
    loss: float
    rows: list[float]
    steps: int
    opening: float  # seconds before the first step
    training: float  # in steps
    checking: float  # in evaluations
    looks: int  # how many there were
    needs: Estimate  # as they were measured, or given
    late: bool = False  # whether its time was over before its last step

    @property
    def seconds(self) -> float:
        return self.opening + self.training + self.checking


def open_pool(config: Config) -> Data:
    """The training and validation rows of a recipe, each in one random order: that of
    data.subset_seed, so that the first of them are those that data.subset would take. No test row
    is among them. Raises ValueError where there is no validation row to judge by."""
    data = load_rows(config)
    if "validation" not in data.splits:
        raise ValueError(
            "there are no validation rows to choose by: data.validation is 0 and the source has no "
            "such split"
        )
    splits = {}
    for name in PARTS:
        rows = data.splits[name]
        if name not in config.data.subset:  # else they are in this order already
            rows = rows.select(sample(len(rows), len(rows), config.data.subset_seed))
        splits[name] = rows
    return replace(data, splits=splits)


def first_rows(pool: Data, rows: int, validation: int) -> Data:
    """The first so many rows of each split."""
    sizes = dict(zip(PARTS, (rows, validation), strict=True))
    splits = {name: pool.splits[name].select(range(size)) for name, size in sizes.items()}
    key = f"{pool.fingerprint} {rows} {validation}"
    digest = hashlib.sha256(key.encode()).hexdigest()
    return replace(pool, splits=splits, left_out=None, fingerprint=digest)


def open_trial(config: Config, data: Data, allow_code: bool, needs: Estimate | None) -> Job:
    """A trial that is ready for its first step, of the encoder alone where a bag answers beside it;
    memory and time are measured where `needs` does not say them already."""
    task, config = task_of(config), config.model_copy(update={"bag": None})
    job = prepare_labelled(task, config, allow_code, rows=data, needs=needs)
    with redirect_stdout(io.StringIO()):
        task.begin(job, None)
    return job


def run_trial(
    config: Config, data: Data, allow_code: bool, stop: StopRequest, needs: Estimate | None = None,
    until: Callable[[Job], float] | None = None,
    on_step: Callable[[StepResult, Job], None] = lambda result, job: None,
) -> Trained:  # fmt: skip
    """Train on all of `data` and judge the best state. `until` gives the moment on time.monotonic()
    at which training ends, wherever it stands. Raises Stopped where it was asked to end, ValueError
    where the training fails."""
    start = time.perf_counter()
    job = open_trial(config, data, allow_code, needs)
    job.until = None if until is None else until(job)
    judge, progress, late = Judge(job, stop), Progress(), False
    opened = time.perf_counter()

    def step_done(result: StepResult, after: Progress, rate: float) -> None:
        nonlocal late
        tired = progress.stopped_early
        end_in_time(job, progress)
        late = progress.stopped_early and not tired
        on_step(result, job)

    with explained(memory_advice(config)):
        job.fit(
            job.built.model, lambda epoch, first: epoch_batches(job, epoch, first),
            through(job.placed, job.compute_loss), count_items, job.optimizer, job.scaler,
            job.schedule, job.precision, job.plan, progress,
            step_done, judge.look, lambda progress: None, stop,
        )  # fmt: skip
    stop.check()
    if judge.best is None:
        raise no_figure(job)
    training = time.perf_counter() - opened - judge.seconds
    return Trained(
        job.metric, judge.best[0], judge.best[1], judge.rows.tolist(), progress.step,
        opened - start, training, judge.seconds, judge.looks, job.estimate,
        late and progress.step < job.plan.total_steps,
    )  # fmt: skip


def no_figure(job: Job) -> ValueError:
    """The error of a training that no evaluation could judge."""
    return ValueError(f"the {job.metric} of no evaluation is a number")


def look(job: Job, stop: StopRequest) -> tuple[dict[str, Any], np.ndarray]:
    """Evaluate the validation rows: the figures, and what each row came to, in the split's order.
    Raises Stopped where it was asked to end."""
    decision, numbers = plain_decision(job), job.data.splits["validation"]["row"]
    place, rows = {row: i for i, row in enumerate(numbers)}, np.zeros(len(numbers))

    def on_batch(batch: Batch, logits: Tensor) -> None:
        answers = decision.answers(logits.float().cpu()).numpy()
        places = [place[row] for row in batch["rows"].tolist()]
        rows[places] = row_figures(job.data.kind, answers, batch["labels"].cpu().numpy())

    with ready(job.placed):
        batches = stop.guard(split_batches(job, "validation"))
        return scorer_of(job).evaluate(job.built.model, batches, on_batch), rows


class Judge:
    """Looks at the validation rows, and keeps what the best state made of each."""

    def __init__(self, job: Job, stop: StopRequest) -> None:
        self.job, self.stop = job, stop
        self.best: tuple[float, float] | None = None
        self.rows = np.zeros(len(job.data.splits["validation"]))
        self.seconds, self.looks = 0.0, 0

    def look(self, progress: Progress) -> dict[str, Any]:
        """Evaluate, as a run does."""
        job, start = self.job, time.perf_counter()
        metrics, rows = look(job, self.stop)
        if note_evaluation(progress, job.metric, metrics, job.config.eval.patience):
            self.best, self.rows = (metrics[job.metric], metrics["loss"]), rows
        self.seconds += time.perf_counter() - start
        self.looks += 1
        return metrics
