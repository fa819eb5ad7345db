"""Which trial is best, and how sure that is."""

import math
from collections.abc import Sequence

import numpy as np

from engine.intervals import Interval, paired_interval
from job.tuning.record import Line, Record
from report.compare import LESS_IS_BETTER


def score_of(line: Line) -> tuple[float, float] | None:
    """What is best is smallest: the deciding figure, turned round where more is better, then the
    loss. None of a trial that failed."""
    if "value" not in line:
        return None
    sign = 1 if line["metric"] in LESS_IS_BETTER else -1
    loss = line["loss"]  # JSON has no infinity
    return sign * line["value"], math.inf if loss is None else loss


def ranked(record: Record, rung: int) -> list[Line]:
    """The trials of a rung that came to a figure, the best first; of equals the earlier one, so
    that the recipe is left only for what is better."""
    lines = [line for line in record.of("trial") if line["rung"] == rung and "value" in line]
    return sorted(lines, key=lambda line: (score_of(line), line["trial"]))


def last_rung(record: Record) -> int | None:
    """The highest rung in which two trials came to a figure; None where there is none."""
    rungs = {line["rung"] for line in record.of("trial")}
    return max((rung for rung in rungs if len(ranked(record, rung)) > 1), default=None)


def finalists(record: Record) -> list[Line]:
    """The trials that the winner is chosen from, the best first: those of last_rung(), without what
    failed in a later one. Empty where nothing was compared."""
    rung = last_rung(record)
    if rung is None:
        return []
    later = [line for line in record.of("trial") if line["rung"] > rung]
    failed = {line["trial"] for line in later if "failed" in line and not line.get("late")}
    return [line for line in ranked(record, rung) if line["trial"] not in failed]


def judged_by(lines: Sequence[Line]) -> str:
    """The figure in which trials are held against each other row by row, whichever one decides."""
    return "rmse" if lines and lines[0]["numbers"] else "accuracy"


def behind(lines: Sequence[Line]) -> list[Interval]:
    """How far each trial of a rung is behind the first one, with its 95 % interval over the rows
    that judged both: accuracy, or of numbers the rmse."""
    first = np.array(lines[0]["right"], dtype=float)
    root = lines[0]["numbers"]
    return [
        paired_interval(np.array(line["right"], dtype=float), first, root=root) for line in lines
    ]


def to_recipe(lines: Sequence[Line]) -> Interval | None:
    """How far the recipe is behind the first of the finalists; None where that is the recipe."""
    own = next((line for line in lines[1:] if not line["trial"]), None)
    return None if own is None else behind([lines[0], own])[1]


def choose(record: Record, rows: int, spent: float) -> Line:
    """The winner's line, written: the best of the finalists where both it and the recipe were
    trained on all `rows`, within noise too, since nothing speaks more for another one than its
    figure does. Else the recipe: what is ahead on fewer rows may be behind on all of them."""
    lines = finalists(record)
    if lines and lines[0]["rows"] < rows:
        lines = [line for line in lines if not line["trial"]]
    recipe: Line = {"trial": 0, "rung": None, "settings": {}}
    best = next(iter(lines), recipe)
    return record.add(
        "winner", trial=best["trial"], rung=best["rung"], settings=best["settings"], spent=spent
    )
