"""How many trials of which size a time allows, and what of a run: functions of measured speeds.

Successive halving (Jamieson and Talwalkar 2016, arXiv:1502.07943) in rungs: of the settings of a
rung the best third goes to the next, on three times the rows. A trial is a whole schedule, warm-up
and decay to zero included, on the first rows of one random order; none is the beginning of a longer
one, since a rate that falls in a straight line, judged half-way, makes high ones look bad. The last
rung is on all rows: few rows like what learns fast, and all of them may tell otherwise. Its trials
are runs in full that wait for their test, and the best of them goes on.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

SHARE = 3  # settings of a rung over those of the next
MOST_RUNGS = 4
MOST_TRIALS = 60  # settings that are tried
WANTED = 8  # settings; from so many on more rows are worth more than more settings
LEAST_STEPS = 16  # of the shortest trial
LEAST_VALIDATION = 200  # rows that judge a trial, where there are as many
FEWEST_STEPS = 4  # of a run that is shortened, whatever the time: the first one's rate is 0
EACH = 1 / 4  # share of the time for each run in full of a recipe that is shortened
IN_FULL = 0.75  # share that a recipe may take and still be trained in full
LEARNS = 1000  # rows that a length should leave room for
SHORTEST = 64  # tokens to which texts are cut to save time
LEAST_OF_CLASS = 8  # rows of a class in it, on average
FEW = 4  # settings that make trials worth a shorter run in full
WORTH_TRIALS = 2  # times the shortest trial that a run in full should be, else there are none
IN_TIME = 0.9  # of the time, for a run that is shortened to fit it: nothing corrects its plan
CHECKED = 0.15  # share of a shortened run for its validation rows; as much for its test rows


@dataclass(frozen=True)
class Speeds:
    """Seconds that were measured of a recipe on this machine as it is now."""

    opening: float  # before a trial's first step
    token: float  # forward and backward
    check: float  # a token of a validation or test row, forward alone
    closing: float  # of a run beside steps and passes: opening, decision, export, pages
    loading: float = 0.0  # of rows that are cut out anew, as those of a shortened run are
    keeping: float = 0.0  # a token's once, however many epochs: states that are kept


@dataclass(frozen=True)
class Shape:
    """What a recipe trains on, as its time depends on it. `tokens`: the mean of a row's by the
    length at which texts are cut, the recipe's own first."""

    rows: int
    epochs: int
    batch: int  # rows of a step
    validation: int
    test: int
    tokens: Mapping[int, float]
    every: int | None = None  # steps between evaluations; None: after each epoch
    classes: int = 2

    @property
    def length(self) -> int:
        return next(iter(self.tokens))


@dataclass(frozen=True)
class Rung:
    """So many settings, each on the first so many training and validation rows."""

    trials: int
    rows: int
    validation: int


@dataclass(frozen=True)
class Fit:
    """How much of a recipe is trained in full. `whole`: all of it."""

    rows: int
    epochs: int
    length: int
    validation: int
    test: int
    whole: bool
    seconds: float


def evaluations(shape: Shape, rows: int, epochs: int) -> int:
    """How often a run over so many rows looks at its validation rows."""
    if shape.every is None:
        return epochs
    steps = epochs * math.ceil(rows / shape.batch)
    return max(1, steps // shape.every)


def trial_seconds(shape: Shape, speeds: Speeds, rows: int, validation: int) -> float:
    """What a trial of the recipe takes on so many rows. On all of them it is a run, which loads its
    rows and measures its memory by itself, and is looked at once more."""
    tokens, run = shape.tokens[shape.length], rows == shape.rows
    looks = (evaluations(shape, rows, shape.epochs) + run) * validation * speeds.check
    steps = rows * (shape.epochs * speeds.token + speeds.keeping)
    return speeds.opening * (1 + run) + tokens * (steps + looks)


def closing_seconds(shape: Shape, speeds: Speeds, fit: Fit) -> float:
    """What a run takes beside its steps and the evaluations between them: loading, the validation
    rows once more for the decision, the test, export, pages."""
    looks = (fit.validation + fit.test) * speeds.check
    return speeds.closing + speeds.loading * (not fit.whole) + shape.tokens[fit.length] * looks


def run_seconds(shape: Shape, speeds: Speeds, fit: Fit) -> float:
    """What a run takes from its loading to its page."""
    steps = fit.rows * (fit.epochs * speeds.token + speeds.keeping)
    looks = evaluations(shape, fit.rows, fit.epochs) * fit.validation * speeds.check
    return closing_seconds(shape, speeds, fit) + shape.tokens[fit.length] * (steps + looks)


def validation_rows(shape: Shape, rows: int) -> int:
    """Validation rows that judge the trials of a rung, the same for all of them; runs have all."""
    if rows == shape.rows:
        return shape.validation
    return min(shape.validation, max(LEAST_VALIDATION, rows // 2))


def least_rows(shape: Shape) -> int:
    """Training rows of the shortest trial."""
    return min(shape.rows, max(LEAST_STEPS * shape.batch, LEAST_OF_CLASS * shape.classes))


def rung_sizes(shape: Shape, rungs: int) -> list[int] | None:
    """Rows of each rung, all of them in the last; None where the first one's would be too few."""
    sizes = [math.ceil(shape.rows / SHARE**below) for below in reversed(range(rungs))]
    return sizes if sizes[0] >= least_rows(shape) else None


def halve(first: int, rungs: int) -> list[int]:
    """Settings of each rung; two at least of the last, the recipe and its challenger."""
    return [max(min(2, first), first // SHARE**n) for n in range(rungs)]


def make_rungs(shape: Shape, sizes: list[int], first: int) -> list[Rung]:
    """The rungs that begin with so many settings."""
    counts = halve(first, len(sizes))
    return [
        Rung(count, rows, validation_rows(shape, rows))
        for count, rows in zip(counts, sizes, strict=True)
    ]


def rungs_seconds(shape: Shape, speeds: Speeds, rungs: list[Rung]) -> float:
    """What all trials of a plan take, each as long as the recipe's own."""
    return sum(r.trials * trial_seconds(shape, speeds, r.rows, r.validation) for r in rungs)


def plan_rungs(shape: Shape, speeds: Speeds, seconds: float, most: int = MOST_TRIALS) -> list[Rung]:
    """The trials that fit the time, none where not even two runs on all rows do: the recipe's and
    another one's. At most `most` settings. The fewest rungs that have room for WANTED settings
    count, else those with room for most."""
    best: list[Rung] = []
    for rungs in range(1, MOST_RUNGS + 1):
        sizes = rung_sizes(shape, rungs)
        if sizes is None:
            break
        plan = most_settings(shape, speeds, sizes, seconds, most)
        if plan and (not best or plan[0].trials > best[0].trials):
            best = plan
        if best and best[0].trials >= min(WANTED, most):
            break
    return best


def most_settings(
    shape: Shape, speeds: Speeds, sizes: list[int], seconds: float, most: int
) -> list[Rung] | None:
    """The plan over rungs of these sizes with most settings; None where two are too many, or where
    a rung would pass all of its settings on."""

    def fits(first: int) -> bool:
        return rungs_seconds(shape, speeds, make_rungs(shape, sizes, first)) <= seconds

    fitting, too_many = 1, most + 1  # more settings never take less time
    while too_many - fitting > 1:
        middle = (fitting + too_many) // 2
        fitting, too_many = (middle, too_many) if fits(middle) else (fitting, middle)
    for first in range(fitting, 1, -1):
        counts = halve(first, len(sizes))
        if all(a > b for a, b in pairwise(counts)):
            return make_rungs(shape, sizes, first)
    return None


def shrink(plan: list[Rung], now: int, done: int, left: float, costs: list[float]) -> list[Rung]:
    """The plan with fewer settings where those that are left no longer fit `left` seconds.

    `now` is the number of the rung that is under way, `done` how many of its trials are done, and
    `costs` are the seconds of a trial of each rung. Sizes stay, so that what is done counts. A
    rung under way keeps what it has done; those between it and the last one go. Where there is
    no time for the last one there is no further trial: nothing that it found could win.
    """
    rungs, costs = list(plan), list(costs)

    def needed() -> float:
        first = max(0, rungs[now].trials - done) * costs[now]
        later = zip(rungs[now + 1 :], costs[now + 1 :], strict=True)
        return first + sum(rung.trials * cost for rung, cost in later)

    while needed() > left:
        if rungs[now].trials > max(done, 2):
            fewer = rungs[now].trials - 1
            rungs[now] = replace(rungs[now], trials=fewer)
            for n in range(now + 1, len(rungs)):
                most = max(2, math.ceil(fewer / SHARE ** (n - now)))
                rungs[n] = replace(rungs[n], trials=min(rungs[n].trials, most))
        elif len(rungs) > now + 2:
            rungs.pop(-2)
            costs.pop(-2)
        else:
            return [*rungs[:now], replace(rungs[now], trials=done)]
    return rungs


def grow(plan: list[Rung], now: int, done: int, left: float, costs: list[float]) -> list[Rung]:
    """The plan with one more trial in the last rung, which is under way, where those planned are
    done and another fits the `left` seconds."""
    if plan[now].trials == done < MOST_TRIALS and costs[now] <= left:
        return [*plan[:now], replace(plan[now], trials=done + 1)]
    return plan


def fit_run(shape: Shape, speeds: Speeds, seconds: float) -> Fit:
    """As much of a recipe as fits the time: all of it, else fewer epochs, else fewer rows of each
    split, and of long texts less where that leaves room for LEARNS rows. FEWEST_STEPS are
    left, whatever the time."""
    whole = Fit(
        shape.rows, shape.epochs, shape.length, shape.validation, shape.test, True, 0.0
    )  # fmt: skip
    for epochs in range(shape.epochs, fewest_epochs(shape, shape.rows, speeds) - 1, -1):
        fit = replace(whole, epochs=epochs, whole=epochs == shape.epochs)
        needed = run_seconds(shape, speeds, fit)
        if needed <= seconds:
            return replace(fit, seconds=needed)
    fits = [fit_rows(shape, speeds, seconds, length) for length in shape.tokens]
    roomy = [fit for fit in fits if fit.rows >= min(LEARNS, shape.rows)]
    return roomy[0] if roomy else max(fits, key=lambda fit: fit.rows)


def fewest_epochs(shape: Shape, rows: int, speeds: Speeds) -> int:
    """Epochs that a run over so many rows keeps, whatever the time: such that there are
    FEWEST_STEPS, and where states are kept as many as take no longer than these."""
    fewest = math.ceil(FEWEST_STEPS / math.ceil(rows / shape.batch))
    return min(shape.epochs, max(1, fewest, int(speeds.keeping / speeds.token)))


def fit_rows(shape: Shape, speeds: Speeds, seconds: float, length: int) -> Fit:
    """As many rows as fit in one epoch, or in the fewest, with texts cut at `length`."""
    tokens = shape.tokens[length]
    room = max(0.0, seconds - speeds.closing - speeds.loading)
    check = CHECKED * room / (tokens * speeds.check)
    epochs = fewest_epochs(shape, shape.rows, speeds)
    passes = epochs + 1  # over the validation rows: see run_seconds
    validation = min(shape.validation, max(shape.batch, int(check / passes)))
    test = min(shape.test, max(shape.batch, int(check)))
    rest = room - tokens * (passes * validation + test) * speeds.check
    row = tokens * (epochs * speeds.token + speeds.keeping)
    rows = int(rest / row) // shape.batch * shape.batch
    rows = min(shape.rows, max(math.ceil(FEWEST_STEPS / epochs) * shape.batch, rows))
    fit = Fit(rows, epochs, length, validation, test, False, 0.0)
    return replace(fit, seconds=run_seconds(replace(shape, every=None), speeds, fit))


def share_out(shape: Shape, speeds: Speeds, seconds: float) -> tuple[Fit, float]:
    """What is trained in full, and the seconds for trials, runs in full among them; of a run the
    end is left. Where the recipe takes more than IN_FULL of the time, each run in full has what
    fits EACH of it; where FEW settings cannot be tried before them, all of the time trains one, and
    there is no trial."""
    whole = fit_run(shape, speeds, math.inf)
    if whole.seconds <= IN_FULL * seconds:
        return whole, seconds - closing_seconds(shape, speeds, whole)
    fit = fit_run(shape, speeds, EACH * seconds)
    left = max(0.0, seconds - closing_seconds(shape, speeds, fit))
    plan = plan_rungs(fitted(shape, fit), speeds, left)
    if fit.rows < WORTH_TRIALS * least_rows(shape) or not plan or plan[0].trials < FEW:
        return fit_run(shape, speeds, IN_TIME * seconds), 0.0
    return fit, left


def fitted(shape: Shape, fit: Fit) -> Shape:
    """What is left to train on of a recipe that is shortened to fit."""
    return replace(
        shape, rows=fit.rows, epochs=fit.epochs, validation=fit.validation, test=fit.test,
        tokens={fit.length: shape.tokens[fit.length]},
        every=shape.every if fit.whole else None,
    )  # fmt: skip
