"""A prepared job from its first step, or where it stopped, to its result."""

import time
from contextlib import suppress
from typing import Any

from engine.plan import Progress
from engine.stop import Stopped, stop_on_signals
from engine.tracker import Tracker
from job.finish import finish
from job.fit import describe_data, describe_environment, restore, train
from job.folder import Folder
from job.job import Job


def train_and_finish(job: Job, folder: Folder, command: str, allow_drift: bool) -> dict[str, Any]:
    """Restore, show the samples, fit, test, export; the run's result.

    Raises SystemExit(143, 130 or 129) when stopped; what was done is saved.
    """
    progress = Progress()
    metrics_bytes: int | None = 0
    if job.resume:
        progress, metrics_bytes, notes = restore(job, folder, allow_drift)
        print("".join(line + "\n" for line in notes), end="")
    if progress.step == 0:
        folder.write_json("environment.json", describe_environment(job))
        folder.write_json("data.json", describe_data(job))
    resumed = progress.step > 0
    job.task.begin(job, folder, not resumed)
    tracker = Tracker(
        folder.path, progress.step, job.plan.total_steps, job.config.run.log_every, metrics_bytes
    )
    start = time.perf_counter()
    try:
        with stop_on_signals() as stop:
            train(job, folder, progress, tracker, stop)
            with suppress(Stopped):
                stop.check()
                begun = None if resumed else start
                result = finish(job, folder, progress, tracker, command, begun, stop)
                stop.check()
                return result
            tracker.say(
                f"stopped at step {progress.step}, saved; go on with --resume "
                "(in Python resume=True)"
            )
            raise SystemExit(stop.exit_code)
    finally:
        tracker.close()
