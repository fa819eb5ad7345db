"""What a search works with: measured and decided once, written down, and read again to go on."""

import time
from dataclasses import asdict, dataclass, replace
from typing import Any

from configs.schema import Config
from data.prepare import Data
from engine.estimate import Estimate
from engine.stop import StopRequest
from job.tuning.beside import put_beside
from job.tuning.measure import Measured, measure
from job.tuning.plan import (
    MOST_TRIALS,
    Fit,
    Rung,
    Speeds,
    closing_seconds,
    fitted,
    plan_rungs,
    share_out,
    trial_seconds,
)
from job.tuning.record import Line, Record
from job.tuning.space import Dimension, default_space, read_space, size_of
from job.tuning.trial import Train, open_pool

IDLE_OPENING = 1.5  # seconds, on two cores that have nothing else to do
LOADED = 10_000  # rows a second there, read and cleaned
MOST_SLOW = 6.0  # times that long: a first opening has more to wait for than reading has


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
    """What was asked for. `words`: the space as it was typed, none for the usual one; `train`: what
    makes a run of a recipe."""

    config: Config
    sampler: str
    seed: int
    words: tuple[str, ...]
    allow_code: bool
    train: Train


@dataclass(frozen=True)
class Planned:
    """What a search works with. `base` is the recipe, or what of it fits the time."""

    base: Config
    rows: int  # that the base trains on
    space: list[Dimension]
    rungs: list[Rung]
    costs: list[float]  # seconds of the recipe's own trial in each rung
    final: float  # seconds of a run in full
    closing: float  # of these, those after the last step
    until: float  # seconds of the search's time when trials have to be over

    def in_full(self, rung: Rung) -> bool:
        """Whether the trials of a rung are runs, on all rows."""
        return rung.rows == self.rows


def make_plan(
    wanted: Wanted, record: Record, clock: Clock, stop: StopRequest
) -> tuple[Planned, Data, Estimate]:
    """Measure the recipe, decide how much of it is trained in full and after which trials."""
    config, start = wanted.config, time.monotonic()
    pool = open_pool(config)
    loading = time.monotonic() - start
    test = pool.report.splits.get("test", 0)
    measured = measure(config, pool, test, clock.seconds, wanted.allow_code, stop)
    speeds = with_loading(measured, loading, sum(pool.report.read.values()))
    fit, seconds = share_out(measured.shape, speeds, clock.left)
    part = fit.rows < measured.shape.rows
    if part and (beside := put_beside(config, pool, clock.left)) is not None:
        config = beside.config
        speeds = replace(speeds, closing=speeds.closing + beside.seconds)
        fit, seconds = share_out(measured.shape, speeds, clock.left)
    base, shape = config, fitted(measured.shape, fit)
    if fit.seconds > clock.left:
        config = without_shows(config)
        base = config
    if not fit.whole:
        base, start = shorten(config, measured, fit), time.monotonic()
        if seconds:
            pool = open_pool(base)
            sizes = {name: len(rows) for name, rows in pool.splits.items()}  # without overlaps
            shape = replace(shape, rows=sizes["train"], validation=sizes["validation"])
            seconds = max(0.0, seconds - (time.monotonic() - start))
    space = read_space(wanted.words) or default_space(
        base, measured.linears, measured.cut, longest(config, measured, fit, clock), fit.whole
    )
    rungs = plan_rungs(shape, speeds, seconds, min(MOST_TRIALS, size_of(space)))
    costs = [trial_seconds(shape, speeds, r.rows, r.validation) for r in rungs]
    cached = speeds.loading * (not fit.whole and seconds > 0)  # its rows are there by then
    last = speeds.check * shape.tokens[fit.length] * fit.validation  # of the evaluations on the way
    planned = Planned(
        base, shape.rows, space, rungs, costs, fit.seconds - cached,
        closing_seconds(shape, speeds, fit) + last - cached, clock.spent + seconds,
    )  # fmt: skip
    write_plan(record, planned, clock, speeds=asdict(speeds))
    return planned, pool, measured.needs


def with_loading(measured: Measured, loading: float, rows: int) -> Speeds:
    """The speeds, with what it takes to cut rows out anew: what loading took, and no less than
    where nothing of it was in the cache."""
    slow = min(MOST_SLOW, max(1.0, measured.speeds.opening / IDLE_OPENING))
    return replace(measured.speeds, loading=max(loading, slow * rows / LOADED))


def longest(config: Config, measured: Measured, fit: Fit, clock: Clock) -> int:
    """The longest row that the model has positions for and a third of the time."""
    own = config.data.max_length
    room = clock.left / 3 / fit.seconds * own if fit.seconds else own
    return int(min(room, measured.positions))


def without_shows(config: Config) -> Config:
    """The recipe without what a run shows beside its model, for which there is no time."""
    tables = config.model_dump(exclude_none=True)
    tables["eval"]["baseline"] = False
    tables["samples"]["texts"] = []
    return Config.model_validate(tables)


def shorten(config: Config, measured: Measured, fit: Fit) -> Config:
    """The recipe over as much as fits."""
    have = measured.shape
    sizes = {
        "train": (fit.rows, have.rows), "validation": (fit.validation, have.validation),
        "test": (fit.test, have.test),
    }  # fmt: skip
    subset: dict[str, int] = {str(name): rows for name, rows in config.data.subset.items()}
    subset |= {name: rows for name, (rows, of) in sizes.items() if rows < of}
    tables = config.model_dump(exclude_none=True)
    tables["data"] |= {"subset": subset, "max_length": fit.length}
    tables["train"]["epochs"] = fit.epochs
    tables["eval"]["every"] = "epoch"
    return Config.model_validate(tables)


def write_plan(record: Record, planned: Planned, clock: Clock, **more: Any) -> None:
    """The plan's line."""
    record.add(
        "plan", base=planned.base.model_dump(exclude_none=True), rows=planned.rows,
        space=[dimension.words for dimension in planned.space],
        rungs=[asdict(rung) for rung in planned.rungs],
        costs=planned.costs, final=planned.final, closing=planned.closing, until=planned.until,
        spent=clock.spent, **more,
    )  # fmt: skip


def planned_of(line: Line) -> Planned:
    """The plan of a line."""
    return Planned(
        Config.model_validate(line["base"]), line["rows"], read_space(line["space"]),
        [Rung(**rung) for rung in line["rungs"]], line["costs"], line["final"], line["closing"],
        line["until"],
    )  # fmt: skip
