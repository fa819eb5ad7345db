"""The difference of two figures on the same rows, with its interval."""

import numpy as np

Interval = tuple[float, float, float]  # estimate, low, high
DRAWS = 10_000  # samples of the rows
MANY = 500  # different rows from which on no samples are needed


def paired_interval(
    first: np.ndarray, second: np.ndarray, root: bool = False, seed: int = 0
) -> Interval:
    """mean(first) - mean(second) of numbers a row, (N,) each, and its 95 % interval.

    With `root` the difference of the roots of the means: of squared errors the difference in rmse.
    A bootstrap over rows (Efron 1979): each sample draws whole rows, so what makes a row hard for
    both sides cancels. Raises ValueError where the two have not the same rows, or none.
    """
    if first.shape != second.shape or first.size == 0:
        raise ValueError(f"got {first.shape} and {second.shape} numbers; expected one a row, (N,)")
    rows, counts = np.unique(np.stack([first, second], axis=1), axis=0, return_counts=True)
    estimate = float(_difference(counts @ rows[None] / first.size, root)[0])
    if len(rows) > MANY:
        return _normal_interval(first, second, root, estimate)
    # drawing rows with replacement is drawing how often each different row comes
    generator = np.random.default_rng(seed)
    drawn = generator.multinomial(first.size, counts / first.size, size=DRAWS)  # (samples, rows)
    low, high = np.quantile(_difference(drawn @ rows / first.size, root), [0.025, 0.975])
    return estimate, float(low), float(high)


def _normal_interval(
    first: np.ndarray, second: np.ndarray, root: bool, estimate: float
) -> Interval:
    """The interval that the bootstrap comes to for many rows: estimate ± 1.96 standard errors. What
    a row adds to the root of a mean is its distance from the mean over twice the root."""
    if root:
        first, second = (one / (2 * one.mean() ** 0.5 or 1) for one in (first, second))
    half = 1.959963984540054 * float((first - second).std(ddof=1)) / first.size**0.5
    return estimate, estimate - half, estimate + half


def _difference(means: np.ndarray, root: bool) -> np.ndarray:
    """First minus second of means (samples, 2)."""
    figures = np.sqrt(means) if root else means
    return np.asarray(figures[:, 0] - figures[:, 1])
