"""Training of a prepared job: where to go on from, what happens at a step and at an evaluation."""

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from data.encode import tokenizer_digest
from engine.checkpoint import (
    best_folder,
    drift,
    environment,
    load_optimizer,
    load_weights,
    read_state,
    save_checkpoint,
)
from engine.loop import NonFiniteError, StepResult
from engine.losses import Batch, count_items
from engine.memory import explained
from engine.plan import Progress
from engine.signs import note
from engine.stop import StopRequest
from engine.storage import newest_valid
from engine.tracker import LOG, Tracker, mend_log
from engine.windows import own_micro_batches
from engine.world import gather, world
from job.folder import Folder
from job.job import Job
from job.orders import give
from job.own_code import describe_own_code
from job.parallel.placed import ready, through
from job.predicting.predictor import made_with
from job.speed import feed_batches
from job.training.needs import memory_advice
from job.training.probe import replaced
from report.compare import LESS_IS_BETTER
from report.evaluation import show_figure

NO_DRIFT = ("environment", "base", "code", "config", "metrics")  # looked at apart, or nothing


def check_drift(saved: dict[str, Any], job: Job, allow_drift: bool) -> list[str]:
    """What differs from when the checkpoint was made, besides the config. Raises ValueError unless
    that is allowed: the run could not go on to the same bits."""
    record = make_record(job)
    # the first checkpoints did not note these
    saved = {"tokenizer": record["tokenizer"], "code": record["code"]} | saved
    then, now = {"processes": 1} | saved["environment"], record["environment"]
    notes = []
    spread = [key for key in ("processes", "spread") if then.get(key) != now.get(key)]
    if spread:  # then each had other threads too, and maybe no fast paths
        before, after = (
            f"{one['processes']} processes ({one.get('spread', 'ddp')})"
            if one["processes"] > 1 else "one process" for one in (then, now)
        )  # fmt: skip
        notes = [
            f"going on with {after}, before with {before}: the same training to rounding, not to "
            "the bit"
        ]
        free = ("processes", "spread", "threads", *speed_keys(then, now))
        then = {k: v for k, v in then.items() if k not in free}
        now = {k: v for k, v in now.items() if k not in free}
        saved, record = ({k: v for k, v in one.items() if k != "kept"} for one in (saved, record))
    lines = [
        *drift(then, now),
        *drift(saved["base"], record["base"]),
        *drift(saved["code"], record["code"]),
        *(
            line
            for key in [key for key in saved | record if key not in NO_DRIFT]
            for line in drift({key: saved.get(key)}, {key: record.get(key)})
        ),
    ]
    if lines and not allow_drift:
        shown = "\n".join("  " + line for line in lines)
        raise ValueError(
            f"this run cannot go on to the same bits, since something changed:\n{shown}\n"
            "Restore it, or go on all the same with --allow-drift."
        )
    return notes + [f"going on although it changed: {line}" for line in lines]


def speed_keys(*environments: dict[str, Any]) -> set[str]:
    """What they say of fast paths."""
    return {key for one in environments for key in one if key.startswith("speed.")}


def describe_data(job: Job) -> dict[str, Any]:
    """The data report, what is read of long texts and the fingerprint of the rows, as they stand in
    data.json."""
    report = {**job.data.report.as_dict(), "lengths": job.task.lengths(job)}
    return {"fingerprint": job.data.fingerprint, **report}


def describe_environment(job: Job) -> dict[str, Any]:
    """What "the same bits" depends on outside the config, as it stands in environment.json."""
    spread = {} if job.placed is None or world().alone else {"spread": str(job.placed.way)}
    return environment(job.precision, job.speed.resolved) | spread | job.task.environment(job)


def make_record(job: Job) -> dict[str, Any]:
    """What a checkpoint notes of the world it was made in."""
    record = {
        "environment": describe_environment(job),
        "base": job.built.base,
        "data": job.data.fingerprint,
        "tokenizer": tokenizer_digest(job.tokenizer),
        "code": describe_own_code(job.config),
        "config": job.config.model_dump(exclude_none=True),
    }
    record |= job.task.record(job)
    if own := replaced(job):
        record["replaced"] = own
    return record


class Restored(NamedTuple):
    """Where a run goes on from: its counters, the size metrics.jsonl had then (None: a new run),
    what to say, and the checkpoint."""

    progress: Progress
    metrics_bytes: int | None
    notes: list[str]
    checkpoint: Path | None = None


def restore(job: Job, folder: Folder, allow_drift: bool) -> Restored:
    """Go back to the newest checkpoint; the weights of a model in parts are left to spread_state.
    Raises ValueError where it does not fit."""
    checkpoint, notes = newest_valid(folder.checkpoints)
    if checkpoint is None:
        if (folder.path / LOG).exists():  # it had begun, so a word is owed
            notes.append("it had no checkpoint yet: starting at step 1")
        return Restored(Progress(), 0, notes)
    state = read_state(checkpoint)
    notes += check_drift(state["record"], job, allow_drift)
    if not job.in_parts:
        load_weights(checkpoint, job.built.model)
        load_optimizer(checkpoint, job.built.model, job.optimizer)
    job.scaler.load_state_dict(state["scaler"])
    progress = Progress(**state["progress"])
    notes.append(f"resuming from {checkpoint} (step {progress.step} of {job.plan.total_steps})")
    then = state["record"]["environment"]
    notes += folder.mend_json("environment.json", then, lambda: made_with(folder))
    notes += folder.mend_json("data.json", describe_data(job))
    size, more = mend_log(folder.path, state["record"]["metrics"], progress.step)
    return Restored(progress, size, notes + more, checkpoint)


def epoch_batches(job: Job, epoch: int, start: int) -> Iterator[Batch]:
    """This process's micro-batches of an epoch from index `start` on."""
    batches = job.task.train_batches(job, epoch, own_micro_batches(job.plan, start))
    return feed_batches(batches, job.speed, job.precision.device)


def split_batches(job: Job, split: str) -> Iterator[Batch]:
    """All rows of a split once, for evaluation; of several processes this one's share of them."""
    give(job, ("pass", split))
    note(f"an evaluation of the {split} rows")
    batches = job.task.split_batches(job, split)
    return feed_batches(batches, job.speed, job.precision.device)


def note_evaluation(
    progress: Progress, metric: str, metrics: dict[str, Any], patience: int | None
) -> bool:
    """Update the best and the early-stopping counter; True where this is the best so far.

    Of equal accuracies, common on few rows, the one with the lower loss is the better.
    """
    sign = 1 if metric in LESS_IS_BETTER else -1
    now = (sign * metrics[metric], metrics["loss"])  # the smaller, the better
    better = not any(map(math.isnan, now))
    if better and progress.best_value is not None and progress.best_loss is not None:
        better = now < (sign * progress.best_value, progress.best_loss)
    if better:
        progress.best_step, progress.best_value = progress.step, metrics[metric]
        progress.best_loss, progress.without_improvement = metrics["loss"], 0
    else:
        progress.without_improvement += 1
    progress.stopped_early |= patience is not None and progress.without_improvement >= patience
    return better


def validate(job: Job, progress: Progress, stop: StopRequest) -> tuple[dict[str, Any], bool]:
    """The figures of the validation rows, and whether they are the best so far, which `progress`
    notes. Raises Stopped where the run is asked to end meanwhile."""
    with ready(job.placed):
        metrics = job.task.evaluate(job, stop.guard(split_batches(job, "validation")))
    return metrics, note_evaluation(progress, job.metric, metrics, job.config.eval.patience)


def train(
    job: Job, folder: Folder, progress: Progress, tracker: Tracker, stop: StopRequest
) -> None:
    """Run the job's fit() with its data, evaluation and checkpoints."""
    model, config = job.built.model, job.config
    record = make_record(job)

    def on_step(result: StepResult, after: Progress, rate: float) -> None:
        tracker.log_step(result, after, rate)
        end_in_time(job, progress)

    def run_evaluation(progress: Progress) -> None:
        if "validation" not in job.encoded:
            return
        metrics, best = validate(job, progress, stop)
        tracker.log_evaluation(progress.step, "eval", metrics)
        job.task.log(job, tracker, progress.step, metrics)
        line = job.task.line("validation", progress.step, metrics, job.metric)
        tracker.say(line + (" — best so far" if best else ""))

    def save(progress: Progress) -> None:
        meet_after(progress)
        if not folder.config.exists():
            raise ValueError(
                f"{folder.path} is gone: it was moved or deleted while the run trained. Nothing is "
                f"saved of step {progress.step}"
            )
        save_checkpoint(
            folder.checkpoints, model, job.optimizer, job.scaler, progress, config.run.keep,
            {**record, "metrics": tracker.mark()}, config.parallel.gathered_gib * 2**30,
        )  # fmt: skip
        tracker.restart_clock()

    def batches(epoch: int, start: int) -> Iterator[Batch]:
        tracker.restart_clock()
        return epoch_batches(job, epoch, start)

    try:
        with explained(memory_advice(config)):
            job.fit(
                model, batches, through(job.placed, job.compute_loss), count_items, job.optimizer,
                job.scaler, job.schedule, job.precision, job.plan, progress,
                on_step, run_evaluation, save, stop,
            )  # fmt: skip
    except NonFiniteError as error:
        raise with_rows(job, error) from error
    if job.data.stream is not None and (lines := job.data.stream.taker.lines()):
        tracker.say("of the rows that streamed: " + "; ".join(lines))
    if job.speed.compilations is not None:
        tracker.say(job.speed.compilations.line())


def end_in_time(job: Job, progress: Progress) -> None:
    """Let the training end after this step where its time is over; what it has is evaluated."""
    over = job.until is not None and time.monotonic() > job.until
    if over and progress.step >= job.least_steps:
        progress.stopped_early = True


def meet_after(progress: Progress) -> None:
    """Before a checkpoint is published: all processes are there, after the same step."""
    note(f"saving step {progress.step}")
    steps = gather(progress.step)
    assert len(set(steps)) == 1, f"ranks after steps {steps}"


def with_rows(job: Job, error: NonFiniteError) -> ValueError:
    """The error of a loss that is no number with the rows of its step, whoever says it."""
    return ValueError(f"{error}\n{describe_rows(job, error.rows)}")


def describe_rows(job: Job, rows: list[int]) -> str:
    """Address and beginning of each training row."""
    if job.data.stream is not None:
        shown = job.data.stream.find(rows)
        return "\n".join(f"  {row['address']}: {job.task.show_row(row)[:80]}" for row in shown)
    split, wanted = job.data.splits["train"], set(rows)
    lines = [
        f"  {split[i]['address']}: {job.task.show_row(split[i])[:80]}"
        for i, row in enumerate(split["row"])
        if row in wanted
    ]
    return "\n".join(lines)


def load_best(job: Job, folder: Folder, progress: Progress) -> str:
    """Put the best checkpoint's weights into the model; says which weights it holds now."""
    if progress.best_step is None:
        return f"the last weights (step {progress.step}; there was no evaluation to choose by)"
    if progress.best_step != progress.step:
        load_weights(best_folder(folder.checkpoints, progress.best_step), job.built.model)
    assert progress.best_value is not None
    value = show_figure(job.metric, progress.best_value)
    return f"the best weights on validation (step {progress.best_step}, {job.metric} {value})"
