"""The interval of a difference on the same rows: against the normal one and cases by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from engine.intervals import (
    DRAWS,
    MANY,
    bootstrap,
    macro_f1_difference,
    paired_difference,
    paired_interval,
    rank_sum,
    set_f1_difference,
)


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


@pytest.mark.parametrize("several", [False, True])
def test_the_difference_in_macro_f1_is_scikit_learns(several):
    metrics = pytest.importorskip("sklearn.metrics")
    random = np.random.default_rng(3)
    if several:
        truth = random.integers(0, 2, (200, 4))
        one, two = (
            np.where(random.random((200, 4)) < keep, truth, 1 - truth) for keep in (0.9, 0.7)
        )
        rows, difference = np.concatenate([truth, one, two], axis=1), set_f1_difference
    else:
        truth = random.integers(0, 3, 200)
        one, two = (
            np.where(random.random(200) < keep, truth, random.integers(0, 3, 200))
            for keep in (0.9, 0.6)
        )
        rows, difference = np.stack([truth, one, two], axis=1), macro_f1_difference(3)

    def score(truth, one, two, axis=-1):
        first, second = (metrics.f1_score(truth, each, average="macro") for each in (one, two))
        return first - second

    (estimate, low, high), p = bootstrap(rows, difference)
    assert estimate == pytest.approx(score(truth, one, two))
    drawn = [random.integers(0, 200, 200) for _ in range(600)]
    wanted = np.quantile([score(truth[i], one[i], two[i]) for i in drawn], [0.025, 0.975])
    assert (low, high) == pytest.approx(wanted, abs=0.03)
    assert p == 2 / DRAWS


@pytest.mark.parametrize("rows", [200, 3000])
def test_p_is_that_of_a_paired_t_test(rows):
    random = np.random.default_rng(5)
    first = random.normal(size=rows).round(1 if rows < MANY else 6)
    second = first + random.normal(0.02, 0.3, size=rows).round(1 if rows < MANY else 6)
    _, p = paired_difference(first, second)
    assert p == pytest.approx(stats.ttest_rel(first, second).pvalue, abs=0.02)
    assert paired_difference(first, first)[1] == 1


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=30),
    st.lists(st.integers(0, 9), min_size=1, max_size=30),
)
def test_the_p_of_rank_sums_is_scipys(first, second):
    ours = rank_sum(np.array(first, dtype=float), np.array(second, dtype=float))
    if len({*first, *second}) == 1:
        assert ours == 1.0
    else:
        stock = stats.mannwhitneyu(first, second, alternative="greater", method="asymptotic").pvalue
        assert ours == pytest.approx(stock, abs=1e-12)
