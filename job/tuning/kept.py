"""Trials on all rows: runs that wait for their test, so that the winner is trained once."""

import io
import time
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from configs.read import write_config
from configs.schema import Config
from engine.plan import Progress
from engine.stop import StopRequest
from files.publish import remove
from job.fit import load_best
from job.folder import run_folder
from job.job import Job
from job.tuning.best import ranked
from job.tuning.plan import FEWEST_STEPS
from job.tuning.planned import Planned
from job.tuning.record import Record
from job.tuning.space import change
from job.tuning.trial import Train, Trained, look, no_figure

ENDING = "-tuned"  # of the name of the run in full


def full_config(planned: Planned, settings: dict[str, str]) -> Config:
    """The recipe of a run in full, under the name that the winner has."""
    return change(planned.base, settings, planned.base.run.name + ENDING)


def kept_in(config: Config, record: Record, number: int) -> Config:
    """The same recipe with its run in the folder of a trial, within the search's own."""
    folder = trial_folder(record, number)
    run = config.run.model_copy(update={"dir": str(folder)})
    return config.model_copy(update={"run": run})


def trial_folder(record: Record, number: int) -> Path:
    """Where the run of a trial waits for its test."""
    return record.path.with_name(f"trial-{number}")


def train_kept(config: Config, train: Train, stop: StopRequest, until: float) -> Trained:
    """Train a run up to its test, or on from where it stopped, and look at the validation rows with
    its best weights. `until`: the moment on time.monotonic() at which training ends, wherever it
    stands. Raises Stopped where it was asked to end, which is saved; ValueError where it fails.
    """
    start, jobs = time.perf_counter(), list[Job]()
    opened = start

    def ready(job: Job) -> None:
        nonlocal opened
        stop.check()  # while it was opened; from now on the run listens itself
        job.pauses, job.until, job.least_steps = True, until, FEWEST_STEPS
        jobs.append(job)
        opened = time.perf_counter()

    try:
        with redirect_stdout(io.StringIO()):
            result = train(config, ready, True)
    except SystemExit as end:
        stop.signal = int(end.code or 0) - 128
        stop.check()
    (job,) = jobs
    progress = Progress(**result["progress"])
    if progress.best_value is None or progress.best_loss is None:
        raise no_figure(job)
    trained = time.perf_counter()
    load_best(job, run_folder(config), progress)
    rows = look(job, stop)[1].tolist()
    return Trained(
        job.metric, progress.best_value, progress.best_loss, rows, progress.step,
        opened - start, trained - opened, time.perf_counter() - trained, 1, job.estimate,
        out_of_time(config, result["progress"], job.plan.total_steps),
    )  # fmt: skip


def out_of_time(config: Config, progress: dict[str, Any], total: int) -> bool:
    """Whether a training ended before its `total` steps because its time was over, not for want of
    anything better."""
    patience = config.eval.patience
    tired = patience is not None and progress["without_improvement"] >= patience
    return progress["stopped_early"] and progress["step"] < total and not tired


def keep_best(record: Record, rung: int) -> None:
    """Remove all runs that wait but one, since weights and optimizer states take space: that of the
    best trial, or the recipe's where it has no figure, since then nothing else counts."""
    order = [line["trial"] for line in ranked(record, rung)]
    if 0 not in order:
        order = [0]
    for path in record.path.parent.glob("trial-*"):
        if path != trial_folder(record, order[0]):
            remove(path)


def waits(config: Config, record: Record, number: int) -> bool:
    """Whether a run of this recipe waits in the folder of a trial."""
    return run_folder(kept_in(config, record, number)).config.exists()


def move_kept(config: Config, record: Record, number: int) -> None:
    """Put the run of a trial where the winner's belongs."""
    source = run_folder(kept_in(config, record, number))
    write_config(config, source.config)  # it says where the run is
    source.path.rename(run_folder(config).path)
    remove(source.path.parent)
