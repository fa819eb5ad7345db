"""A search on the console, as it goes."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from tqdm import tqdm

from configs.read import difference, trajectory
from engine.intervals import Interval
from engine.loop import StepResult
from job.job import Job
from job.tuning.best import behind, finalists, judged_by, ranked, to_recipe
from job.tuning.planned import Clock, Planned
from job.tuning.record import Line, Record
from report.evaluation import show_figure
from report.tune import (
    Tried,
    head_line,
    noise_line,
    plan_lines,
    ranking,
    recipe_line,
    show_settings,
    stays_line,
    tried_line,
)


@contextmanager
def progress_bar(number: int) -> Iterator[Callable[[StepResult, Job], None]]:
    """On a terminal the trial under way stands below the table, and is gone when it is over; what
    this gives is called after each of its steps."""
    live = sys.stdout.isatty()
    with tqdm(unit="step", desc=f"trial {number}", leave=False, disable=not live) as bar:

        def on_step(result: StepResult, job: Job) -> None:
            bar.total = job.plan.total_steps
            bar.set_postfix_str(f"loss {result.loss:.4f}", refresh=False)
            bar.update()

        yield on_step


class Console:
    """The table as it grows."""

    def __init__(self, record: Record) -> None:
        self.record, self.rung = record, -1

    def plan(self, planned: Planned, clock: Clock) -> None:
        """What is going to happen."""
        config = self.record.lines[0]["recipe"]
        changed = difference(config, trajectory(planned.base))
        if changed:
            print("the recipe takes longer than there is, so it is trained with:")
            print("".join(f"  {line}\n" for line in changed), end="")
        rungs = [(rung.trials, rung.rows, rung.validation) for rung in planned.rungs]
        trials = sum(r.trials * c for r, c in zip(planned.rungs, planned.costs, strict=True))
        rest, two = planned.closing if rungs else planned.final, 2 * planned.final - planned.closing
        print("\n".join(plan_lines(rungs, trials, rest, clock.left, two)), flush=True)
        if planned.rungs:
            print("space: " + ", ".join(dimension.words for dimension in planned.space), flush=True)

    def trial(self, line: Line, planned: Planned) -> None:
        """A trial that is done."""
        if line["rung"] != self.rung:
            self.rung = line["rung"]
            rung = planned.rungs[self.rung]
            full = ", in full" * planned.in_full(rung)
            print(f"\n{rung.trials} settings on {rung.rows:,} rows{full}")
            print(head_line(str(line.get("metric", "figure"))), flush=True)
        print(tried_line(tried_of(line)), flush=True)


def tried_of(line: Line) -> Tried:
    """A trial as the report shows it."""
    figure = show_figure(line["metric"], line["value"]) if "value" in line else ""
    return Tried(
        line["trial"], line["rung"], line["rows"], line["validation"], line["seconds"], figure,
        line["settings"], line.get("failed", ""),
    )  # fmt: skip


def conclusion(record: Record, winner: Line) -> list[str]:
    """The finalists, the best first, and how sure that order is."""
    lines = finalists(record)
    if not lines:
        return ["no two trials were compared: the run in full is the recipe's, as it stands above"]
    apart, judged = behind(lines), judged_by(lines)
    shown = ranking([tried_of(line) for line in lines], apart, lines[0]["metric"], judged)
    notes = sureness(lines, apart, winner)
    if lines[0]["rung"]:
        first = ranked(record, 0)
        order = noise_line(behind(first), judged)
        notes.append(f"of the {len(first)} settings of the first rung {order}")
    return ["", *shown, *notes, winner_line(winner)]


def sureness(lines: Sequence[Line], apart: Sequence[Interval], winner: Line) -> list[str]:
    """How sure the order of the finalists is, and that the winner is better than the recipe, or why
    it is the recipe; `apart` is how far each is behind the first."""
    judged = judged_by(lines)
    notes = [noise_line(apart, judged)]
    if (own := to_recipe(lines)) is None:
        return notes
    if winner["trial"]:
        return [*notes, recipe_line(own, judged)]
    return [*notes, stays_line(lines[0]["trial"], lines[0]["rows"])]


def winner_line(winner: Line) -> str:
    return f"winner: trial {winner['trial']}: {show_settings(winner['settings'])}"
