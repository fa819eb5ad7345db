"""A prepared job from its first step, or where it stopped, to its result."""

import time
from typing import Any

from engine.plan import Progress
from engine.stop import Stopped, stop_on_signals
from engine.tracker import Tracker
from engine.world import world
from job.finish import finish
from job.fit import Restored, describe_data, describe_environment, restore, train
from job.folder import Folder
from job.job import Job
from job.orders import give, nobody_leads, spread_state
from job.parallel.place import come_apart


def train_and_finish(job: Job, folder: Folder, command: str, allow_drift: bool) -> dict[str, Any]:
    """Restore, show the samples, fit, test, export; the run's result. Of one that pauses before its
    test that is its progress alone.

    Raises SystemExit(143, 130 or 129) when stopped; what was done is saved.
    """
    job.leads, progress = not world().alone, Progress()
    restored = Restored(progress, 0, [])
    if job.resume:
        restored = restore(job, folder, allow_drift)
        print("".join(line + "\n" for line in restored.notes), end="")
    progress = restored.progress
    if progress.step == 0:
        folder.write_json("environment.json", describe_environment(job))
        folder.write_json("data.json", describe_data(job))
    resumed = progress.step > 0
    job.task.begin(job, None if resumed or job.in_parts else folder)
    tracker = Tracker(
        folder.path,
        progress.step,
        job.plan.total_steps,
        job.config.run.log_every,
        restored.metrics_bytes,
    )
    tracker.bar.leave = not job.pauses
    start = time.perf_counter()
    give(job, ("train", None))
    spread_state(job, progress, restored.checkpoint)
    try:
        with stop_on_signals() as stop:
            with nobody_leads(job):
                train(job, folder, progress, tracker, stop)
            try:
                stop.check()
                if job.pauses:
                    give(job, ("end", None))
                    return {"progress": vars(progress)}
                come_apart(job, folder, progress)
                begun = None if resumed else start
                result = finish(job, folder, progress, tracker, command, begun, stop)
                stop.check()
                give(job, ("end", None))
                return result
            except Stopped as stopped:
                stop.signal = stopped.signal
            give(job, ("end", stop.signal))
            tracker.say(
                f"stopped at step {progress.step}, saved; go on with --resume "
                "(in Python resume=True)"
            )
            raise SystemExit(stop.exit_code)
    finally:
        tracker.close()
