"""The intervals and p values against scipy's own, and against cases worked by hand."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from report.intervals import (
    MANY,
    fisher,
    holm,
    mcnemar,
    mean_interval,
    share_difference,
    student_quantile,
    welch_interval,
)

FIRST, SECOND = [0.86, 0.87, 0.855], [0.85, 0.84, 0.862]
EXACT = {"rel": 1e-12, "abs": 1e-12}
values = st.lists(st.floats(-1e3, 1e3).map(lambda x: round(x, 6)), min_size=2, max_size=30)


@given(st.one_of(st.floats(0.5, 3 * MANY), st.integers(1, 10**9)))
def test_students_quantile_is_scipys(freedom):
    assert student_quantile(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=1e-12)


@pytest.mark.parametrize("freedom", [0, -1, math.nan])
def test_no_freedom_is_refused(freedom):
    with pytest.raises(ValueError, match="degrees of freedom"):
        student_quantile(freedom)


@given(st.integers(0, 400), st.integers(0, 400), st.integers(0, 400))
def test_a_paired_difference_and_its_p_are_scipys(first_only, second_only, both):
    rows = first_only + second_only + both + 2
    differences = np.zeros(rows)
    differences[:first_only], differences[first_only : first_only + second_only] = 1, -1
    estimate, low, high = share_difference(first_only, second_only, rows)
    assert estimate == pytest.approx(differences.mean(), **EXACT)
    if first_only + second_only:
        wanted = stats.ttest_1samp(differences, 0).confidence_interval()
        assert (low, high) == pytest.approx((wanted.low, wanted.high), **EXACT)
        test = stats.binomtest(first_only, first_only + second_only)
        assert mcnemar(first_only, second_only) == pytest.approx(test.pvalue, **EXACT)
    else:
        assert (low, high) == (0, 0)


def test_models_that_never_differ_have_p_1_and_no_width():
    assert mcnemar(0, 0) == 1
    assert share_difference(0, 0, 10) == (0, 0, 0)


def test_many_single_rows_take_no_time():
    assert mcnemar(9_000, 11_000) == pytest.approx(stats.binomtest(9_000, 20_000).pvalue, rel=1e-9)


@pytest.mark.parametrize("counts", [(0, 0, 0), (2, 2, 3), (-1, 1, 5)])
def test_counts_that_cannot_be_are_refused(counts):
    with pytest.raises(ValueError, match="rows"):
        share_difference(*counts)


@given(values)
def test_the_interval_of_a_mean_is_students(numbers):
    wanted = stats.t.interval(
        0.95, len(numbers) - 1, loc=np.mean(numbers), scale=stats.sem(numbers)
    )
    scale = max(1.0, max(map(abs, numbers)))
    if len(set(numbers)) > 1:
        assert mean_interval(numbers)[1:] == pytest.approx(wanted, rel=1e-12, abs=1e-12 * scale)


def test_the_interval_of_a_difference_is_welchs():
    wanted = stats.ttest_ind(FIRST, SECOND, equal_var=False).confidence_interval()
    estimate, low, high = welch_interval(FIRST, SECOND)
    assert (low, high) == pytest.approx((wanted.low, wanted.high), **EXACT)
    assert estimate == pytest.approx((low + high) / 2)


def test_one_value_says_nothing_of_its_spread():
    assert mean_interval([0.9]) == (0.9, -math.inf, math.inf)
    assert share_difference(1, 0, 1) == (1, -math.inf, math.inf)


def test_values_that_agree_have_no_width():
    assert welch_interval([0.5, 0.5], [0.25, 0.25]) == (0.25, 0.25, 0.25)


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 400), st.integers(1, 400), st.data())
def test_fishers_p_is_scipys(rows, others, data):
    right, elsewhere = data.draw(st.integers(0, rows)), data.draw(st.integers(0, others))
    table = [[right, rows - right], [elsewhere, others - elsewhere]]
    stock = stats.fisher_exact(table, alternative="less").pvalue
    assert fisher(right, rows, elsewhere, others) == pytest.approx(stock, rel=1e-7, abs=1e-12)


def test_a_tiny_p_of_many_rows_is_not_rounded_away():
    table = [[70_000, 30_000], [750_000, 250_000]]
    stock = stats.fisher_exact(table, alternative="less").pvalue
    assert fisher(70_000, 100_000, 750_000, 1_000_000) == pytest.approx(stock, rel=1e-5)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_names_what_his_adjusted_p_names(ps):
    order, adjusted, most = np.argsort(ps, kind="stable"), np.zeros(len(ps)), 0.0
    for rank, place in enumerate(order):  # R's p.adjust(p, "holm")
        most = max(most, (len(ps) - rank) * ps[place])
        adjusted[place] = most
    expected = adjusted <= 0.05
    near = np.isclose(adjusted, 0.05, rtol=1e-9)
    assert ((np.array(holm(ps, 0.05)) == expected) | near).all()
