"""95 % intervals over seeds: of a mean, of a difference of two means."""

import statistics
from collections.abc import Sequence

from scipy.stats import t as student

Interval = tuple[float, float, float]  # estimate, low, high


def mean_interval(values: Sequence[float]) -> Interval:
    """Student's interval of the mean; of one value the interval is everything."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return mean, float("-inf"), float("inf")
    error = statistics.stdev(values) / len(values) ** 0.5
    half = float(student.ppf(0.975, len(values) - 1)) * error
    return mean, mean - half, mean + half


def welch_interval(first: Sequence[float], second: Sequence[float]) -> Interval:
    """Welch's interval of mean(first) - mean(second): no equal variances assumed, and no pairs,
    since a seed draws unlike numbers in two programs."""
    difference = statistics.fmean(first) - statistics.fmean(second)
    if min(len(first), len(second)) < 2:
        return difference, float("-inf"), float("inf")
    parts = [statistics.variance(v) / len(v) for v in (first, second)]
    if sum(parts) == 0:
        return difference, difference, difference
    freedom = sum(parts) ** 2 / sum(
        part**2 / (len(v) - 1) for part, v in zip(parts, (first, second), strict=True)
    )
    half = float(student.ppf(0.975, freedom)) * sum(parts) ** 0.5
    return difference, difference - half, difference + half
