"""The summary over seeds, against SciPy's Student t."""

import math

import pytest

from report.seeds import T_975, seeds_table, summarise

stats = pytest.importorskip("scipy.stats")


@pytest.mark.parametrize("degrees", sorted(T_975))
def test_table_holds_the_t_quantiles(degrees):
    assert T_975[degrees] == pytest.approx(stats.t.ppf(0.975, degrees), abs=5.1e-4)


@pytest.mark.parametrize("count", [2, 3, 5, 10, 31])
def test_interval_is_scipys(count):
    values = [0.9 + 0.01 * math.sin(7 * i) for i in range(count)]
    summary = summarise(values)
    error = stats.sem(values)
    low, high = stats.t.interval(0.95, count - 1, loc=summary.mean, scale=error)
    assert (summary.low, summary.high) == pytest.approx((low, high), abs=1e-3 * error)
    assert summary.spread == pytest.approx(stats.tstd(values))


@pytest.mark.parametrize("count", [33, 50, 90, 500])
def test_between_two_rows_the_interval_errs_on_the_wide_side(count):
    values = [float(i % 7) for i in range(count)]
    summary = summarise(values)
    low, high = stats.t.interval(0.95, count - 1, loc=summary.mean, scale=stats.sem(values))
    assert summary.low < low
    assert summary.high > high
    assert summary.high - summary.low < 1.04 * (high - low)


def test_equal_values_have_an_interval_of_no_width():
    summary = summarise([0.5, 0.5, 0.5])
    assert (summary.spread, summary.low, summary.high) == (0, 0.5, 0.5)


def test_one_seed_has_a_mean_and_claims_nothing_more():
    summary = summarise([0.91])
    assert (summary.mean, summary.spread, summary.low, summary.high) == (0.91, None, None, None)
    assert "neither spread nor interval" in str(summary)


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
