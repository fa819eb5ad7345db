"""The search itself: measure, plan, trials rung by rung, winner. What is decided is written into the
record first, and a search that goes on takes it from there."""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from configs.schema import Config
from data.prepare import Data
from engine.estimate import Estimate
from engine.intervals import Interval, paired_interval
from engine.stop import StopRequest
from files.errors import meets_limit
from job.tuning.measure import Measured, measure
from job.tuning.plan import Fit, Rung, plan_rungs, share_out, shrink, trial_seconds
from job.tuning.record import Line, Record
from job.tuning.sample import draw_place
from job.tuning.space import (
    RATE,
    Dimension,
    Place,
    change,
    default_space,
    read_space,
    settings_at,
)
from job.tuning.trial import first_rows, open_pool, run_trial
from report.compare import LESS_IS_BETTER

AGAIN = 50  # draws for a place that can be used and is new
AHEAD = 1.1  # times what is left, from which fewer trials are planned


class Clock:
    """Seconds of a search's time that have gone by, those before it was cut off included."""

    def __init__(self, seconds: float, begun: float, before: float = 0.0) -> None:
        self.seconds, self.begun, self.before = seconds, begun, before

    @property
    def spent(self) -> float:
        return self.before + time.monotonic() - self.begun

    @property
    def left(self) -> float:
        return self.seconds - self.spent


@dataclass(frozen=True)
class Wanted:
    """What was asked for. `words`: the space as it was typed, none for the usual one."""

    config: Config
    sampler: str
    seed: int
    words: tuple[str, ...]
    allow_code: bool


@dataclass(frozen=True)
class Planned:
    """What a search works with. `base` is the recipe, or what of it fits the time."""

    base: Config
    rows: int  # that the base trains on
    space: list[Dimension]
    rungs: list[Rung]
    costs: list[float]  # seconds of the recipe's own trial in each rung
    final: float  # seconds of the run in full
    closing: float  # of these, those after the last step
    until: float  # seconds of the search's time when trials have to be over


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
        planned = planned_of(line, wanted)
        pool, needs = None, None
    say(planned)
    if (winner := record.last("winner")) is not None:
        return planned, winner
    if planned.rungs and pool is None:
        pool = open_pool(planned.base)
    if planned.rungs:
        assert pool is not None
        planned = run_rungs(wanted, planned, pool, needs, record, clock, stop, tell)
    return planned, choose(record, planned, clock)


def make_plan(
    wanted: Wanted, record: Record, clock: Clock, stop: StopRequest
) -> tuple[Planned, Data, Estimate]:
    """Measure the recipe, decide how much of it is trained in full and which trials come before."""
    config = wanted.config
    pool = open_pool(config)
    test = pool.report.splits.get("test", 0)
    measured = measure(config, pool, test, clock.seconds, wanted.allow_code, stop)
    fit, _ = share_out(measured.shape, measured.speeds, clock.left)
    base = config
    if not fit.whole:
        base = shorten(config, measured, fit)
        pool = open_pool(base)
    fit, seconds = share_out(measured.shape, measured.speeds, clock.left)
    shape = replace(
        measured.shape, rows=len(pool.splits["train"]), epochs=base.train.epochs,
        validation=len(pool.splits["validation"]),
        tokens={fit.length: measured.shape.tokens[fit.length]},
    )  # fmt: skip
    space = read_space(wanted.words) or default_space(
        base, measured.linears, measured.cut, longest(config, measured, fit, clock), fit.whole
    )
    rungs = plan_rungs(shape, measured.speeds, seconds)
    costs = [trial_seconds(shape, measured.speeds, r.rows, r.validation) for r in rungs]
    tokens = shape.tokens[fit.length]
    after = (shape.validation + fit.test) * tokens * measured.speeds.check
    planned = Planned(
        base, shape.rows, space, rungs, costs, fit.seconds, measured.speeds.closing + after,
        clock.spent + seconds,
    )  # fmt: skip
    write_plan(record, planned, clock, speeds=asdict(measured.speeds))
    return planned, pool, measured.needs


def longest(config: Config, measured: Measured, fit: Fit, clock: Clock) -> int:
    """The longest row that the model has positions for and a third of the time."""
    own = config.data.max_length
    room = clock.left / 3 / fit.seconds * own if fit.seconds else own
    return int(min(room, measured.positions))


def shorten(config: Config, measured: Measured, fit: Fit) -> Config:
    """The recipe over as much as fits."""
    subset = {"train": fit.rows, "validation": fit.validation}
    subset |= {"test": fit.test} if measured.shape.test else {}
    tables = config.model_dump(exclude_none=True)
    tables["data"] |= {"subset": subset, "max_length": fit.length}
    tables["train"]["epochs"] = fit.epochs
    tables["eval"]["every"] = "epoch"
    return Config.model_validate(tables)


def write_plan(record: Record, planned: Planned, clock: Clock, **more: Any) -> None:
    """The plan's line."""
    record.add(
        "plan", base=planned.base.model_dump(exclude_none=True), rows=planned.rows,
        space=[one.words for one in planned.space], rungs=[asdict(rung) for rung in planned.rungs],
        costs=planned.costs, final=planned.final, closing=planned.closing, until=planned.until,
        spent=clock.spent, **more,
    )  # fmt: skip


def planned_of(line: Line, wanted: Wanted) -> Planned:
    """The plan of a line."""
    return Planned(
        Config.model_validate(line["base"]), line["rows"], read_space(line["space"]),
        [Rung(**rung) for rung in line["rungs"]], line["costs"], line["final"], line["closing"],
        line["until"],
    )  # fmt: skip


# ---- trials --------------------------------------------------------------------------------------


def run_rungs(
    wanted: Wanted, planned: Planned, pool: Data, needs: Estimate | None, record: Record,
    clock: Clock, stop: StopRequest, tell: Tell,
) -> Planned:  # fmt: skip
    """Run the trials that are in no line yet; the plan as it is then."""
    now = 0
    while now < len(planned.rungs):
        done = 0
        for number in entrants(wanted, planned, record, now):
            line = trial_line(record, now, number)
            if line is None:
                planned = keep_to_time(planned, record, clock, now, done)
                if now >= len(planned.rungs) or done >= planned.rungs[now].trials:
                    break
                line = one_trial(
                    wanted, planned, pool, needs, record, clock, stop, now, number
                )  # fmt: skip
            tell(line, planned)
            done += 1
        now += 1
    return planned


def entrants(wanted: Wanted, planned: Planned, record: Record, rung: int) -> Iterator[int]:
    """The numbers of the settings of a rung, the recipe's own first; those of later rungs are the
    best of the one before."""
    count = planned.rungs[rung].trials
    if rung == 0:
        return iter(range(count))
    best = [line["trial"] for line in ranked(record, rung - 1)]
    return iter([0, *(number for number in best if number)][:count])


def trial_line(record: Record, rung: int, number: int) -> Line | None:
    """The line of a trial, None where it is still to be run."""
    return next(
        (one for one in record.of("trial") if (one["rung"], one["trial"]) == (rung, number)), None
    )


def keep_to_time(planned: Planned, record: Record, clock: Clock, now: int, done: int) -> Planned:
    """The plan, with fewer settings where those that are left would not be over in time, by what
    trials took so far."""
    scale = pace(record, planned)
    costs = [scale * cost for cost in planned.costs]
    left = AHEAD * max(0.0, planned.until - clock.spent)
    rungs = shrink(planned.rungs, now, done, left, costs)
    if rungs == planned.rungs:
        return planned
    planned = replace(planned, rungs=rungs)
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
) -> Line:  # fmt: skip
    """Run a trial and write its line. One that fails says why, and is out."""
    first = trial_line(record, 0, number)
    place, settings = (
        (first["place"], first["settings"]) if first else new_place(wanted, planned, record, number)
    )
    size = planned.rungs[rung]
    values = {
        "trial": number, "rung": rung, "rows": size.rows, "validation": size.validation,
        "place": place, "settings": settings, "planned": planned.costs[rung],
    }  # fmt: skip
    start = time.monotonic()
    try:
        config = change(planned.base, settings)
        data = first_rows(pool, size.rows, size.validation)
        trained = run_trial(config, data, wanted.allow_code, stop, needs)
    except ValueError as error:
        if meets_limit(error) or number == 0:
            raise
        values["failed"] = " ".join(str(error).split())[:300]
    else:
        values |= {
            "metric": trained.metric, "value": trained.value, "loss": trained.loss,
            "steps": trained.steps, "opening": trained.opening, "training": trained.training,
            "checking": trained.checking, "right": trained.rows,
            "numbers": pool.kind == "regression",
        }  # fmt: skip
    return record.add("trial", **values, seconds=time.monotonic() - start, spent=clock.spent)


def new_place(
    wanted: Wanted, planned: Planned, record: Record, number: int
) -> tuple[Place, dict[str, str]]:
    """Place and settings of a trial of the first rung; number 0 is the recipe. Those that are drawn
    are new, and make a recipe without an error."""
    if number == 0:
        return {}, {}
    known = [line["settings"] for line in record.of("trial")]
    ranged = any(RATE in word for word in wanted.words)
    for again in range(AGAIN):
        place = draw(wanted, planned, record, number, again)
        settings = settings_at(planned.space, planned.base, place, ranged)
        with contextlib.suppress(ValueError):
            change(planned.base, settings)
            if settings and settings not in known:
                return place, settings
    raise ValueError(
        f"no further settings are found in {', '.join(one.words for one in planned.space)}: "
        f"{len(known)} are tried, or the others do not go together; give a larger --space"
    )


def draw(wanted: Wanted, planned: Planned, record: Record, number: int, again: int) -> Place:
    """A place by the sampler that was asked for."""
    if wanted.sampler == "tpe":
        from job.tuning.tpe import suggest

        told = [(line["place"], score_of(line)) for line in record.of("trial") if not line["rung"]]
        return suggest(planned.space, told, wanted.seed, number, again)
    return draw_place(planned.space, wanted.seed, number, again)


# ---- which is best -------------------------------------------------------------------------------


def score_of(line: Line) -> tuple[float, float] | None:
    """What is best is smallest: the deciding figure, turned round where more is better, then the
    loss. None of a trial that failed."""
    if "value" not in line:
        return None
    sign = 1 if line["metric"] in LESS_IS_BETTER else -1
    return sign * line["value"], line["loss"]


def ranked(record: Record, rung: int) -> list[Line]:
    """The trials of a rung that came to a figure, the best first; of equals the earlier one, so that
    the recipe is left only for what is better."""
    lines = [line for line in record.of("trial") if line["rung"] == rung and "value" in line]
    return sorted(lines, key=lambda line: (score_of(line), line["trial"]))


def last_rung(record: Record) -> int | None:
    """The highest rung in which two trials came to a figure; None where there is none."""
    rungs = {line["rung"] for line in record.of("trial")}
    return max((rung for rung in rungs if len(ranked(record, rung)) > 1), default=None)


def behind(lines: Sequence[Line]) -> list[Interval]:
    """How far each trial of a rung is behind the first one, with its 95 % interval over the rows
    that judged both: accuracy, or of numbers the rmse."""
    first = np.array(lines[0]["right"])
    root = lines[0]["numbers"]
    return [paired_interval(np.array(line["right"]), first, root=root) for line in lines]


def choose(record: Record, planned: Planned, clock: Clock) -> Line:
    """The winner's line, written: the best of the last rung, or the recipe where nothing was
    compared."""
    rung = last_rung(record)
    lines = [] if rung is None else ranked(record, rung)
    best = lines[0] if lines else {"trial": 0, "settings": {}}
    return record.add(
        "winner", trial=best["trial"], rung=rung, settings=best["settings"], spent=clock.spent
    )
