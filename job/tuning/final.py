"""The winner in full: an ordinary run, which predict.py opens, and its recipe beside it."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from configs.read import write_config
from configs.schema import Config
from job.folder import run_folder
from job.job import Job
from job.prepare import plan_steps
from job.tuning.plan import FEWEST_STEPS
from job.tuning.planned import Clock, Planned
from job.tuning.record import Line, Record
from job.tuning.search import trial_line
from job.tuning.space import change

# trains a recipe in full; what it is given beside it sees the job before its first step
Train = Callable[[Config, Callable[[Job], None]], dict[str, Any]]
ENDING = "-tuned"  # of the run's name
OPENED = 0.4  # share of what is no step that an opening takes
MARGIN = 1.1  # times what a run is expected to take


def final_config(planned: Planned, winner: Line, steps: int | None) -> Config:
    """The winner's recipe under its name; `steps` where fewer have to do."""
    config = change(planned.base, winner["settings"], planned.base.run.name + ENDING)
    if steps is None:
        return config
    tables = config.model_dump(exclude_none=True)
    tables["train"]["max_steps"] = steps
    return Config.model_validate(tables)


def recipe_path(config: Config) -> Path:
    """Where the winner's recipe is written: beside its run."""
    return Path(config.run.dir).expanduser() / f"{config.run.name}.toml"


def ratio(record: Record, winner: Line) -> float:
    """Seconds of the winner's trial over those of the recipe's, on the same rows."""
    if winner["rung"] is None or winner["trial"] == 0:
        return 1.0
    own, other = (trial_line(record, winner["rung"], n) for n in (0, winner["trial"]))
    if own is None or other is None or not own["training"]:
        return 1.0
    return other["training"] / own["training"]


def fitting_steps(
    planned: Planned, record: Record, winner: Line, left: float, total: int, scale: float
) -> int | None:
    """Steps that fit the seconds that are left, None where all do: a whole schedule over fewer of
    them, planned before the first rather than cut off."""
    training = (planned.final - planned.closing) * ratio(record, winner) * scale
    room = left - planned.closing * scale
    if MARGIN * training <= room:
        return None
    return max(min(total, FEWEST_STEPS), int(total * max(0.0, room) / (MARGIN * training)))


def out_of_time(config: Config, result: dict[str, Any], total: int) -> bool:
    """Whether a training ended before its `total` steps because its time was over, not for want of
    anything better."""
    progress, patience = result["progress"], config.eval.patience
    tired = patience is not None and progress["without_improvement"] >= patience
    return progress["stopped_early"] and progress["step"] < total and not tired


def train_winner(
    planned: Planned, record: Record, winner: Line, clock: Clock, scale: float, train: Train
) -> tuple[Config, dict[str, Any]]:
    """Train, test and export it; its recipe and its result. The training ends after a whole
    schedule over the steps that fit, and wherever it stands where even these do not end in time."""
    line = record.last("final")
    if line is None:
        total = plan_steps(final_config(planned, winner, None), planned.rows).total_steps
        steps = fitting_steps(planned, record, winner, clock.left, total, scale)
        line = record.add("final", steps=steps, total=total, spent=clock.spent)
    config = final_config(planned, winner, line["steps"])
    write_config(config, recipe_path(config))

    def end_in_time(job: Job) -> None:
        rest = (1 - OPENED) * planned.closing * scale  # the opening is behind us
        job.until = time.monotonic() + max(0.0, clock.left - rest)
        job.least_steps = FEWEST_STEPS

    result = train(config, end_in_time)
    if out_of_time(config, result, line["steps"] or line["total"]):
        print(
            f"WARNING: the time was over at step {result['progress']['step']}, and the training "
            "ended there, before its rate had come down: this machine became slower"
        )
    record.add("done", run=str(run_folder(config).path), spent=clock.spent)
    return config, result
