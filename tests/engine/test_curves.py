"""AUROC and average precision from counts in bins, beside scikit-learn on the scores."""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from engine.curves import (
    LIMIT,
    MOST_BINS,
    MOST_CURVES,
    STRETCH,
    CurveCounter,
    bins_of,
    curve_figures,
    logits_of_classes,
)
from engine.decision import Decision
from engine.metrics import build_counter

BINS = MOST_BINS  # of up to 16 classes
CPU = torch.device("cpu")
NAMES = ("auroc", "average_precision")


def count(scores, held, cuts=()):
    """What is counted of scores (N,) of one class, row by row where `cuts` say."""
    counter = CurveCounter(1, CPU)
    for part in np.split(np.arange(len(scores)), sorted(cuts)):
        counter.update(torch.tensor(scores)[part].unsqueeze(1), torch.tensor(held)[part, None])
    return counter.by_class()[0]


def bounds(scores, held):
    """Between what and what average precision can lie, whatever the order of a bin's rows: the
    precision at each own row, with all others of its bin before it, or behind all own ones."""
    bins, held = bins_of(torch.tensor(scores), BINS).numpy(), np.array(held)
    low, high, hits, misses = 0.0, 0.0, 0, 0
    for place in sorted(set(bins), reverse=True):
        own = int(held[bins == place].sum())
        rest = int((bins == place).sum()) - own
        low += sum((hits + i) / (hits + i + misses + rest) for i in range(1, own + 1))
        high += own * (hits + own) / (hits + own + misses) if own else 0
        hits, misses = hits + own, misses + rest
    return low / hits, high / hits


def stock(scores, held):
    return sk.roc_auc_score(held, scores), sk.average_precision_score(held, scores)


scores_and_labels = st.lists(
    st.tuples(st.floats(-60, 60, width=32), st.booleans()), min_size=2, max_size=40
).filter(lambda rows: len({held for _, held in rows}) == 2)


@settings(max_examples=150, deadline=None)
@given(scores_and_labels, st.lists(st.integers(0, 40), max_size=4))
def test_the_figures_are_scikit_learns_of_the_bins_however_rows_are_cut(rows, cuts):
    scores, held = map(list, zip(*rows, strict=True))
    figures = count(scores, held, [min(cut, len(rows)) for cut in cuts])
    assert figures == count(scores, held)  # to the bit
    bins = bins_of(torch.tensor(scores), BINS).tolist()
    assert [figures[name] for name in NAMES] == pytest.approx(stock(bins, held), abs=1e-12)


@settings(max_examples=150, deadline=None)
@given(scores_and_labels)
def test_the_figures_of_the_scores_are_within_what_a_bin_can_hide(rows):
    scores, held = map(list, zip(*rows, strict=True))
    figures, true = count(scores, held), stock(np.clip(scores, -LIMIT, LIMIT), held)
    low, high = bounds(scores, held)
    for value in (figures["average_precision"], true[1]):
        assert low - 1e-12 <= value <= high + 1e-12
    bins = bins_of(torch.tensor(scores), BINS).numpy()
    together = sum(
        np.sum(np.array(held)[bins == b]) * np.sum(~np.array(held)[bins == b]) for b in set(bins)
    )
    pairs = sum(held) * (len(held) - sum(held))
    assert abs(figures["auroc"] - true[0]) <= together / (2 * pairs) + 1e-12


@settings(max_examples=100, deadline=None)
@given(st.sets(st.integers(0, BINS - 1), min_size=2, max_size=40), st.randoms())
def test_rows_in_bins_of_their_own_give_scikit_learns_figures_exactly(places, random):
    middle = (np.array(sorted(places)) + 0.5) / BINS * 2 - 1
    scores = np.sinh(middle * np.arcsinh(LIMIT * STRETCH)) / STRETCH
    assert len(set(bins_of(torch.tensor(scores), BINS).tolist())) == len(places)
    held = [random.random() < 0.5 for _ in scores]
    held[0], held[-1] = False, True
    figures = count(scores.tolist(), held)
    assert [figures[name] for name in NAMES] == pytest.approx(stock(scores, held), abs=1e-12)


@pytest.mark.parametrize("spread", [1e-4, 1e-3, 0.1, 1.0, 3.0, 12.0])
@pytest.mark.parametrize("share", [0.5, 0.03])
def test_two_thousand_rows_are_within_two_thousandths(spread, share):
    """From a model that has hardly learnt to one whose fp32 probabilities are all 0 or 1."""
    generator = np.random.default_rng(0)
    held = generator.random(2000) < share
    scores = spread * (generator.standard_normal(2000) + held)
    figures = count(scores.tolist(), held.tolist())
    for name, value in zip(NAMES, stock(scores, held), strict=True):
        assert figures[name] == pytest.approx(value, abs=2e-3), name


@pytest.mark.parametrize("offset", [-6.0, -3.0, 2.0])
def test_rows_that_all_lean_to_one_side_are_told_apart(offset):
    """As of a rare class, before a model has learnt more than how rare it is."""
    generator = np.random.default_rng(1)
    held = generator.random(2000) < 0.05
    scores = offset + 0.05 * (generator.standard_normal(2000) + held)
    figures = count(scores.tolist(), held.tolist())
    for name, value in zip(NAMES, stock(scores, held), strict=True):
        assert figures[name] == pytest.approx(value, abs=3e-3), name


def test_saturated_probabilities_keep_their_order():
    logits = torch.tensor([[0.0, 18.0], [0.0, 20.0], [0.0, 25.0], [0.0, 30.0]])
    assert logits.softmax(-1)[:, 1].eq(1).all()  # fp32 cannot tell them apart
    labels = torch.tensor([0, 0, 1, 1])
    counter = build_counter(Decision("single"), 2, CPU)
    counter.update(logits, labels)
    assert counter.results()["auroc"] == 1.0


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_several_classes_are_scikit_learns_one_against_the_rest(classes):
    generator = torch.Generator().manual_seed(classes)
    labels = torch.randint(0, classes, (400,), generator=generator)
    logits = torch.randn(400, classes, generator=generator)
    logits[torch.arange(400), labels] += 1.0
    counter = build_counter(Decision("single"), classes, CPU)
    counter.update(logits[:150], labels[:150])
    counter.update(logits[150:], labels[150:])
    results = counter.results()
    shares, hot = logits.double().softmax(-1).numpy(), np.eye(classes)[labels]
    area = sk.roc_auc_score(hot, shares, average="macro")
    assert results["auroc"] == pytest.approx(area, abs=1e-3)
    precision = sk.average_precision_score(hot, shares, average="macro")
    assert results["average_precision"] == pytest.approx(precision, abs=1e-3)
    each = sk.roc_auc_score(hot, shares, average=None)
    assert [row["auroc"] for row in results["classes"]] == pytest.approx(list(each), abs=1e-3)
    if classes > 2:
        with_numbers = sk.roc_auc_score(labels.numpy(), shares, multi_class="ovr")
        assert results["auroc"] == pytest.approx(with_numbers, abs=1e-3)


def test_several_labels_are_scikit_learns_macro_averages():
    generator = torch.Generator().manual_seed(3)
    labels = (torch.randn(300, 4, generator=generator) > 0.5).float()
    logits = torch.randn(300, 4, generator=generator) + labels
    counter = build_counter(Decision("multi"), 4, CPU)
    counter.update(logits, labels)
    results = counter.results()
    area = sk.roc_auc_score(labels.numpy(), logits.numpy(), average="macro")
    assert results["auroc"] == pytest.approx(area, abs=1e-3)
    precision = sk.average_precision_score(labels.numpy(), logits.numpy(), average="macro")
    assert results["average_precision"] == pytest.approx(precision, abs=1e-3)


def test_a_class_that_all_rows_have_or_none_is_left_out_of_the_mean():
    labels = torch.tensor([0, 0, 1, 1])  # of three classes
    logits = torch.tensor([[2.0, 1, 0], [0, 1, 3], [0, 1, 0], [1, 2, 0]])
    counter = build_counter(Decision("single"), 3, CPU)
    counter.update(logits, labels)
    results = counter.results()
    shares = logits.softmax(-1).numpy()
    known = [sk.roc_auc_score(labels.numpy() == c, shares[:, c]) for c in (0, 1)]
    assert results["auroc"] == pytest.approx(sum(known) / 2)
    assert "auroc" not in results["classes"][2]


@pytest.mark.parametrize("kind", ["single", "multi"])
def test_where_a_figure_is_not_defined_it_is_left_out(kind):
    labels = torch.zeros(3, dtype=torch.int64) if kind == "single" else torch.ones(3, 2)
    counter = build_counter(Decision(kind), 2, CPU)
    counter.update(torch.randn(3, 2), labels)
    assert {*NAMES}.isdisjoint(counter.results())
    assert {*NAMES}.isdisjoint(build_counter(Decision(kind), 2, CPU).results())  # of no rows


def test_beyond_the_most_classes_nothing_is_counted():
    counter = build_counter(Decision("single"), MOST_CURVES + 1, CPU)
    counter.update(torch.randn(4, MOST_CURVES + 1), torch.arange(4))
    assert {*NAMES}.isdisjoint(counter.results())
    counter = build_counter(Decision("single"), MOST_CURVES, CPU)
    counter.update(torch.randn(4, MOST_CURVES), torch.arange(4))
    assert {*NAMES} < counter.results().keys()


def test_parts_of_several_processes_add_up():
    generator = torch.Generator().manual_seed(5)
    scores, held = torch.randn(60, 3, generator=generator), torch.rand(60, 3) < 0.4
    whole, parts = CurveCounter(3, CPU), [CurveCounter(3, CPU) for _ in range(2)]
    whole.update(scores, held)
    for part, rows in zip(parts, (slice(0, 20), slice(20, 60)), strict=True):
        part.update(scores[rows], held[rows])
    parts[0].counts += parts[1].counts
    assert parts[0].by_class() == whole.by_class()


@pytest.mark.parametrize(
    ("classes", "bins"), [(1, 65_536), (16, 65_536), (17, 32_768), (100, 8192)]
)
def test_more_classes_have_fewer_bins_so_that_memory_stays_bounded(classes, bins):
    counter = CurveCounter(classes, CPU)
    assert counter.bins == bins
    assert counter.counts.nbytes <= 16 << 20


def test_memory_does_not_grow_with_the_rows():
    counter = CurveCounter(2, CPU)
    size = counter.counts.numel()
    counter.update(torch.randn(10_000, 2), torch.rand(10_000, 2) < 0.5)
    assert counter.counts.numel() == size == 2 * 2 * BINS
    assert counter.counts.dtype == torch.int64


def test_scores_that_are_no_numbers_have_a_bin():
    bins = bins_of(torch.tensor([-torch.inf, -1e30, 0.0, torch.nan, 1e30, torch.inf]), BINS)
    assert bins.tolist() == [0, 0, BINS // 2, BINS // 2, BINS - 1, BINS - 1]
    assert (bins_of(torch.linspace(-50, 50, 10_001).double(), BINS).diff() >= 0).all()


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(-300, 300, width=32), min_size=2, max_size=5))
def test_the_logit_of_a_class_is_its_own_less_that_of_the_others(row):
    logits = torch.tensor([row, row[::-1]])
    own = logits_of_classes(logits)
    for place, value in enumerate(row):
        others = torch.tensor(row[:place] + row[place + 1 :], dtype=torch.float64)
        exact = value - others.logsumexp(0).item()
        assert own[0, place].item() == pytest.approx(exact, rel=1e-9, abs=1e-9)


def test_figures_of_integers_have_no_rounding_to_speak_of():
    own, rest = torch.zeros(2, BINS, dtype=torch.int64)
    own[[5, 9]], rest[[5, 7]] = torch.tensor([10**8, 10**8]), torch.tensor([10**8, 10**8])
    figures = curve_figures(own, rest)
    assert figures["auroc"] == 0.625  # (half of a quarter, then all of a half) of the pairs
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        true = sk.average_precision_score([1, 0, 0, 1], [5, 5, 7, 9])
    assert figures["average_precision"] == pytest.approx(true)
