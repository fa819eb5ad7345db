"""A loss is a sum over items, `count_items` their number."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch.nn import functional as F

from engine.losses import (
    IGNORE,
    balanced_weights,
    binary_cross_entropy,
    build_loss,
    count_items,
    cross_entropy,
    logits_of,
    positive_weights,
    squared_error,
)
from engine.targets import Target


@pytest.fixture
def logits():
    return torch.randn(6, 3, generator=torch.Generator().manual_seed(0))


LABELS = torch.tensor([0, 2, 1, 1, 0, 2])


def test_cross_entropy_over_count_is_torchs_mean(logits):
    ours = cross_entropy(logits, LABELS) / count_items({"labels": LABELS})
    torch.testing.assert_close(ours, F.cross_entropy(logits, LABELS))


def test_smoothing_over_count_is_torchs_mean(logits):
    ours = cross_entropy(logits, LABELS, smoothing=0.2) / 6
    torch.testing.assert_close(ours, F.cross_entropy(logits, LABELS, label_smoothing=0.2))


def test_class_weights_multiply_each_rows_loss(logits):
    weights = torch.tensor([0.5, 1.0, 3.0])
    each = F.cross_entropy(logits, LABELS, reduction="none") * weights[LABELS]
    torch.testing.assert_close(cross_entropy(logits, LABELS, weights), each.sum())


def test_ignored_tokens_are_neither_learned_nor_counted():
    logits = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([[0, IGNORE, 2, 1], [IGNORE, IGNORE, IGNORE, 1]])
    assert count_items({"labels": labels}) == 4
    mean = F.cross_entropy(logits.flatten(0, 1), labels.flatten())
    torch.testing.assert_close(cross_entropy(logits, labels) / 4, mean)


def test_a_batch_with_nothing_to_learn_has_no_loss():
    labels = torch.full((2, 4), IGNORE)
    assert cross_entropy(torch.randn(2, 4, 3), labels) == 0
    assert count_items({"labels": labels}) == 0


def test_half_precision_logits_are_summed_in_fp32(logits):
    assert cross_entropy(logits.half(), LABELS).dtype == torch.float32
    assert binary_cross_entropy(logits.bfloat16(), logits > 0).dtype == torch.float32
    assert squared_error(logits[:, :1].half(), LABELS.float()).dtype == torch.float32
    assert cross_entropy(logits.double(), LABELS).dtype == torch.float64


def test_multi_label_loss_over_count_is_torchs_mean(logits):
    labels = (logits.roll(1, 0) > 0).float()
    assert count_items({"labels": labels}) == 6
    torch.testing.assert_close(
        binary_cross_entropy(logits, labels) / 6, F.binary_cross_entropy_with_logits(logits, labels)
    )


def test_regression_loss_over_count_is_the_mean_square():
    logits, labels = torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([1.0, 0.0, 1.0])
    assert squared_error(logits, labels) == 13.0
    assert count_items({"labels": labels}) == 3


@pytest.mark.parametrize(("mean", "deviation"), [(0.0, 1.0), (77.5, 7.0), (1.7e9, 100.0)])
def test_regression_loss_is_the_square_of_standard_deviations(mean, deviation):
    standard = torch.tensor([0.5, -1.0, 0.25], dtype=torch.float64)
    labels = standard * deviation + mean
    logits = torch.tensor([[1.0], [0.0], [0.25]])
    loss = squared_error(logits, labels, Target(mean, deviation))
    assert loss.item() == pytest.approx(0.25 + 1.0, rel=1e-6)
    assert loss.dtype == torch.float32


def test_always_saying_the_mean_has_the_loss_1():
    labels = torch.tensor([1e5, 3e5, 7e5, 2e5], dtype=torch.float64)
    target = Target(labels.mean().item(), labels.std(correction=0).item())
    loss = build_loss("regression", target=target)[0](torch.zeros(4, 1), labels) / 4
    assert loss.item() == pytest.approx(1)


def test_positive_weights_multiply_the_labels_that_hold(logits):
    labels, weights = (logits.roll(1, 0) > 0).float(), torch.tensor([0.5, 1.0, 9.0])
    shares = logits.sigmoid()
    each = -(weights * labels * shares.log() + (1 - labels) * (1 - shares).log())
    ours = build_loss("multi", weights.tolist())[0](logits, labels) / 6
    torch.testing.assert_close(ours, each.mean())
    stock = F.binary_cross_entropy_with_logits(logits, labels, pos_weight=weights)
    torch.testing.assert_close(ours, stock)


def test_balanced_positives_and_negatives_weigh_the_same():
    weights = positive_weights({"joy": 2, "fear": 10, "calm": 15}, rows=20)
    assert weights == pytest.approx([9.0, 1.0, 1 / 3])


def test_a_label_that_every_row_holds_weighs_1():
    assert positive_weights({"all": 20, "half": 10}, rows=20) == [1.0, 1.0]


def test_balanced_weights_are_scikit_learns():
    labels = np.array([0] * 5 + [1] * 2 + [2] * 13)
    stock = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    assert balanced_weights({"a": 5, "b": 2, "c": 13}) == pytest.approx(stock)


def test_balanced_weights_have_mean_one_over_the_rows():
    counts = {"a": 5, "b": 2, "c": 13}
    total = sum(w * n for w, n in zip(balanced_weights(counts), counts.values(), strict=True))
    assert total == pytest.approx(20)


@pytest.mark.parametrize("weigh", [balanced_weights, lambda counts: positive_weights(counts, 9)])
def test_balanced_weights_name_the_classes_without_rows_and_the_way_out(weigh):
    wanted = r"train\.class_weights.*'joy', '0'.*as a list.*data\.split_seed"
    with pytest.raises(ValueError, match=wanted) as error:
        weigh({"fear": 3, "joy": 0, "0": 0, "calm": 2})
    assert "fear" not in str(error.value)


@pytest.mark.parametrize(
    ("kind", "word"), [("single", "cross-entropy"), ("multi", "binary"), ("regression", "squared")]
)
def test_the_loss_chosen_by_the_labels_kind_is_said_aloud(kind, word):
    assert word in build_loss(kind)[1]


def test_settings_of_the_loss_are_said_aloud():
    assert "label smoothing 0.1" in build_loss("single", label_smoothing=0.1)[1]
    assert "1 is as good as always saying the mean" in build_loss("regression")[1]


def test_unknown_kind_is_an_error():
    with pytest.raises(ValueError, match="'tokens'"):
        build_loss("tokens")


def test_logits_are_found_in_either_form(logits):
    assert logits_of(logits) is logits
    assert logits_of(SimpleNamespace(logits=logits)) is logits
