"""The interval of a difference on the same rows: against the normal one and cases by hand."""

import numpy as np
import pytest
from scipy import stats

from engine.paired import paired_interval


def test_it_is_the_normal_interval_for_many_rows():
    random = np.random.default_rng(1)
    first, second = (random.random(2000) < 0.8).astype(float), (random.random(2000) < 0.75) * 1.0
    wanted = stats.ttest_rel(first, second).confidence_interval()
    estimate, low, high = paired_interval(first, second)
    assert estimate == pytest.approx((first - second).mean())
    half = (wanted.high - wanted.low) / 2
    assert (low, high) == pytest.approx((wanted.low, wanted.high), abs=0.1 * half)


def test_it_is_narrower_than_that_of_unpaired_rows():
    random = np.random.default_rng(1)
    first = (random.random(1000) < 0.7).astype(float)
    second = first.copy()
    second[:50] = 0
    _, low, high = paired_interval(first, second)
    unpaired = stats.ttest_ind(first, second).confidence_interval()
    assert high - low < (unpaired.high - unpaired.low) / 2


@pytest.mark.parametrize("rows", [300, 1500])  # drawn, and worked out
def test_of_squared_errors_it_is_that_of_the_rmse(rows):
    random = np.random.default_rng(1)
    first, second = (np.square(scale * random.normal(size=rows)) for scale in (3.0, 2.0))
    estimate, low, high = paired_interval(first, second, root=True)
    assert estimate == pytest.approx(first.mean() ** 0.5 - second.mean() ** 0.5)
    wanted = stats.bootstrap(
        (first, second), lambda a, b: a.mean() ** 0.5 - b.mean() ** 0.5, paired=True,
        vectorized=False, n_resamples=3000, method="percentile", random_state=0,
    ).confidence_interval  # fmt: skip
    assert (low, high) == pytest.approx((wanted.low, wanted.high), abs=0.03)


def test_rows_that_all_agree_leave_no_doubt():
    assert paired_interval(np.ones(10), np.ones(10)) == (0.0, 0.0, 0.0)


def test_the_same_rows_give_the_same_interval():
    random = np.random.default_rng(1)
    first, second = random.random((2, 50_000))
    assert paired_interval(first, second) == paired_interval(first, second)


def test_other_rows_are_refused():
    with pytest.raises(ValueError, match="expected one a row"):
        paired_interval(np.ones(3), np.ones(4))
    with pytest.raises(ValueError, match="expected one a row"):
        paired_interval(np.ones(0), np.ones(0))
