"""What a run leaves when its training is done; result.json last."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from configs.read import trajectory
from engine.plan import Progress
from engine.signs import note
from engine.stop import StopRequest
from engine.tracker import Tracker
from files.publish import publish, remove
from files.write import save_text
from job.fit import load_best
from job.folder import Folder
from job.job import Job
from job.orders import give, spread_weights
from job.reporting.page import PAGE, write_page
from job.verify import list_files, seal
from models.build import source_state
from models.fast.frozen import restore_exact


@contextmanager
def publish_model(job: Job, folder: Folder) -> Iterator[Path]:
    """A folder to write the model into, which appears as `model/` when all of it is there. One left
    by an attempt that was killed before the end is replaced. Frozen weights that were rounded for
    the training are as the source has them."""
    if "frozen" in job.speed.resolved:
        exact = {} if job.distilled is None else job.distilled.exact
        exact = exact or source_state(job.model_args, job.tokenizer, job.built.base)
        restore_exact(job.built.model, exact)
    remove(folder.model)
    with publish(folder.model) as temporary:
        yield temporary


def show_page(folder: Folder, result: dict[str, Any], tracker: Tracker) -> None:
    """Write report.html, and say where it is. Nothing that goes wrong with it is a reason to lose a
    run by: files of the run may have been damaged meanwhile, memory may be short."""
    try:
        page = write_page(folder, result)
    except OSError:
        raise  # a full disk, which result.json would meet too
    except Exception as error:
        tracker.say(f"WARNING: no {PAGE}: {str(error) or type(error).__name__}")
    else:
        tracker.say(f"look at it: {page}")


def finish(
    job: Job, folder: Folder, progress: Progress, tracker: Tracker, command: str,
    begun: float | None, stop: StopRequest,
) -> dict[str, Any]:  # fmt: skip
    """Test once with the best weights, publish the model, write card and page; result.json last.

    `begun` is when training began on the clock of time.perf_counter, None for a resumed run, whose
    time cannot be told. Raises Stopped where it was asked to end before the model is written.
    """
    weights = load_best(job, folder, progress)
    give(job, ("weights", None))
    spread_weights(job)
    done = job.task.conclude(job, folder, progress, tracker, command, weights, begun, stop)
    note("writing what the run leaves")
    save_text(folder.path / "README.md", done.card)
    figures = {f"test/{k}": v for k, v in done.metrics.items() if isinstance(v, int | float)}
    tracker.log_hyperparameters(trajectory(job.config), figures)
    result = {
        "weights": weights,
        "progress": vars(progress),
        "test": done.metrics,
        **done.fields,
        "seconds": done.seconds,
        "peak": done.peak,
        "files": list_files(folder),
    }
    show_page(folder, result, tracker)
    folder.write_json("result.json", seal(result))
    tracker.say(f"ask it: {job.task.ask_command(job, folder)}")
    return result
