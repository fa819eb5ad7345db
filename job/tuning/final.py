"""The winner's run, an ordinary one, to its end; its recipe beside it."""

import time
from pathlib import Path
from typing import Any

from configs.read import write_config
from configs.schema import Config
from job.folder import run_folder
from job.job import Job
from job.prepare import plan_steps
from job.tuning.kept import full_config, move_kept, out_of_time, waits
from job.tuning.plan import FEWEST_STEPS
from job.tuning.planned import Clock, Planned
from job.tuning.record import Line, Record
from job.tuning.search import trial_line
from job.tuning.trial import Train

OPENED = 0.4  # share of what is no step that an opening takes
MARGIN = 1.1  # times what a run is expected to take


def final_config(planned: Planned, winner: Line, steps: int | None) -> Config:
    """The winner's recipe under its name; `steps` where fewer have to do."""
    config = full_config(planned, winner["settings"])
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


def train_winner(
    planned: Planned, record: Record, winner: Line, clock: Clock, scale: float, train: Train
) -> tuple[Config, dict[str, Any]]:
    """Test and export the winner's run; its recipe and its result. Where no run waits, it is
    trained here: after a whole schedule over the steps that fit its training ends, and wherever it
    stands where even these do not end in time."""
    config, line = full_config(planned, winner["settings"]), record.last("final")
    kept = waits(config, record, winner["trial"])
    if line is None:
        total = plan_steps(config, planned.rows).total_steps
        steps = fitting_steps(planned, record, winner, clock.left, total, scale)
        line = record.add("final", steps=None if kept else steps, total=total, spent=clock.spent)
    if kept:
        move_kept(config, record, winner["trial"])
    config = final_config(planned, winner, line["steps"])
    write_config(config, recipe_path(config))

    def end_in_time(job: Job) -> None:
        rest = (1 - OPENED) * planned.closing * scale  # the opening is behind us
        job.until = time.monotonic() + max(0.0, clock.left - rest)
        job.least_steps = FEWEST_STEPS

    result = train(config, end_in_time, kept)
    if out_of_time(config, result["progress"], line["steps"] or line["total"]):
        print(
            f"WARNING: the time was over at step {result['progress']['step']}, and the training "
            "ended there, before its rate had come down: this machine became slower"
        )
    record.add("done", run=str(run_folder(config).path), spent=clock.spent)
    return config, result
