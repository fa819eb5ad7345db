"""Several seeds of one recipe, summarised: mean, spread and, from three seeds on, a 95 % interval
for the mean."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from report.format import align_table, format_number
from report.intervals import mean_interval

FEWEST = 3  # of two values t is 12.7: the interval would hold nearly every value there is
RANGES = {  # what a metric can be; the mean of several lies within it too
    **{"accuracy": (0.0, 1.0), "macro_f1": (0.0, 1.0), "spearman": (-1.0, 1.0)},
    **{"r2": (-math.inf, 1.0)},
    **{"loss": (0.0, math.inf), "rmse": (0.0, math.inf), "mae": (0.0, math.inf)},
}


@dataclass(frozen=True)
class Summary:
    """What several seeds say together. From a single value only the mean is known, from two no
    interval that would tell anything."""

    values: int  # how many there were
    mean: float
    spread: float | None  # sample standard deviation, over values - 1
    low: float | None  # the 95 % interval for the mean
    high: float | None

    def __str__(self) -> str:
        mean = f"mean {format_number(self.mean)}"
        if self.spread is None:
            return f"{mean} (one seed: neither spread nor interval)"
        if self.low is None or self.high is None:
            spread = format_number(self.spread)
            return f"{mean}, spread {spread} ({self.values} seeds: too few for an interval)"
        return (
            f"{mean}, spread {format_number(self.spread)}, 95 % interval "
            f"{format_number(self.low)} to {format_number(self.high)} (n = {self.values} seeds)"
        )


def summarise(
    values: Sequence[float], within: tuple[float, float] = (-math.inf, math.inf)
) -> Summary:
    """Mean, sample standard deviation s, and the interval mean ± t·s/√n (n - 1 degrees of freedom),
    cut off where it leaves what a value can be. From FEWEST values on.

    Raises ValueError when there are no values.
    """
    count = len(values)
    if count == 0:
        raise ValueError("summarise got no values; it needs the metric of one seed or more")
    mean = statistics.fmean(values)
    if count == 1:
        return Summary(values=1, mean=mean, spread=None, low=None, high=None)
    spread = statistics.stdev(values)
    if count < FEWEST:
        return Summary(values=count, mean=mean, spread=spread, low=None, high=None)
    _, low, high = mean_interval(values)
    low, high = max(within[0], low), min(within[1], high)
    return Summary(values=count, mean=mean, spread=spread, low=low, high=high)


def seeds_table(metric: str, by_seed: Mapping[int, float]) -> str:
    """One line a seed, and the summary under them. `metric` is a name such as "test accuracy"."""
    rows = [("seed", metric), *((str(seed), format_number(v)) for seed, v in by_seed.items())]
    within = RANGES.get(metric.split()[-1], (-math.inf, math.inf))
    summary = summarise(list(by_seed.values()), within)
    return "\n".join([*align_table(rows, right=(0, 1)), str(summary)])
