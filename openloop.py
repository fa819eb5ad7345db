"""openloop from Python: train with a part of your own, use what was trained.

    from openloop import load_run, open_job, read_config, run_job

    job = open_job(read_config("configs/imdb_quick.toml", ["run.name=mine"]))
    job.compute_loss = my_loss  # (model, batch) -> the sum over the batch's rows
    run_job(job)
    print(load_run("runs/mine")(["It was good."])[0].label)

docs/extend.md says what can be replaced where; examples/ has programs that do. train.py and
predict.py are the command lines of the same functions. Nothing heavy is imported before it is used.
"""

import gc
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

PACKAGES = ("configs", "data", "engine", "files", "job", "models", "report")


def check_packages() -> None:
    """Raise ImportError where Python finds a package of another project by the name of one of ours:
    our modules would import from it, and fail somewhere or do something else."""
    here = Path(__file__).resolve().parent
    for name in PACKAGES:
        spec = find_spec(name)
        folders = list(spec.submodule_search_locations or ()) if spec else []
        if folders and Path(folders[0]).resolve() == here / name:
            continue
        other = folders[0] if folders else spec.origin if spec else "nowhere"
        raise ImportError(
            f"openloop needs its package {name!r} in {here / name}, but Python finds {other}. One "
            "process can have one package of a name: rename the other one, or, where your program "
            f"does not use it, begin with  import sys; sys.path.insert(0, {str(here)!r})"
        )


check_packages()  # before the first import from one of them

from configs.read import read_config  # noqa: E402
from engine.wait_policy import wait_passively  # noqa: E402

if TYPE_CHECKING:
    from configs.schema import Config
    from job.job import Job
    from job.predicting.predictor import Predictor
    from report.plan import Plan

__all__ = ["load_run", "open_job", "read_config", "run_job"]


def set_up_environment() -> None:
    """Quiet libraries, threads that sleep while they wait. HF_HUB_OFFLINE stays as it is: a local
    source leaves the network alone without it, and it would hold for the next job too."""
    wait_passively()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


@contextmanager
def garbage_left_alone() -> Iterator[None]:
    """For imports: they make a million objects that all stay. Looking through them for garbage,
    again and again, takes a second of a start and finds none; afterwards nobody does any more."""
    if "job.job" in sys.modules or not gc.isenabled():
        yield  # nothing heavy is left to import, and no garbage may be frozen with it
        return
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        gc.enable()


def open_job(
    config: "Config",
    *,
    resume: bool = False,
    fresh: bool = False,
    allow_code: bool = False,
    verbose: bool = False,
    shown: "Plan | None" = None,
) -> "Job":
    """A run that is ready for step 1, its plan printed: all of it, or where another one was `shown`
    what differs from that. Nothing is written yet. What is a field of Job can be replaced before
    run_job takes it.

    `resume` goes on where a run of this name stopped, `fresh` starts again and keeps the old one;
    `allow_code` runs a head, a method or a loss from its own file.
    Raises ValueError with all that is wrong.
    """
    if resume and fresh:
        raise ValueError("resume goes on, fresh starts again: one of them")
    set_up_environment()
    with garbage_left_alone():
        from engine.signs import note
        from job.folder import run_folder
        from job.meeting import agreed_dtype, check_together, meet
        from job.reporting.banner import make_plan
        from job.tasks.table import prepare, task_of
        from report.plan import difference_lines, plan_lines

        task_of(config).libraries()

    note("loading data and model")
    if shown is None:
        print("loading data and model …", flush=True)
    folder = run_folder(config)
    meet(config)
    job = prepare(config, allow_code, agreed_dtype(config, folder, resume))
    check_together(job)
    job.resume, job.fresh = resume, fresh
    job.banner = make_plan(job, folder)
    lines = (
        difference_lines(job.banner, shown, verbose) if shown else plan_lines(job.banner, verbose)
    )
    print("\n".join(lines), flush=True)
    return job


def run_job(job: "Job", *, allow_drift: bool = False, command: str | None = None) -> dict[str, Any]:
    """Train, test and export what open_job made; its result, as result.json holds it.

    `command` is what the run card repeats the run with, by default the line that started this
    program. `allow_drift` resumes although versions, threads or data changed. Raises ValueError
    where the run's folder is in the way, SystemExit(143, 130 or 129) when stopped, which is saved.
    """
    from engine.storage import hold_run
    from engine.world import from_first, leave, world
    from files.errors import placed
    from job.folder import open_folder, run_folder
    from job.follow import follow
    from job.run import train_and_finish
    from job.training.probe import check_loss

    folder = run_folder(job.config)
    notes = check_loss(job)
    if command is None:
        command = shlex.join(["python", *sys.orig_argv[1:]])
    result: dict[str, Any] = {}
    if world().rank:
        follow(job)
    else:
        with hold_run(folder.path), placed(folder.path):
            notes += open_folder(job.config, folder, job.resume, job.fresh)
            print("".join(line + "\n" for line in notes), end="")
            result = train_and_finish(job, folder, command, allow_drift)
    result = from_first(result)
    leave()  # the next run of this process may be spread in another way
    return result


def load_run(
    run: str | Path,
    device: str | None = None,
    allow_code: bool = False,
    base: str | Path | None = None,
    verbose: bool = False,
    allow_drift: bool = False,
    allow_network: bool = False,
) -> "Predictor":
    """The model of a finished run, ready to be called with a list of texts (or of pairs of texts).

    Each text gives a Prediction: `label`, `probability`, `probabilities` by label name, calibrated
    on the run's validation rows, and `unsure`, where the run was asked for it. `decide(unsure=0.9)`
    gives a predictor that decides otherwise, `explain(text)` the words that an answer rests on
    (docs/decisions.md). `base` says
    where the base model of the run's adapter is now, if it has moved; a hub is asked for it only
    with `allow_network`. Raises ValueError where `run` is no finished run, where one of its files
    is not as the training left it (`allow_drift` goes on with it and says so), and where the base
    is gone or another. One line on standard error says which run answers; `verbose` adds kernels,
    threads and fast paths.
    """
    verify_run(run, allow_drift)
    return open_run(run, device, allow_code, base, verbose, allow_network)


def verify_run(run: str | Path, allow_drift: bool) -> None:
    """Raise ValueError where a run's files are not as its training left them; with `allow_drift`
    only say so."""
    from job.folder import Folder
    from job.verify import check_run

    for note in check_run(Folder(Path(run)), allow_drift):
        print(f"openloop: {note}", file=sys.stderr)


def open_run(
    run: str | Path, device: str | None, allow_code: bool, base: str | Path | None, verbose: bool,
    allow_network: bool,
) -> "Predictor":  # fmt: skip
    """The model of a run that verify_run has passed."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    wait_passively()
    from job.tasks.load import load_predictor

    return load_predictor(run, device, allow_code, base, verbose, allow_network)
