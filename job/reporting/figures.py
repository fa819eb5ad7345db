"""What the predictions of a test split show, beyond its figures: is a share what it says, which
thresholds there are, where the errors are, and which labels are suspect. Plain Python; nothing here
loads torch."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from engine.calibrate import BINS, Bins
from engine.intervals import wilson_interval
from job.reporting.predictions import MOST_SHARES, Line

STEPS = 100  # of the threshold slider, from 0 to 1
LENGTHS = 8  # groups of rows by length, equally many in each


@dataclass(frozen=True)
class Group:
    """Some rows: what they have in common, how many, how many of them are answered right, and the
    95 % interval of that share; `mean` is that of what they are grouped by."""

    name: str
    mean: float
    rows: int
    right: int
    low: float
    high: float


def group(name: str, values: Sequence[float], right: Sequence[bool]) -> Group:
    """A Group of rows with these values."""
    mean = sum(values) / len(values) if values else 0.0
    return Group(name, mean, len(right), sum(right), *wilson_interval(sum(right), len(right)))


@dataclass(frozen=True)
class Reliability:
    """How far the shares can be trusted. `groups` are rows by the share of their answer. `ece`:
    mean distance of share and accuracy (Naeini et al. 2015). `brier`: mean squared distance of all
    shares from the truth, 0 to 2 (Brier 1950); None where not all shares are known."""

    groups: list[Group]
    ece: float
    brier: float | None


def reliability(lines: Sequence[Line]) -> Reliability:
    """Of one class a row by the probability of the answer; of several labels by that of each label,
    and whether it holds. lines must not be empty."""
    bins = Bins()
    if isinstance(lines[0].label, list):
        pairs = [(p, name in line.label) for line in lines for name, p in line.shares.items()]
    else:
        pairs = [(line.sure, line.right) for line in lines]
    sure, right = zip(*pairs, strict=True)
    bins.add(np.array(sure), np.array(right))
    return Reliability(groups_of(bins), bins.error(), brier(lines))


def whole_shares(lines: Sequence[Line]) -> bool:
    """Whether of several labels a row the share of each is known: of more than 50 the file has the
    50 likeliest."""
    return bool(lines) and isinstance(lines[0].label, list) and len(lines[0].shares) < MOST_SHARES


def brier(lines: Sequence[Line]) -> float | None:
    """The Brier score of one class a row; None of several, and where not all shares are known."""
    single = isinstance(lines[0].label, str)
    if not single or any(abs(sum(line.shares.values()) - 1) > 1e-3 for line in lines):
        return None
    return sum(map(squared, lines)) / len(lines)


def groups_of(bins: Bins) -> list[Group]:
    """Rows by the probability of their answer."""
    sums = zip(bins.sure.tolist(), bins.rows.tolist(), bins.right.tolist(), strict=True)
    return [
        Group(
            f"{n / BINS:.0%} to {(n + 1) / BINS:.0%}",
            sure / max(1, rows), rows, right, *wilson_interval(right, rows),
        )
        for n, (sure, rows, right) in enumerate(sums)
    ]  # fmt: skip


def squared(line: Line) -> float:
    """The squared distance of a row's shares from its label."""
    return sum((p - (name == line.label)) ** 2 for name, p in line.shares.items())


@dataclass(frozen=True)
class Threshold:
    """What is left where answers below `share` are not given: how many, how many of them right; and
    for each class (answered, right)."""

    share: float
    answered: int
    right: int
    classes: list[tuple[int, int]]


def thresholds(lines: Sequence[Line], names: Sequence[str]) -> list[Threshold]:
    """One a step from 0 to 1. A row counts where the share of its answer is at least the step."""
    place = {name: i for i, name in enumerate(names)}
    counts = [[[0, 0] for _ in names] for _ in range(STEPS + 1)]
    for line in lines:
        # NaN is at least nothing: such a row counts where all are answered
        reached = (n for n in range(STEPS, 0, -1) if line.sure >= n / STEPS)
        last = next(reached, 0)
        cell = counts[last][place[line.predicted]]
        cell[0] += 1
        cell[1] += line.right
    sums = [[0, 0] for _ in names]
    steps = []
    for step in range(STEPS, -1, -1):
        for total, own in zip(sums, counts[step], strict=True):
            total[0] += own[0]
            total[1] += own[1]
        classes = [(answered, right) for answered, right in sums]
        all_answered, all_right = (sum(part) for part in zip(*classes, strict=True))
        steps.append(Threshold(step / STEPS, all_answered, all_right, classes))
    return steps[::-1]


def by_length(lines: Iterable[Line]) -> list[Group]:
    """Rows by the length of their text, in groups of about equal size; none where no length is
    known."""
    known = [(line.tokens, line) for line in lines if line.tokens is not None]
    tokens = [count for count, _ in known]
    return [
        group(name, [float(tokens[i]) for i in places], [known[i][1].right for i in places])
        for name, places in length_bands(tokens, [line.address for _, line in known])
    ]


def length_bands(tokens: Sequence[int], addresses: Sequence[str]) -> list[tuple[str, list[int]]]:
    """Rows by their tokens in LENGTHS bands of about equal size: the name of each, "12 to 40", and
    the places of its rows. Of equal lengths the address decides."""
    order = sorted(range(len(tokens)), key=lambda i: (tokens[i], addresses[i]))
    bands = []
    for n in range(LENGTHS):
        places = order[len(order) * n // LENGTHS : len(order) * (n + 1) // LENGTHS]
        if places:
            bands.append((f"{tokens[places[0]]:,} to {tokens[places[-1]]:,}", places))
    return bands


def suspects(lines: Sequence[Line]) -> list[tuple[float, Line, str]]:
    """Rows whose label may be wrong, the most suspect first: (margin, row, the class it looks to
    be of).

    Confident learning (Northcutt et al. 2021, arXiv:1911.00068): a row counts for another class
    where its share of that class reaches what rows of that label have on average.
    """
    sums: dict[str, list[float]] = {}
    for line in lines:
        sums.setdefault(line.label, []).append(line.shares.get(line.label, 0.0))
    usual = {name: sum(own) / len(own) for name, own in sums.items()}
    suspected = []
    for line in lines:
        reached = [(p, name) for name, p in line.shares.items() if p >= usual.get(name, 2.0)]
        if reached and (best := max(reached))[1] != line.label:
            suspected.append((best[0] - line.shares.get(line.label, 0.0), line, best[1]))
    return sorted(suspected, key=lambda each: (-each[0], each[1].address))
