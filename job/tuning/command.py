"""tune.py: a search from its first line to its run, told as it goes."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.read import difference, trajectory
from configs.schema import Config
from engine.stop import Stopped, stop_on_signals
from engine.storage import hold_run
from engine.world import started
from files.publish import set_aside
from files.write import save_text
from job.extras import need_extra
from job.folder import run_folder
from job.tasks.table import task_of
from job.tuning.final import recipe_path, train_winner
from job.tuning.grid import read_grid, run_grid
from job.tuning.kept import ENDING
from job.tuning.page import write_page
from job.tuning.planned import Clock, Wanted
from job.tuning.rates import rate_test
from job.tuning.record import NAME, Line, Record, read_record
from job.tuning.search import pace, search
from job.tuning.show import Console, conclusion
from job.tuning.trial import Train
from report.format import format_seconds
from report.rates import rates_lines, rates_svg

RATES = "-rates.svg"  # of the curve of --lr-range
FOLDER = "-tune"  # of the search's folder, after the run's name


def refuse(config: Config, sampler: str) -> None:
    """Raise ValueError for what a search cannot do, with the reason."""
    if (why := task_of(config).why_no_search()) is not None:
        raise ValueError(f"{why}; train a grid of it: --grid train.lr=1e-4,3e-4")
    for section, why in (
        ("distill", "its teacher answers each training row once, which takes longer than a trial"),
        ("contrast", "its epochs are of pairs that are drawn, not of rows"),
    ):
        if getattr(config, section) is not None:
            raise ValueError(f"tune.py does not search recipes with [{section}]: {why}")
    if config.data.stream:
        raise ValueError(
            "tune.py takes parts of the training rows, and with data.stream none are kept; give it "
            "fewer files in data.source, without data.stream"
        )
    if not started().alone:
        raise ValueError("tune.py is for one process: leave torchrun out")
    if sampler == "tpe":
        need_extra("tune", "tune.py --sampler tpe")


@dataclass(frozen=True)
class Begin:
    """Whether a search goes on, or starts anew and keeps the old one aside."""

    resume: bool
    fresh: bool


def search_folder(config: Config) -> Path:
    """Where a search of a recipe is recorded."""
    return run_folder(config).path.with_name(config.run.name + FOLDER)


def open_record(wanted: Wanted, seconds: float, begin: Begin) -> Record:
    """The record of a search, new or to go on with. Raises ValueError where one is there and
    neither was asked for, or where another search was."""
    folder = search_folder(wanted.config)
    path = folder / NAME
    request: dict[str, Any] = {
        "recipe": trajectory(wanted.config), "seconds": seconds, "seed": wanted.seed,
        "sampler": wanted.sampler, "space": list(wanted.words),
    }  # fmt: skip
    run = run_folder(wanted.config).path.with_name(wanted.config.run.name + ENDING)
    if begin.fresh:
        keep_aside(folder, run)
    if path.exists():
        if not begin.resume:
            raise ValueError(
                f"{folder} holds a search; go on with it by --resume, or start again by --fresh, "
                "which keeps it aside"
            )
        record = read_record(path)
        if lines := differing(record.lines[0], request):
            raise ValueError(
                f"{path} is a search for something else:\n  " + "\n  ".join(lines) + "\n"
                "Ask for the same, or start again with --fresh"
            )
        return record
    if run.exists():
        raise ValueError(
            f"{run}, where the winner would be, is there already; choose another run.name, or keep "
            "it aside with --fresh"
        )
    folder.mkdir(parents=True, exist_ok=True)
    record = Record(path)
    record.add("search", **request)
    return record


def keep_aside(folder: Path, run: Path) -> None:
    """Rename an earlier search and its run, before anything that goes on could take them for its
    own. Raises ValueError where another process holds the run."""
    if folder.exists():
        print(f"the earlier search is kept as {set_aside(folder, 'old')}")
    if run.exists():
        with hold_run(run):
            print(f"its run is kept as {set_aside(run, 'old')}")


def differing(before: Line, request: dict[str, Any]) -> list[str]:
    """What is asked for otherwise than before, a line each."""
    lines = difference(before["recipe"], request["recipe"])
    return lines + [
        f"{key}: {before[key]} -> {request[key]}"
        for key in ("seconds", "seed", "sampler", "space")
        if before[key] != request[key]
    ]


def tune(wanted: Wanted, minutes: float, begun: float, begin: Begin) -> dict[str, Any]:
    """Search, take the winner's run to its end, write the page; the run's result. `begun` is when
    the time began, on time.monotonic(). Raises SystemExit(143, 130 or 129) where it was asked to
    stop."""
    refuse(wanted.config, wanted.sampler)
    folder = search_folder(wanted.config)
    with hold_run(folder):
        record = open_record(wanted, 60 * minutes, begin)
        clock = Clock(60 * minutes, begun, record.spent)
        console = Console(record)
        with stop_on_signals() as stop:
            if record.last("plan") is None:
                print("measuring the recipe on this machine as it is now …", flush=True)
            try:
                planned, winner = search(
                    wanted, record, clock, stop, console.trial,
                    lambda planned: console.plan(planned, clock),
                )  # fmt: skip
            except Stopped:
                print("stopped; what is done is kept, go on with --resume", file=sys.stderr)
                raise SystemExit(stop.exit_code) from None
        print("\n".join(conclusion(record, winner)), flush=True)
        if (done := record.last("done")) is not None:
            print(f"finished already: {done['run']}\nsearch: {write_page(record, planned, folder)}")
            return {}
        config, result = train_winner(
            planned, record, winner, clock, pace(record, planned), wanted.train
        )
        page = write_page(record, planned, folder)
    print(f"search: {page}")
    print(f"recipe: {recipe_path(config)}")
    print(f"{format_seconds(clock.spent)} of {format_seconds(clock.seconds)}")
    return result


def train_grid(config: Config, words: Sequence[str], begin: Begin, train: Train) -> None:
    """A run in full for each combination, then all of them side by side."""
    from job.reporting.compare import list_lines, open_all

    if not started().alone:
        raise ValueError("--grid is for one process: leave torchrun out")
    folders = run_grid(config, read_grid(words), begin.resume, begin.fresh, train)
    runs, _ = open_all(folders)
    print("\n".join(["", *list_lines(runs)]))


def show_rates(config: Config, allow_code: bool) -> None:
    """The learning-rate range test: a table, a range, and the curve beside the runs."""
    refuse(config, "random")
    path = run_folder(config).path.with_name(config.run.name + RATES)
    with stop_on_signals() as stop:
        try:
            curve = rate_test(config, allow_code, stop)
        except Stopped:
            raise SystemExit(stop.exit_code) from None
    if not curve.rates:
        raise ValueError("the very first step came to no number: look at the rows, or use fp32")
    path.parent.mkdir(parents=True, exist_ok=True)
    save_text(path, rates_svg(curve.rates, curve.losses, curve.smoothed))
    print("\n".join(rates_lines(curve.rates, curve.smoothed, curve.low, curve.high, curve.broken)))
    print(f"the curve: {path}")
