"""How fast a recipe is on this machine as it is now: some of its own steps, and an evaluation."""

import resource
import time
from dataclasses import dataclass, field

import numpy as np

from configs.schema import Config
from data.prepare import Data
from engine.estimate import Estimate
from engine.loop import StepResult
from engine.stop import StopRequest
from job.job import Job
from job.training.needs import measure_bag, row_lengths
from job.tuning.plan import SHORTEST, Shape, Speeds
from job.tuning.trial import first_rows, open_trial, run_trial

SAMPLED = 512  # training rows of which lengths are known
CHECKED = 16  # validation rows
SECONDS = 4.0  # of steps
SHARE = 0.03  # of the time that there is, at most
COMPILED = 1.0  # seconds of processor time of a compiler, from which one was at work
CLOSING = 2.5  # times an opening: another one, and what comes after the test


@dataclass
class Watch:
    """What a trial that ends early shows of its steps; the first one, which warms up, apart."""

    job: Job | None = None
    times: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)

    def step(self, result: StepResult, job: Job) -> None:
        self.job = job
        self.times.append(time.perf_counter())
        self.tokens.append(result.tokens)


@dataclass(frozen=True)
class Measured:
    """`cut`: the share of rows that the recipe's length cuts."""

    shape: Shape
    speeds: Speeds
    needs: Estimate
    cut: float
    linears: tuple[str, ...]  # last names of the model's linear layers
    positions: int  # of the model


def measure(
    config: Config, pool: Data, test_rows: int, seconds: float, allow_code: bool, stop: StopRequest
) -> Measured:
    """Open the recipe on a few rows and let it learn for some seconds. Its weights go away."""
    rows, validation = len(pool.splits["train"]), len(pool.splits["validation"])
    few = first_rows(pool, min(rows, SAMPLED), min(validation, CHECKED))
    watch, begin, compiled = Watch(), time.perf_counter(), children_seconds()
    limit = min(SECONDS, SHARE * seconds)
    trained = run_trial(
        config, few, allow_code, stop, until=lambda job: time.monotonic() + limit,
        on_step=watch.step,
    )  # fmt: skip
    job = watch.job
    assert job is not None
    tokens = mean_tokens(config, job)
    own = tokens[config.data.max_length]
    token, keeping = step_seconds(watch, begin + trained.opening), 0.0
    if job.cached is not None:  # what the frozen part makes of a row is worked out once
        keeping = job.cached.seconds["train"] / (few.splits["train"].num_rows * own)
    check = trained.checking / (trained.looks * job.encoded["validation"].tokens)
    every = config.eval.every
    shape = Shape(
        rows, config.train.epochs, config.train.micro_batch_size * config.train.accumulate,
        validation, test_rows, tokens, None if every == "epoch" else int(every),
        len(pool.label_names),
    )  # fmt: skip
    opening = trained.opening
    if children_seconds() - compiled > COMPILED:  # once: the next opening says what openings take
        start = time.perf_counter()
        open_trial(config, few, allow_code, None)
        opening = min(opening, time.perf_counter() - start)
    bag = measure_bag(config, pool, len(pool.label_names))
    closing = CLOSING * opening + (0.0 if bag is None else bag.seconds)
    return Measured(
        shape, Speeds(opening, token, check, closing, keeping=keeping), trained.needs,
        job.encoded["train"].truncated_rows / len(few.splits["train"]), last_names(job),
        min(job.tokenizer.model_max_length, 1 << 20),
    )  # fmt: skip


def children_seconds() -> float:
    """Processor time of the processes that this one started and that have ended."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime


def step_seconds(watch: Watch, opened: float) -> float:
    """Seconds a token: of all steps but the first where there are more."""
    if len(watch.times) > 1:
        return (watch.times[-1] - watch.times[0]) / sum(watch.tokens[1:])
    return (watch.times[0] - opened) / watch.tokens[0]


def mean_tokens(config: Config, job: Job) -> dict[int, float]:
    """Mean tokens of a training row by length, the recipe's own first, then its halves: where texts
    are cut, those are what a shorter length leaves."""
    own, encoded = config.data.max_length, job.encoded["train"].dataset
    tokens = {own: float(row_lengths(job.encoded["train"]).mean())}
    if config.data.long == "chunks" or "full_length" not in encoded.column_names:
        return tokens
    whole = np.array(encoded["full_length"])
    length = own // 2
    while length >= SHORTEST:
        tokens[length] = float(np.minimum(whole, length).mean())
        length //= 2
    return tokens


def last_names(job: Job) -> tuple[str, ...]:
    """How the linear layers of the backbone end, as lora.targets names them."""
    from models.methods.linears import linears_of

    names = linears_of(job.built.model, ())
    ends = (name.removesuffix(".base").rpartition(".")[2] for name in names)
    return tuple(dict.fromkeys(ends))
