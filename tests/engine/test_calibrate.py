"""Temperature, thresholds, limit, calibration error: against SciPy, scikit-learn and recounts."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_softmax, logsumexp
from scipy.stats import binom
from sklearn import metrics as sk

from engine import calibrate
from engine.calibrate import (
    SURELY,
    Bins,
    CalibrationCounter,
    count_wrong,
    fit_limit,
    fit_temperature,
    fit_threshold,
    gain,
    negative_log_likelihood,
    probabilities,
    tail,
)
from engine.decision import Decision


def overconfident(rows=400, classes=3, factor=2.5, seed=0):
    """Logits that are `factor` times too large for how often they are right."""
    random = np.random.default_rng(seed)
    logits = random.normal(size=(rows, classes)) * 1.5
    shares = np.exp(logits - logsumexp(logits, axis=1, keepdims=True))
    labels = np.array([random.choice(classes, p=share) for share in shares])
    return logits * factor, labels


def several(rows=400, classes=3, factor=2.5, seed=0):
    random = np.random.default_rng(seed)
    logits = random.normal(size=(rows, classes)) * 1.5
    return logits * factor, (random.random((rows, classes)) < expit(logits)).astype(np.float32)


def test_the_loss_is_scikit_learns():
    logits, labels = overconfident()
    shares = np.exp(log_softmax(logits / 1.7, axis=1))
    own = negative_log_likelihood("single", logits, labels, 1.7)
    assert own == pytest.approx(sk.log_loss(labels, shares))
    logits, labels = several()
    own = negative_log_likelihood("multi", logits, labels, 1.7)
    assert own == pytest.approx(sk.log_loss(labels.ravel(), expit(logits / 1.7).ravel()))


@pytest.mark.parametrize("factor", [0.3, 0.9, 1.4, 2.5, 6.0])
@pytest.mark.parametrize(("kind", "make"), [("single", overconfident), ("multi", several)])
def test_the_temperature_is_scipys_optimum(kind, make, factor):
    logits, labels = make(factor=factor)

    def loss(log_temperature):
        return negative_log_likelihood(kind, logits, labels, np.exp(log_temperature))

    stock = minimize_scalar(loss, bounds=(-2.9, 2.9), method="bounded", options={"xatol": 1e-10})
    assert fit_temperature(kind, logits, labels) == pytest.approx(np.exp(stock.x), rel=1e-5)


def test_the_temperature_undoes_what_made_logits_too_large():
    logits, labels = overconfident(rows=20_000, factor=2.5)
    assert fit_temperature("single", logits, labels) == pytest.approx(2.5, rel=0.05)


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.05, 30), st.integers(2, 6), st.integers(1, 60),
       st.sampled_from(["single", "multi"]))  # fmt: skip
def test_no_temperature_makes_the_loss_worse_or_moves_an_answer(seed, factor, classes, rows, kind):
    make = overconfident if kind == "single" else several
    logits, labels = make(rows, classes, factor, seed)
    temperature = fit_temperature(kind, logits, labels)
    assert 1 / 20 <= temperature <= 20
    plain = negative_log_likelihood(kind, logits, labels)
    assert negative_log_likelihood(kind, logits, labels, temperature) <= plain
    before, after = (probabilities(kind, logits, t) for t in (1.0, temperature))
    if kind == "single":
        assert (before.argmax(axis=1) == after.argmax(axis=1)).all()
    else:
        assert ((before > 0.5) == (after > 0.5)).all()


def test_a_model_that_knows_nothing_stays_within_the_bounds():
    random = np.random.default_rng(0)
    logits, labels = random.normal(size=(500, 2)) * 9, random.integers(0, 2, 500)
    assert fit_temperature("single", -logits, labels) <= calibrate.HOTTEST
    worst = np.eye(2)[1 - labels] * 5.0  # always wrong: no temperature below infinity is best
    assert fit_temperature("single", worst, labels) == calibrate.HOTTEST


def test_rows_all_right_would_call_for_ever_steeper_answers():
    labels = np.arange(100) % 2
    logits = np.eye(2)[labels]
    assert count_wrong("single", logits, labels) == 0  # why such rows fit no temperature
    assert fit_temperature("single", logits, labels) == 1 / calibrate.HOTTEST


@pytest.mark.parametrize("seed", range(20))
def test_a_threshold_is_the_best_of_all_by_brute_force(seed):
    random = np.random.default_rng(seed)
    held = random.random(80) < 0.3
    logits = np.round(random.normal(size=80) + held * 1.2 - 1.5, 1)  # with equal ones
    cut = fit_threshold(logits, held)
    cuts = np.concatenate([[logits.min() - 1], np.unique(logits)])
    best = max(sk.f1_score(held, logits > one, zero_division=0) for one in cuts)
    assert sk.f1_score(held, logits > cut, zero_division=0) == pytest.approx(best)
    assert not (np.abs(logits - cut) < 1e-9).any() or cut == 0  # between two rows


def test_a_threshold_stays_at_one_half_where_nothing_is_better():
    held = np.array([True] * 10 + [False] * 10)
    assert fit_threshold(np.where(held, 0.1, -3.0), held) == 0.0
    assert fit_threshold(np.array([1.0, 1.0]), np.array([False, False])) == 0.0


def test_a_tail_of_the_binomial_is_scipys():
    for count, hits, share in [(10, 7, 0.5), (200, 195, 0.95), (5000, 4780, 0.95), (3, 0, 0.2)]:
        assert tail(count, hits, share) == pytest.approx(binom.sf(hits - 1, count, share), rel=1e-9)


def test_a_limit_lets_the_most_pass_that_can_be_shown():
    sure = np.linspace(0.5, 1, 1000)
    right = np.ones(1000, dtype=bool)
    right[:500:2] = False  # the less sure half is right every other time
    limit = fit_limit(sure, right, 0.95)
    passed = sure >= limit.value
    assert (limit.answered, limit.right) == (passed.sum(), right[passed].sum())
    assert limit.answered == 500  # 5 % more would be right in 95.5 %, which shows too little
    assert fit_limit(sure, np.ones(1000, dtype=bool), 0.95).value == 0.0
    assert fit_limit(sure, right[::-1], 0.95).value is None
    assert fit_limit(sure[:40], np.ones(40, dtype=bool), 0.95).value is None  # too few to show it


def test_equal_answers_pass_a_limit_together_or_not_at_all():
    sure = np.array([0.9] * 300 + [0.6] * 300)
    right = np.array([True] * 300 + [False] * 300)
    assert fit_limit(sure, right, 0.9).value == 0.9
    sure = np.full(600, 0.8)
    assert fit_limit(sure, right, 0.9).value is None


def test_a_limit_keeps_its_promise_on_new_rows():
    """The plain share of the validation rows would break it every other time."""
    random = np.random.default_rng(0)
    every = np.sort(random.beta(2, 0.6, 400_000) / 2 + 0.5)
    precision = np.cumsum(every[::-1])[::-1] / np.arange(len(every), 0, -1)  # above each
    broken = plainly = 0
    for _ in range(100):
        sure = random.choice(every, 1000)
        right = random.random(1000) < sure
        limit = fit_limit(sure, right, 0.95)
        if limit.value is not None:
            broken += precision[min(np.searchsorted(every, limit.value), len(every) - 1)] < 0.95
        order = np.argsort(-sure)
        enough = np.flatnonzero(right[order].cumsum() / np.arange(1, 1001) >= 0.95)
        plain = sure[order][enough[-1]]
        plainly += precision[np.searchsorted(every, plain)] < 0.95
    assert broken <= 9  # 5 of 100, and two deviations of that
    assert plainly >= 35


@pytest.mark.parametrize(("rows", "ties"), [(300, None), (1000, None), (2000, None), (1000, 1)])
@pytest.mark.parametrize(("share", "asked"), [(0.9495, 0.95), (0.799, 0.8)])
def test_a_promise_that_no_part_of_the_answers_keeps_is_seldom_given(rows, ties, share, asked):
    """Where all parts of the answers are as precise, each limit that is tried could pass by luck;
    of independent tries one of seven draws would have one that does."""
    random, draws = np.random.default_rng(rows), 400
    broken = 0
    for _ in range(draws):
        sure = random.random(rows) if ties is None else np.round(random.random(rows), ties)
        broken += fit_limit(sure, random.random(rows) < share, asked).value is not None
    assert broken <= 0.05 * draws + 2 * (0.05 * 0.95 * draws) ** 0.5


def test_a_limit_of_one_lets_answers_pass_that_are_surely_one():
    sure = np.concatenate([np.ones(600), np.full(400, 0.9)])
    right = np.concatenate([np.ones(600, dtype=bool), np.arange(400) % 2 > 0])
    limit = fit_limit(sure, right, 0.95)
    assert limit == calibrate.Limit(1.0, 600, 600)
    unsure = Decision("single", limit=limit.value).are_unsure(torch.from_numpy(sure))
    assert unsure.tolist() == [False] * 600 + [True] * 400


def test_the_calibration_error_is_a_recount():
    random = np.random.default_rng(1)
    sure = random.random(500)
    right = random.random(500) < sure**2
    bins = Bins()
    for part in np.array_split(np.arange(500), 7):
        bins.add(sure[part], right[part])
    place = np.digitize(sure, np.linspace(0, 1, 11)[1:-1])
    wanted = sum(
        (place == b).mean() * abs(sure[place == b].mean() - right[place == b].mean())
        for b in range(10)
        if (place == b).any()
    )
    assert bins.error() == pytest.approx(wanted)


@pytest.mark.parametrize(("kind", "make"), [("single", overconfident), ("multi", several)])
def test_figures_do_not_depend_on_batches_and_a_temperature_betters_them(kind, make):
    logits, labels = make(rows=2000)
    temperature = fit_temperature(kind, logits, labels)
    whole, cut = (CalibrationCounter(kind, temperature) for _ in range(2))
    whole.update(logits, labels)
    for part in np.array_split(np.arange(2000), 9):
        cut.update(logits[part], labels[part])
    results = whole.results()
    assert cut.results() == pytest.approx(results)
    assert results["n"] == 2000
    assert results["nll_before"] == pytest.approx(negative_log_likelihood(kind, logits, labels))
    assert results["nll_after"] < results["nll_before"]
    assert results["ece_after"] < results["ece_before"] / 2


def test_probabilities_that_are_right_are_left_as_they_are():
    """A temperature that is fitted to luck would make them worse, on few rows nine times of ten."""
    kept = worse = 0
    for seed in range(100):
        logits, labels = overconfident(rows=200, classes=2, factor=1.0, seed=seed)
        temperature = fit_temperature("single", logits, labels)
        kept += gain("single", logits, labels, temperature) < SURELY
        new, truth = overconfident(rows=1000, classes=2, factor=1.0, seed=1000 + seed)
        plain = negative_log_likelihood("single", new, truth)
        worse += negative_log_likelihood("single", new, truth, temperature) > plain
    assert kept >= 96
    assert worse >= 60
    sure = sum(
        gain("single", *rows, fit_temperature("single", *rows)) >= SURELY
        for rows in (overconfident(rows=200, classes=2, factor=2.0, seed=s) for s in range(100))
    )
    assert sure >= 96
