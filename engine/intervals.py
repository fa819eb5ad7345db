"""Intervals of shares, of ratios over groups, and of the difference of two figures on the same rows
with its p. Nothing here loads torch."""

import math
from collections.abc import Callable
from functools import partial

import numpy as np

Interval = tuple[float, float, float]  # estimate, low, high
Difference = Callable[[np.ndarray, np.ndarray], np.ndarray]  # (S, K) counts, (K, W) rows -> (S,)
DRAWS = 10_000  # samples of the rows
CELLS = 20_000_000  # counts that are held at once
Z_975 = 1.959963984540054  # of the normal distribution
MANY = 500  # different rows from which on no samples are needed


def wilson_interval(hits: int, n: int) -> tuple[float, float]:
    """95 % interval of a share (Wilson 1927): unlike p ± 1.96 s it stays right near 0 and 1."""
    if n == 0:
        return 0.0, 1.0
    z, p = Z_975, hits / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def paired_interval(
    first: np.ndarray, second: np.ndarray, root: bool = False, seed: int = 0
) -> Interval:
    """The interval that paired_difference gives."""
    return paired_difference(first, second, root, seed)[0]


def paired_difference(
    first: np.ndarray, second: np.ndarray, root: bool = False, seed: int = 0
) -> tuple[Interval, float]:
    """mean(first) - mean(second) of numbers a row, (N,) each, its 95 % interval, and its p.

    With `root` the difference of the roots of the means: of squared errors the difference in rmse.
    As bootstrap() has it; NaN, all of it, where a number is NaN or infinite. Raises ValueError
    where the two have not the same rows, or none.
    """
    if first.shape != second.shape or first.size == 0:
        raise ValueError(f"got {first.shape} and {second.shape} numbers; expected one a row, (N,)")
    rows = np.stack([first, second], axis=1)
    if not np.isfinite(rows).all():
        return (math.nan, math.nan, math.nan), math.nan
    if len(np.unique(rows, axis=0)) > MANY:
        return _normal_interval(first, second, root)
    return bootstrap(rows, partial(_mean_difference, root), seed)


def bootstrap(rows: np.ndarray, difference: Difference, seed: int = 0) -> tuple[Interval, float]:
    """A difference between two answers to the same rows, its 95 % interval, and its two-sided p.

    A bootstrap over rows (Efron 1979): each sample draws whole rows, so what makes a row hard for
    both sides cancels. `rows` (N, W) holds all that `difference` needs of a row. It is given how
    often each different row was drawn (S, K) and those rows (K, W), and gives the differences
    (S,). p is twice the share of the samples on the other side of 0, as far as DRAWS can tell.
    """
    unique, counts = np.unique(rows, axis=0, return_counts=True)
    estimate = float(difference(counts[None], unique)[0])
    # drawing rows with replacement is drawing how often each different row comes
    generator = np.random.default_rng(seed)
    at_once = max(1, min(DRAWS, CELLS // len(unique)))
    parts = []
    for start in range(0, DRAWS, at_once):
        size = min(at_once, DRAWS - start)
        samples = generator.multinomial(len(rows), counts / len(rows), size=size)  # (S, K)
        parts.append(difference(samples, unique))
    differences = np.concatenate(parts)  # (DRAWS,)
    low, high = np.quantile(differences, [0.025, 0.975])
    beyond = min((differences <= 0).mean(), (differences >= 0).mean())
    return (estimate, float(low), float(high)), min(1.0, max(2 * float(beyond), 2 / DRAWS))


def ratio_interval(parts: np.ndarray, sizes: np.ndarray, seed: int = 0) -> Interval:
    """sum(parts) / sum(sizes) of groups, (K,) each and sizes above 0, with its 95 % interval over
    groups: what stands in one group, as the tokens of a conversation, is not independent.

    A bootstrap over groups; from MANY different ones on what it comes to, the linearised estimator
    (Cochran 1977, Sampling Techniques, 6.4). Of one group the interval is everything. Raises
    ValueError where the two have not the same groups, or none.
    """
    if parts.shape != sizes.shape or parts.size == 0:
        raise ValueError(f"got {parts.shape} parts and {sizes.shape} sizes; expected one a group")
    rows = np.stack([parts, sizes], axis=1).astype(np.float64)
    ratio = math.fsum(rows[:, 0]) / math.fsum(rows[:, 1])
    if not math.isfinite(ratio):
        return math.nan, math.nan, math.nan
    if len(rows) == 1:
        return ratio, -math.inf, math.inf
    if len(np.unique(rows, axis=0)) <= MANY:
        (_, low, high), _ = bootstrap(rows, _ratios, seed)
        return ratio, low, high
    beyond = rows[:, 0] - ratio * rows[:, 1]  # what each group adds more than its size
    half = Z_975 * float(beyond.std(ddof=1)) * len(rows) ** 0.5 / float(rows[:, 1].sum())
    return ratio, ratio - half, ratio + half


def macro_f1_difference(classes: int) -> Difference:
    """For bootstrap(): first less second macro F1 of rows (label, first answer, second answer),
    each the number of a class."""

    def difference(counts: np.ndarray, rows: np.ndarray) -> np.ndarray:
        hot = np.eye(classes)[rows]  # (K, 3, C)
        return set_f1_difference(counts, hot.reshape(len(rows), -1))

    return difference


def set_f1_difference(counts: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """For bootstrap(): first less second macro F1 of several labels a row, whose rows are (C of the
    truth, C of the first answer, C of the second), each 0 or 1."""
    truth, first, second = np.split(rows.astype(np.float64), 3, axis=1)  # (K, C) each
    weights = counts.astype(np.float64)
    true = weights @ truth  # (S, C)
    figures = []
    for answer in (first, second):
        hits, predicted = weights @ (truth * answer), weights @ answer
        figures.append((2 * hits / np.maximum(true + predicted, 1)).mean(axis=1))
    return np.asarray(figures[0] - figures[1])


def rank_sum(first: np.ndarray, second: np.ndarray) -> float:
    """The one-sided p of the rank sum test (Mann and Whitney 1947): how likely chance alone makes
    the numbers of `first` (N,) so much larger than those of `second` (M,), N and M above 0. By the
    normal distribution, with ties and continuity corrected."""
    both = np.concatenate([first, second])
    _, place, counts = np.unique(both, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]  # equals share the mean of their ranks
    n, m, size = len(first), len(second), len(both)
    above = ranks[:n].sum() - n * (n + 1) / 2  # pairs in which the first is the larger
    ties = float((counts.astype(np.float64) ** 3 - counts).sum()) / (size * (size - 1))
    error = math.sqrt(n * m / 12 * (size + 1 - ties))
    return 0.5 * math.erfc((above - n * m / 2 - 0.5) / error / 2**0.5) if error else 1.0


def _normal_interval(first: np.ndarray, second: np.ndarray, root: bool) -> tuple[Interval, float]:
    """What the bootstrap comes to for many rows: estimate ± 1.96 standard errors. What a row adds
    to the root of a mean is its distance from the mean over twice the root."""
    means = np.array([[first.mean(), second.mean()]])
    estimate = float(_difference(means, root)[0])
    if root:
        first, second = (one / (2 * one.mean() ** 0.5 or 1) for one in (first, second))
    error = float((first - second).std(ddof=1)) / first.size**0.5
    half = Z_975 * error
    p = math.erfc(abs(estimate) / error / 2**0.5) if error else 1.0
    return (estimate, estimate - half, estimate + half), p


def _ratios(counts: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """For bootstrap(): the ratio of the sums of rows (part, size)."""
    sums = counts @ rows  # (S, 2)
    return np.asarray(sums[:, 0] / sums[:, 1])


def _mean_difference(root: bool, counts: np.ndarray, rows: np.ndarray) -> np.ndarray:
    return _difference(counts @ rows / counts[0].sum(), root)


def _difference(means: np.ndarray, root: bool) -> np.ndarray:
    """First minus second of means (samples, 2)."""
    figures = np.sqrt(means) if root else means
    return np.asarray(figures[:, 0] - figures[:, 1])
