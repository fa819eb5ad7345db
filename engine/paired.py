"""The difference of two figures on the same rows, with its interval."""

import numpy as np

Interval = tuple[float, float, float]  # estimate, low, high
DRAWS = 10_000  # samples of the rows
NUMBERS = 20_000_000  # drawn at most: of very many different rows fewer samples do


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
    # drawing rows with replacement is drawing how often each different row comes
    draws = max(1000, min(DRAWS, NUMBERS // len(rows)))
    generator, size = np.random.default_rng(seed), max(1, NUMBERS // len(rows) // 10)
    parts = []
    while draws > 0:
        drawn = generator.multinomial(first.size, counts / first.size, size=min(size, draws))
        parts.append(_difference(drawn @ rows / first.size, root))  # (samples,)
        draws -= size
    low, high = np.quantile(np.concatenate(parts), [0.025, 0.975])
    means = counts @ rows / first.size
    return float(_difference(means[None], root)[0]), float(low), float(high)


def _difference(means: np.ndarray, root: bool) -> np.ndarray:
    """First minus second of means (samples, 2)."""
    figures = np.sqrt(means) if root else means
    return np.asarray(figures[:, 0] - figures[:, 1])
