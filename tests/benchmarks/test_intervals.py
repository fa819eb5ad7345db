"""The intervals against scipy's own, and against cases worked by hand."""

import pytest
from intervals import mean_interval, welch_interval
from scipy import stats

FIRST, SECOND = [0.86, 0.87, 0.855], [0.85, 0.84, 0.862]


def test_the_interval_of_a_mean_is_students():
    wanted = stats.ttest_1samp(FIRST, 0).confidence_interval()
    assert mean_interval(FIRST)[1:] == pytest.approx((wanted.low, wanted.high))


def test_the_interval_of_a_difference_is_welchs():
    wanted = stats.ttest_ind(FIRST, SECOND, equal_var=False).confidence_interval()
    estimate, low, high = welch_interval(FIRST, SECOND)
    assert (low, high) == pytest.approx((wanted.low, wanted.high))
    assert estimate == pytest.approx((low + high) / 2)


def test_one_value_says_nothing_of_its_spread():
    assert mean_interval([0.9]) == (0.9, float("-inf"), float("inf"))


def test_values_that_agree_have_no_width():
    assert welch_interval([0.5, 0.5], [0.25, 0.25]) == (0.25, 0.25, 0.25)
