"""Streaming counters against scikit-learn, and their independence of how rows are cut."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, rankdata, spearmanr
from sklearn import metrics as sk

from engine.decision import Decision
from engine.intervals import wilson_interval
from engine.metrics import (
    MultiCounter,
    RegressionCounter,
    SingleCounter,
    average_ranks,
    build_counter,
    matthews,
    rank_correlation,
)
from engine.targets import IDENTITY, Target

CPU = torch.device("cpu")


def count_all(kind, num_labels, logits, labels, cuts=(), target=IDENTITY):
    counter = build_counter(Decision(kind, target=target), num_labels, CPU)
    edges = [0, *sorted(cuts), len(labels)]
    for start, end in pairwise(edges):
        counter.update(logits[start:end], labels[start:end])
    return counter.results()


def check_classes(classes, true, said):
    stock = sk.precision_recall_fscore_support(
        true, said, labels=range(len(classes)) if true.ndim == 1 else None, zero_division=0
    )
    for name, values in zip(("precision", "recall", "f1", "n"), stock, strict=True):
        assert [row[name] for row in classes] == pytest.approx(list(values)), name


@pytest.mark.parametrize("absent", [False, True])
def test_single_counter_is_scikit_learns(absent):
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(0, 4, (50,), generator=generator)
    if absent:
        labels[labels == 2] = 0  # a class without rows
    logits = torch.randn(50, 4, generator=generator)
    logits[:, 3] -= 9 * absent  # and one that is never said
    results = count_all("single", 4, logits, labels, cuts=(7, 40))
    true, said = labels.numpy(), logits.argmax(-1).numpy()
    assert results["accuracy"] == pytest.approx(sk.accuracy_score(true, said))
    assert results["confusion"] == sk.confusion_matrix(true, said, labels=range(4)).tolist()
    f1 = sk.f1_score(true, said, labels=range(4), average="macro", zero_division=0)
    assert results["macro_f1"] == pytest.approx(f1)
    check_classes(results["classes"], true, said)
    weighted = sk.f1_score(true, said, average="weighted", zero_division=0)
    assert results["weighted_f1"] == pytest.approx(weighted)
    assert results["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(true, said))
    assert results["mcc"] == pytest.approx(sk.matthews_corrcoef(true, said))
    assert results["n"] == 50


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=30))
@pytest.mark.filterwarnings("ignore:y_pred contains classes", "ignore:A single label")
def test_figures_of_imbalanced_classes_are_scikit_learns(pairs):
    true, said = (torch.tensor(part) for part in zip(*pairs, strict=True))
    results = count_all("single", 4, torch.eye(4)[said], true)
    weighted = sk.f1_score(true, said, average="weighted", zero_division=0)
    assert results["weighted_f1"] == pytest.approx(weighted)
    assert results["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(true, said))
    assert results["mcc"] == pytest.approx(sk.matthews_corrcoef(true, said))
    assert all(math.isfinite(value) for value in results.values() if isinstance(value, float))


def test_the_correlation_coefficient_of_many_rows_does_not_overflow():
    assert matthews([10**12, 10**12], [10**12, 10**12], 2 * 10**12, 2 * 10**12) == 1.0
    assert matthews([10**12, 10**12], [10**12, 10**12], 0, 2 * 10**12) == -1.0


def test_multi_counter_is_scikit_learns():
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(40, 3, generator=generator)
    labels = ((logits + torch.randn(40, 3, generator=generator)) > 0).float()
    logits[:, 2] = -1.0  # a class that is never said
    results = count_all("multi", 3, logits, labels, cuts=(13,))
    true, said = labels.numpy(), (logits > 0).numpy()
    assert results["accuracy"] == pytest.approx(sk.accuracy_score(true, said))
    f1 = sk.f1_score(true, said, average="macro", zero_division=0)
    assert results["macro_f1"] == pytest.approx(f1)
    weighted = sk.f1_score(true, said, average="weighted", zero_division=0)
    assert results["weighted_f1"] == pytest.approx(weighted)
    check_classes(results["classes"], true, said)


@pytest.mark.parametrize("offset", [0.0, 1.7e9])
def test_regression_counter_is_scikit_learns(offset):
    generator = torch.Generator().manual_seed(3)
    labels = torch.randn(30, generator=generator).double() + offset
    logits = (labels + torch.randn(30, generator=generator)).unsqueeze(1)
    results = count_all("regression", 1, logits, labels, cuts=(1, 17))
    true, said = labels.numpy(), logits.squeeze(1).numpy()
    assert results["r2"] == pytest.approx(sk.r2_score(true, said), rel=1e-6)
    assert results["mae"] == pytest.approx(sk.mean_absolute_error(true, said))
    assert results["rmse"] == pytest.approx(math.sqrt(sk.mean_squared_error(true, said)))
    assert results["spearman"] == pytest.approx(spearmanr(true, said).statistic)
    assert results["n"] == 30


@pytest.mark.parametrize("target", [Target(77.5, 7.0), Target(1.7e9, 100.0), Target(6e5, 2.6e5)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_regression_figures_are_in_the_users_unit(target, dtype):
    generator = torch.Generator().manual_seed(4)
    logits = torch.randn(40, 1, generator=generator)
    noise = 0.3 * torch.randn(40, generator=generator)
    labels = target.restore(logits.squeeze(1) + noise)
    results = count_all("regression", 1, logits.to(dtype), labels, (9, 30), target)
    plain = count_all("regression", 1, logits.to(dtype), target.standardise(labels), (9, 30))
    said = logits.to(dtype).double().squeeze(1).numpy() * target.deviation + target.mean
    assert results["rmse"] == pytest.approx(sk.root_mean_squared_error(labels.numpy(), said))
    assert results["mae"] == pytest.approx(sk.mean_absolute_error(labels.numpy(), said))
    assert results["r2"] == pytest.approx(sk.r2_score(labels.numpy(), said), rel=1e-6)
    assert results["rmse"] == pytest.approx(plain["rmse"] * target.deviation, rel=1e-6)
    for name in ("r2", "spearman"):
        assert results[name] == pytest.approx(plain[name], abs=1e-6)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=2, max_size=30))
def test_ranks_and_their_correlation_are_scipys_with_ties(pairs):
    first, second = (torch.tensor(row, dtype=torch.float64) for row in zip(*pairs, strict=True))
    assert average_ranks(first).tolist() == rankdata(first.numpy()).tolist()
    ours = rank_correlation(first, second)
    if len(first.unique()) == 1 or len(second.unique()) == 1:
        assert ours == 0.0
    else:
        assert ours == pytest.approx(spearmanr(first.numpy(), second.numpy()).statistic, abs=1e-12)


def test_a_constant_has_no_order_and_a_nan_no_rank():
    labels = torch.tensor([1.0, 2.0, 3.0])
    assert rank_correlation(torch.full((3,), 0.1), labels) == 0.0
    assert rank_correlation(labels, torch.full((3,), 0.1)) == 0.0
    assert rank_correlation(labels[:1], labels[:1]) == 0.0
    assert math.isnan(rank_correlation(torch.tensor([1.0, math.nan, 2.0]), labels))


def test_predictions_that_round_to_one_number_in_a_large_unit_keep_their_order():
    target = Target(1.7e9, 1e-6)
    logits, labels = torch.tensor([[0.1], [0.2], [0.3]]), torch.tensor([1.0, 2.0, 3.0])
    assert len(set(target.restore(logits).squeeze(1).tolist())) < 3
    assert count_all("regression", 1, logits, labels, target=target)["spearman"] == 1.0


@pytest.mark.parametrize(("error", "r2"), [(0.0, 1.0), (0.5, 0.0)])
def test_r2_of_labels_all_alike_is_scikit_learns(error, r2):
    labels = torch.full((3,), 0.1)
    results = count_all("regression", 1, (labels + error).unsqueeze(1), labels, cuts=(1,))
    assert results["r2"] == r2 == sk.r2_score(labels.numpy(), (labels + error).numpy())


def test_nothing_counted_gives_no_nan():
    assert build_counter(Decision("regression"), 1, CPU).results() == {"n": 0}
    assert build_counter(Decision("single"), 2, CPU).results()["accuracy"] == 0
    assert build_counter(Decision("multi"), 2, CPU).results()["interval"] == (0.0, 1.0)


@pytest.mark.parametrize(
    ("hits", "n"), [(0, 1), (1, 1), (0, 50), (50, 50), (7, 9), (870, 1000), (24999, 25000)]
)
def test_wilson_interval_is_scipys(hits, n):
    stock = binomtest(hits, n).proportion_ci(method="wilson")
    assert wilson_interval(hits, n) == pytest.approx((stock.low, stock.high), abs=1e-12)


LOGITS = torch.randn(24, 3, generator=torch.Generator().manual_seed(4))
LABELS = {
    "single": torch.randint(0, 3, (24,), generator=torch.Generator().manual_seed(5)),
    "multi": (torch.randn(24, 3, generator=torch.Generator().manual_seed(6)) > 0).float(),
    "regression": torch.randn(24, generator=torch.Generator().manual_seed(7)),
}


@pytest.mark.parametrize("kind", LABELS)
@settings(max_examples=40, deadline=None)
@given(cuts=st.lists(st.integers(0, 24), max_size=8), seed=st.integers(0, 1000))
def test_counters_do_not_depend_on_how_rows_are_cut(kind, cuts, seed):
    logits = LOGITS if kind != "regression" else LOGITS[:, :1]
    order = torch.randperm(24, generator=torch.Generator().manual_seed(seed))
    whole = count_all(kind, 3, logits, LABELS[kind])
    parts = count_all(kind, 3, logits[order], LABELS[kind][order], cuts)
    if kind == "regression":
        assert parts == pytest.approx(whole)
    else:
        assert parts == whole


def test_counters_are_integers_until_the_end():
    assert SingleCounter(2, CPU).cells[0].dtype == torch.int64
    assert MultiCounter(2, CPU).counts.dtype == torch.int64
    counter = RegressionCounter(CPU)
    counter.update(torch.zeros(2, 1).half(), torch.zeros(2))
    assert torch.cat(counter.true).dtype == torch.cat(counter.standard).dtype == torch.float64


def test_probabilities_by_kind():
    logits = torch.tensor([[0.0, math.log(3.0)]])
    assert Decision("single").probabilities(logits).tolist()[0] == pytest.approx([0.25, 0.75])
    assert Decision("multi").probabilities(logits).tolist()[0] == pytest.approx([0.5, 0.75])
    plain, unit = Decision("regression"), Decision("regression", target=Target(1.7e9, 100.0))
    assert plain.probabilities(torch.tensor([[4.2]])).item() == pytest.approx(4.2)
    numbers = unit.probabilities(torch.tensor([[0.5]]).bfloat16())
    assert (numbers.shape, numbers.item()) == ((1, 1), 1.7e9 + 50)
    assert np.isclose(Decision("single").probabilities(torch.zeros(1, 4).half()).sum(), 1.0)


def test_of_many_classes_the_matrix_holds_those_in_the_most_mistakes():
    labels = torch.arange(200)
    said = labels.clone()
    said[[7, 150]] = torch.tensor([150, 7])  # two mistakes, of the same two classes
    said[199] = 3
    results = count_all("single", 200, torch.eye(200)[said], labels)
    assert len(results["confused"]) == len(results["confusion"]) == 50
    assert {3, 7, 150, 199} <= set(results["confused"])
    assert results["confused"] == sorted(results["confused"])
    seven, hundred = (results["confused"].index(c) for c in (7, 150))
    assert results["confusion"][seven][hundred] == results["confusion"][hundred][seven] == 1
    assert results["accuracy"] == pytest.approx(197 / 200)


def test_no_counter_grows_with_the_square_of_the_classes():
    classes, rows = 100_000, 64  # a matrix would take 80 GB
    labels = torch.arange(rows) * 1000
    results = count_all("single", classes, torch.zeros(rows, classes), labels, cuts=(20,))
    assert (results["n"], results["accuracy"]) == (64, 1 / 64)
    assert len(results["classes"]) == classes
    assert len(results["confusion"]) == 50
