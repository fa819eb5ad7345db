"""The search itself: trials rung by rung, and the winner. What is decided is written into the
record before it is done, and a search that goes on takes it from there."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count

from data.prepare import Data
from engine.estimate import Estimate
from engine.memory import release_memory
from engine.stop import StopRequest
from files.errors import meets_limit
from job.tuning.best import choose, ranked, score_of
from job.tuning.kept import full_config, keep_best, kept_in, train_kept
from job.tuning.plan import grow, shrink
from job.tuning.planned import Clock, Planned, Wanted, make_plan, planned_of, write_plan
from job.tuning.record import Line, Record
from job.tuning.sample import draw_place
from job.tuning.show import progress_bar
from job.tuning.space import RATE, Place, change, settings_at
from job.tuning.trial import Trained, first_rows, open_pool, run_trial
from report.tune import show_settings

AGAIN = 50  # draws for a place that can be used and is new
AHEAD = 1.1  # times what is left, from which fewer trials are planned


Tell = Callable[[Line, Planned], None]


def search(
    wanted: Wanted, record: Record, clock: Clock, stop: StopRequest, tell: Tell,
    say: Callable[[Planned], None],
) -> tuple[Planned, Line]:  # fmt: skip
    """All trials, and the line of the winner. `tell` hears of each trial, `say` of the plan.
    Raises Stopped where it was asked to end; the trial under way is run again by the next search.
    """
    if (line := record.last("plan")) is None:
        planned, pool, needs = make_plan(wanted, record, clock, stop)
    else:
        planned = planned_of(line)
        pool, needs = None, None
    say(planned)
    if (winner := record.last("winner")) is not None:
        return planned, winner
    if planned.rungs and pool is None:
        pool = open_pool(planned.base)
    if planned.rungs:
        assert pool is not None
        planned = run_rungs(wanted, planned, pool, needs, record, clock, stop, tell)
    return planned, choose(record, planned.rows, clock.spent)


def run_rungs(
    wanted: Wanted, planned: Planned, pool: Data, needs: Estimate | None, record: Record,
    clock: Clock, stop: StopRequest, tell: Tell,
) -> Planned:  # fmt: skip
    """Run the trials that are in no line yet; the plan as it is then. Raises ValueError before the
    first one where no setting of a space makes a recipe."""
    if trial_line(record, 0, 0) is None:
        new_place(wanted, planned, record, 1)
    now = 0
    while now < len(planned.rungs):
        for done, number in enumerate(entrants(wanted, planned, record, now)):
            line = trial_line(record, now, number)
            if line is None:
                planned = keep_to_time(planned, record, clock, now, done)
                if now >= len(planned.rungs) or done >= planned.rungs[now].trials:
                    break
                line = one_trial(
                    wanted, planned, pool, needs, record, clock, stop, now, number
                )  # fmt: skip
            if line is None:  # all settings of a small space are tried
                rung = replace(planned.rungs[now], trials=done)
                rungs = [*planned.rungs[:now], rung, *planned.rungs[now + 1 :]]
                planned = replace(planned, rungs=rungs)
                write_plan(record, planned, clock)
                break
            tell(line, planned)
        now += 1
    return planned


def entrants(wanted: Wanted, planned: Planned, record: Record, rung: int) -> Iterator[int]:
    """The numbers of the settings of a rung, the recipe's own first; those of later rungs are the
    best of the one before. The last rung has all of them, for as long as there is time."""
    size = planned.rungs[rung]
    last, trials = planned.in_full(size), size.trials
    if rung == 0:
        return count() if last else iter(range(trials))
    best = [line["trial"] for line in ranked(record, rung - 1)]
    order = [0, *(number for number in best if number)]
    return iter(order if last else order[:trials])


def trial_line(record: Record, rung: int, number: int) -> Line | None:
    """The line of a trial, None where it is still to be run."""
    return next(
        (line for line in record.of("trial") if (line["rung"], line["trial"]) == (rung, number)),
        None,
    )


def keep_to_time(planned: Planned, record: Record, clock: Clock, now: int, done: int) -> Planned:
    """The plan, with fewer settings where those that are left would not be over in time, by what
    trials took so far, and with another one where time is left in the end."""
    scale = pace(record, planned)
    costs = [scale * cost for cost in planned.costs]
    left = max(0.0, planned.until - clock.spent)
    rungs = shrink(planned.rungs, now, done, AHEAD * left, costs)
    if planned.in_full(rungs[now]):
        rungs = grow(rungs, now, done, left, costs)
    if rungs == planned.rungs:
        return planned
    by_rows = {r.rows: cost for r, cost in zip(planned.rungs, planned.costs, strict=True)}
    planned = replace(planned, rungs=rungs, costs=[by_rows[rung.rows] for rung in rungs])
    write_plan(record, planned, clock)
    return planned


def pace(record: Record, planned: Planned) -> float:
    """Seconds of a trial over what was planned for it, by all that ran."""
    lines = [line for line in record.of("trial") if "value" in line]
    if not lines:
        return 1.0
    return sum(line["seconds"] for line in lines) / sum(line["planned"] for line in lines)


def one_trial(
    wanted: Wanted, planned: Planned, pool: Data, needs: Estimate | None, record: Record,
    clock: Clock, stop: StopRequest, rung: int, number: int,
) -> Line | None:  # fmt: skip
    """Run a trial and write its line. One that fails says why, and is out. None where there is no
    further setting to try."""
    known = trial_line(record, 0, number) or new_place(wanted, planned, record, number)
    if known is None:
        return None
    place, settings = known["place"], known["settings"]
    size = planned.rungs[rung]
    values = {
        "trial": number, "rung": rung, "rows": size.rows, "validation": size.validation,
        "place": place, "settings": settings, "planned": planned.costs[rung],
    }  # fmt: skip
    start = time.monotonic()
    end = start + longest_trial(planned, record, clock, rung)
    try:
        if planned.in_full(size):
            config = kept_in(full_config(planned, settings), record, number)
            trained = train_kept(config, wanted.train, stop, end)
        else:
            config = change(planned.base, settings)
            data = first_rows(pool, size.rows, size.validation)
            with progress_bar(number) as on_step:
                trained = run_trial(
                    config, data, wanted.allow_code, stop, needs, lambda job: end, on_step
                )
    except ValueError as error:
        if meets_limit(error) or number == 0:
            raise
        values["failed"] = " ".join(str(error).split())[:300]
    else:
        values |= outcome(trained, pool.kind == "regression")
    release_memory()  # of a model that is gone, before the next one is there
    line = record.add("trial", **values, seconds=time.monotonic() - start, spent=clock.spent)
    if planned.in_full(size):
        keep_best(record, rung)
    return line


def longest_trial(planned: Planned, record: Record, clock: Clock, rung: int) -> float:
    """Seconds that a trial may take at most: until trials have to be over, and as long as it is
    expected to take itself. What is slower than all before it may not take the winner's time."""
    left = max(0.0, planned.until - clock.spent)
    if planned.in_full(planned.rungs[rung]):  # what was counted on is all that it takes
        return AHEAD * left
    return left + pace(record, planned) * planned.costs[rung]


def outcome(trained: Trained, numbers: bool) -> Line:
    """What a trial's line says of what it came to; no figure where it was cut off, since no rate
    came down. `numbers`: of a regression."""
    if trained.late:
        return {"failed": f"its time was over after {trained.steps} steps", "late": True}
    return {
        "metric": trained.metric, "value": trained.value, "loss": trained.loss,
        "steps": trained.steps, "opening": trained.opening, "training": trained.training,
        "checking": trained.checking, "right": trained.rows, "numbers": numbers,
    }  # fmt: skip


def new_place(wanted: Wanted, planned: Planned, record: Record, number: int) -> Line | None:
    """Place and settings of a trial of the first rung; number 0 is the recipe. Those that are drawn
    are new, and make a recipe without an error; None where no such are found. Raises ValueError
    where there is none in a whole space of --space, with the reason."""
    if number == 0:
        return {"place": {}, "settings": {}}
    known = [line["settings"] for line in record.of("trial")]
    ranged, fault = any(RATE in word for word in wanted.words), ""
    for again in range(AGAIN):
        place = draw(wanted, planned, record, number, again)
        settings = settings_at(planned.space, planned.base, place, ranged)
        try:
            change(planned.base, settings)
        except ValueError as error:
            fault = f"{show_settings(settings)}\n{error}"
            continue
        if settings and settings not in known:
            return {"place": place, "settings": settings}
    if fault and number == 1 and wanted.words:
        raise ValueError(
            f"--space: of {AGAIN} settings drawn from it none makes a recipe; the last one is "
            + fault
        )
    return None


def draw(wanted: Wanted, planned: Planned, record: Record, number: int, again: int) -> Place:
    """A place by the sampler that was asked for."""
    if wanted.sampler == "tpe":
        from job.tuning.tpe import suggest

        results = [
            (line["place"], score_of(line)) for line in record.of("trial") if not line["rung"]
        ]
        return suggest(planned.space, results, wanted.seed, number, again)
    return draw_place(planned.space, wanted.seed, number, again)
