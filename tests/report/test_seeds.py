"""The summary over seeds, against SciPy's Student t."""

import math

import pytest

from report.seeds import seeds_table, summarise

stats = pytest.importorskip("scipy.stats")


@pytest.mark.parametrize("count", [3, 5, 10, 31])
def test_interval_is_scipys(count):
    values = [0.9 + 0.01 * math.sin(7 * i) for i in range(count)]
    summary = summarise(values)
    error = stats.sem(values)
    low, high = stats.t.interval(0.95, count - 1, loc=summary.mean, scale=error)
    assert (summary.low, summary.high) == pytest.approx((low, high), rel=1e-12)
    assert summary.spread == pytest.approx(stats.tstd(values))


def test_equal_values_have_an_interval_of_no_width():
    summary = summarise([0.5, 0.5, 0.5])
    assert (summary.spread, summary.low, summary.high) == (0, 0.5, 0.5)


def test_one_seed_has_a_mean_and_claims_nothing_more():
    summary = summarise([0.91])
    assert (summary.mean, summary.spread, summary.low, summary.high) == (0.91, None, None, None)
    assert "neither spread nor interval" in str(summary)


def test_two_seeds_have_a_spread_and_no_interval():
    summary = summarise([0.6, 0.77])
    assert summary.spread == pytest.approx(0.1202, abs=1e-4)
    assert (summary.low, summary.high) == (None, None)
    assert str(summary) == "mean 0.685, spread 0.1202 (2 seeds: too few for an interval)"


@pytest.mark.parametrize(
    ("metric", "values", "least", "most"),
    [
        ("test accuracy", [0.5, 0.99, 0.98], 0, 1), ("test accuracy", [0.02, 0.3, 0.0], 0, 1),
        ("test r2", [0.9, 0.2, 0.95], -math.inf, 1), ("test loss", [0.1, 0.9, 0.2], 0, math.inf),
        ("rmse", [5.0, 900.0, 10.0], 0, math.inf), ("unknown", [0.5, 9.0, 1.0], -99, 99),
    ],
)  # fmt: skip
def test_an_interval_ends_where_the_metric_does(metric, values, least, most):
    line = seeds_table(metric, dict(enumerate(values))).splitlines()[-1]
    shown = line.partition("interval ")[2].partition(" (n")[0].replace(",", "").split(" to ")
    mean, error = sum(values) / 3, stats.sem(values)
    low, high = stats.t.interval(0.95, 2, loc=mean, scale=error)
    assert low < least or high > most or metric == "unknown"  # else it would show nothing
    expected = [max(least, low), min(most, high)]
    assert [float(number) for number in shown] == pytest.approx(expected, rel=1e-2, abs=1e-3)


def test_no_values_are_refused():
    with pytest.raises(ValueError, match="no values"):
        summarise([])


def test_seeds_are_listed_above_their_summary():
    lines = seeds_table("test/accuracy", {0: 0.9, 1: 0.88, 12: 0.92}).splitlines()
    assert lines[:4] == [
        "seed  test/accuracy",
        "   0            0.9",
        "   1           0.88",
        "  12           0.92",
    ]
    assert lines[4] == "mean 0.9, spread 0.02, 95 % interval 0.8503 to 0.9497 (n = 3 seeds)"
