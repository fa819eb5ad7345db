"""Regression targets: standard deviations inside, the user's own unit outside."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.targets import IDENTITY, Target, measure_target

PLAIN = np.random.default_rng(0).normal(size=200)


@pytest.mark.parametrize(
    ("scale", "shift"),
    [(1.0, 0.0), (1e5, 1e5), (7.0, 77.5), (100.0, 1.7e9), (1e-6, 0.0), (1e200, 0.0), (1e-200, 0.0)],
)
def test_the_mean_and_deviation_are_numpys(scale, shift):
    labels = PLAIN * scale + shift
    target = measure_target(labels)
    assert target.mean == pytest.approx(scale * PLAIN.mean() + shift, rel=1e-9)
    assert target.deviation == pytest.approx(scale * PLAIN.std(), rel=1e-6)


@pytest.mark.parametrize("label", [0.0, 0.1, 3.0, -1.7e9, 1e300])
def test_labels_all_alike_have_the_deviation_1(label):
    assert measure_target(np.full(7, label)) == Target(label, 1.0)


def test_a_single_training_row_has_the_deviation_1():
    assert measure_target(np.array([5.5])) == Target(5.5, 1.0)


def test_two_values_become_two_values_around_0():
    target = measure_target(np.array([10.0, 20.0, 20.0, 10.0]))
    assert target.standardise(torch.tensor([10.0, 20.0])).tolist() == [-1.0, 1.0]


def test_labels_too_far_apart_are_an_error_that_says_from_where_to_where():
    with pytest.raises(ValueError, match=r"data\.label.*-1\.5e\+308 to 1\.5e\+308.*another unit"):
        measure_target(np.array([-1.5e308, 1.5e308]))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(-1e12, 1e12), min_size=2, max_size=20),
    st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
)
def test_restoring_undoes_standardising_to_the_precision_of_the_model(values, dtype):
    labels = torch.tensor(values, dtype=torch.float64)
    target = measure_target(labels.numpy())
    standard = target.standardise(labels)
    assert standard.dtype == torch.float64
    assert standard.isfinite().all()
    restored = target.restore(standard.to(dtype))
    assert restored.dtype == torch.float64
    error = (restored - labels).abs().max().item()
    reach = standard.abs().max().item() * torch.finfo(dtype).eps + torch.finfo(dtype).tiny
    rounding = 1e-14 * (abs(target.mean) + target.deviation + labels.abs().max().item())
    assert error <= target.deviation * reach + rounding + 1e-300


def test_bf16_loses_digits_of_the_deviation_and_none_of_the_mean():
    target = Target(mean=1.7e9, deviation=100.0)
    assert target.restore(torch.tensor([0.0, 1.0]).bfloat16()).tolist() == [1.7e9, 1.7e9 + 100]


def test_the_identity_changes_nothing():
    labels = torch.tensor([1.0, -2.5], dtype=torch.float64)
    assert torch.equal(IDENTITY.standardise(labels), labels)
    assert torch.equal(IDENTITY.restore(labels), labels)
