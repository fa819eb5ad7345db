"""Several seeds of one recipe, summarised: mean, spread and, from three seeds on, a 95 % interval
for the mean."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from report.format import align_table, format_number

# Student's t, two-sided 95 % (0.975 quantile), by degrees of freedom. NIST/SEMATECH e-Handbook of
# Statistical Methods, section 1.3.6.7.2. Between two rows the lower one holds: a wider interval.
T_975 = {
    **{1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306},
    **{9: 2.262, 10: 2.228, 11: 2.201, 12: 2.179, 13: 2.160, 14: 2.145, 15: 2.131, 16: 2.120},
    **{17: 2.110, 18: 2.101, 19: 2.093, 20: 2.086, 21: 2.080, 22: 2.074, 23: 2.069, 24: 2.064},
    **{25: 2.060, 26: 2.056, 27: 2.052, 28: 2.048, 29: 2.045, 30: 2.042, 40: 2.021, 60: 2.000},
    **{100: 1.984},
}
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
    quantile = T_975[max(degrees for degrees in T_975 if degrees <= count - 1)]
    half = quantile * spread / math.sqrt(count)
    low, high = max(within[0], mean - half), min(within[1], mean + half)
    return Summary(values=count, mean=mean, spread=spread, low=low, high=high)


def seeds_table(metric: str, by_seed: Mapping[int, float]) -> str:
    """One line a seed, and the summary under them. `metric` is a name such as "test accuracy"."""
    rows = [("seed", metric), *((str(seed), format_number(v)) for seed, v in by_seed.items())]
    within = RANGES.get(metric.split()[-1], (-math.inf, math.inf))
    summary = summarise(list(by_seed.values()), within)
    return "\n".join([*align_table(rows, right=(0, 1)), str(summary)])
