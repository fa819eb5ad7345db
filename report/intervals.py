"""95 % intervals and p values from plain numbers, without numpy or scipy. Tests hold them to those
of scipy, to 1e-12."""

import math
import statistics
from collections.abc import Sequence

Interval = tuple[float, float, float]  # estimate, low, high

Z_975 = 1.959963984540054  # of the normal distribution
MANY = 1000  # degrees of freedom from which on the series in 1 / freedom is exact to 1e-15


def student_quantile(freedom: float) -> float:
    """Student's t, two-sided 95 %: the 0.975 quantile for so many degrees of freedom, whole or not.

    Below MANY the distribution, an incomplete beta function, is solved by Newton's method; from
    there on a series (Abramowitz and Stegun 1964, 26.7.5). Raises ValueError below half a degree.
    """
    if not freedom >= 0.5:
        raise ValueError(f"got {freedom} degrees of freedom; expected 0.5 or more")
    z = Z_975
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    t = z + sum(term / freedom**power for power, term in enumerate(terms, start=1))
    if freedom >= MANY:
        return t
    for _ in range(200):  # from above, where the tail is convex, Newton's steps never pass the root
        tail, density = _student_tail(t, freedom)
        step = (tail - 0.025) / density
        t += step
        if abs(step) <= 1e-15 * t:
            break
    return t


def _student_tail(t: float, freedom: float) -> tuple[float, float]:
    """(P(T > t), density at t) of Student's distribution."""
    a, x = freedom / 2, freedom / (freedom + t * t)
    log_beta = math.lgamma(a) + math.lgamma(0.5) - math.lgamma(a + 0.5)
    front = math.exp(a * math.log(x) + 0.5 * math.log1p(-x) - log_beta)
    density = math.exp((a + 0.5) * math.log(x) - log_beta) / math.sqrt(freedom)
    if x < (a + 1) / (a + 2.5):
        return front * _beta_fraction(x, a, 0.5) / a / 2, density
    return (1 - front * _beta_fraction(1 - x, 0.5, a) / 0.5) / 2, density


def _beta_fraction(x: float, a: float, b: float) -> float:
    """The continued fraction of the incomplete beta function (DLMF 8.17.22), by Lentz's method."""
    c, d = 1.0, 1 / (1 - (a + b) * x / (a + 1))
    value = d
    for m in range(1, 10_000):
        for factor in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            c, d = 1 + factor / c, 1 / (1 + factor * d)
            value *= c * d
        if abs(c * d - 1) < 1e-16:
            break
    return value


def mean_interval(values: Sequence[float]) -> Interval:
    """Student's interval of the mean; of one value the interval is everything."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return mean, -math.inf, math.inf
    error = statistics.stdev(values) / len(values) ** 0.5
    half = student_quantile(len(values) - 1) * error
    return mean, mean - half, mean + half


def welch_interval(first: Sequence[float], second: Sequence[float]) -> Interval:
    """Welch's interval of mean(first) - mean(second): no equal variances assumed, and no pairs,
    since a seed draws unlike numbers in two programs."""
    difference = statistics.fmean(first) - statistics.fmean(second)
    if min(len(first), len(second)) < 2:
        return difference, -math.inf, math.inf
    parts = [statistics.variance(v) / len(v) for v in (first, second)]
    if sum(parts) == 0:
        return difference, difference, difference
    freedom = sum(parts) ** 2 / sum(
        part**2 / (len(v) - 1) for part, v in zip(parts, (first, second), strict=True)
    )
    half = student_quantile(freedom) * sum(parts) ** 0.5
    return difference, difference - half, difference + half


def share_difference(first_only: int, second_only: int, rows: int) -> Interval:
    """The difference of two shares on the same rows: of the right answers of two models, of which
    `first_only` rows are right in the first alone. Student's interval of the differences a row,
    which are 1, -1 and 0. Raises ValueError where there are no rows or more single ones than rows.
    """
    single = first_only + second_only
    if rows < 1 or min(first_only, second_only) < 0 or single > rows:
        raise ValueError(f"got {first_only} and {second_only} of {rows} rows")
    mean = (first_only - second_only) / rows
    if rows < 2:
        return mean, -math.inf, math.inf
    squares = (single * rows - (first_only - second_only) ** 2) / rows  # around the mean, exactly
    half = student_quantile(rows - 1) * math.sqrt(squares / (rows - 1) / rows)
    return mean, mean - half, mean + half


def mcnemar(first_only: int, second_only: int) -> float:
    """The exact two-sided p of McNemar's test (1947): how often a fair coin, thrown for each row
    that one of two models alone has right, comes out at least so uneven."""
    throws, fewer = first_only + second_only, min(first_only, second_only)
    ways = term = 1
    for k in range(1, fewer + 1):
        term = term * (throws - k + 1) // k
        ways += term
    return min(1.0, 2 * ways / 2**throws)


def fisher(right: int, rows: int, right_others: int, other_rows: int) -> float:
    """The exact one-sided p of Fisher's test (1934): how likely so few of the right answers, or
    fewer, fall on these `rows`, were all of them dealt out by chance."""
    total, drawn = rows + other_rows, right + right_others

    def log_choose(n: int, k: int) -> float:
        return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)

    def chance(k: int) -> float:
        ways = log_choose(rows, k) + log_choose(other_rows, drawn - k)
        return math.exp(ways - log_choose(total, drawn))

    least, most = max(0, drawn - other_rows), min(rows, drawn)
    if right * total <= rows * drawn:  # the tail that is summed is the lighter one
        return min(1.0, math.fsum(chance(k) for k in range(least, right + 1)))
    return max(0.0, 1 - math.fsum(chance(k) for k in range(right + 1, most + 1)))


def holm(ps: Sequence[float], level: float) -> list[bool]:
    """Which of several p are sure at a joint level (Holm 1979): the smallest is held against level
    / n, the next against level / (n - 1) and so on, until one is not."""
    sure = [False] * len(ps)
    for rank, place in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        if ps[place] > level / (len(ps) - rank):
            break
        sure[place] = True
    return sure
