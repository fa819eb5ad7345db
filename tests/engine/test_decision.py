"""From logits to an answer: nothing moves without settings, and each setting does what it says."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.calibrate import probabilities
from engine.decision import (
    NOTHING_IS_SURE,
    Decision,
    from_json,
    how_sure,
    override,
    read_thresholds,
    to_json,
)
from engine.targets import Target

NAMES = ("neg", "pos")
THREE = ("joy", "anger", "fear")


def logits_of(rows=200, classes=3, seed=0):
    return torch.randn(rows, classes, generator=torch.Generator().manual_seed(seed)) * 3


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.floats(-80, 80, width=16), min_size=3, max_size=3), min_size=1,
                max_size=8), st.floats(0.05, 20))  # fmt: skip
def test_no_temperature_changes_an_answer(rows, temperature):
    logits = torch.tensor(rows)  # with ties, and some that no float32 probability tells apart
    for kind in ("single", "multi"):
        plain, scaled = Decision(kind), Decision(kind, temperature)
        assert torch.equal(plain.answers(logits), scaled.answers(logits))


def test_probabilities_are_those_that_were_fitted_for():
    logits = logits_of()
    for kind in ("single", "multi"):
        ours = Decision(kind, 1.7).probabilities(logits)
        assert ours.dtype == torch.float64
        fitted = probabilities(kind, logits.double().numpy(), 1.7)
        np.testing.assert_allclose(ours.numpy(), fitted, rtol=1e-12)


def test_a_threshold_is_one_of_the_calibrated_probability():
    logits, decision = logits_of(), Decision("multi", 2.0, (0.2, 0.5, 0.9))
    shares = decision.probabilities(logits)
    assert torch.equal(decision.answers(logits), shares > torch.tensor([0.2, 0.5, 0.9]))
    two = Decision("single", 2.0, (0.8,))
    shares = two.probabilities(logits[:, :2])
    assert torch.equal(two.answers(logits[:, :2]), (shares[:, 1] > 0.8).long())


def test_how_sure_an_answer_is():
    shares = torch.tensor([[0.2, 0.8], [0.3, 0.7], [math.nan, math.nan]])
    sure = how_sure("single", shares, torch.tensor([0, 1, 0]))
    assert sure.tolist() == pytest.approx([0.2, 0.7, math.nan], nan_ok=True)
    shares = torch.tensor([[0.3, 0.9, 0.2], [0.3, 0.9, 0.2], [0.3, math.nan, 0.2]])
    held = torch.tensor([[True, True, False], [False, True, False], [False, False, False]])
    sure = how_sure("multi", shares, held)
    assert sure.tolist() == pytest.approx([0.3, 0.7, math.nan], nan_ok=True)


def test_unsure_is_below_the_limit_and_none_where_nobody_asked():
    def unsure(limit, *sure):
        return Decision("single", limit=limit).are_unsure(torch.tensor(sure)).tolist()

    assert Decision("single").are_unsure(torch.tensor([0.1])) is None
    assert unsure(0.9, 0.89, 0.95, math.nan) == [True, False, True]
    assert unsure(0.0, 0.0, 1.0, math.nan) == [False, False, True]
    assert unsure(NOTHING_IS_SURE, 0.0, 1.0) == [True, True]
    assert unsure(1.0, 1.0 - 2**-20, 1.0) == [True, False]  # a limit that 1 reaches


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_logits_that_are_no_numbers_give_no_probability_of_one_class(bad):
    shares = Decision("single", 1.3).probabilities(torch.tensor([[bad, 0.0], [1.0, 0.0]]))
    assert bool(shares[0].isnan().all()) == (bad != -math.inf)
    assert shares[1].tolist() == pytest.approx(torch.tensor([1 / 1.3, 0.0]).softmax(0).tolist())


def test_settings_of_ones_own():
    fitted = Decision("multi", 1.5, (0.2, 0.3, 0.4), limit=0.7)
    assert override(fitted, THREE) == fitted
    assert override(fitted, THREE, unsure=0).limit == 0.0
    assert override(fitted, THREE, thresholds=0.6).thresholds == (0.6,) * 3
    assert override(fitted, THREE, thresholds={"anger": 0.6}).thresholds == (0.2, 0.6, 0.4)
    mixed = read_thresholds(["0.6", "fear=0.1"])
    assert override(Decision("multi"), THREE, thresholds=mixed).thresholds == (0.6, 0.6, 0.1)
    two = Decision("single")
    assert override(two, NAMES, thresholds=0.8).thresholds == (0.8,)
    assert override(two, NAMES, thresholds={"pos": 0.8}).thresholds == (0.8,)
    assert override(two, NAMES, thresholds={"neg": 0.75}).thresholds == (0.25,)


@pytest.mark.parametrize(
    ("kind", "names", "asked", "message"),
    [
        ("regression", (), {"unsure": 0.5}, "answers with a number"),
        ("regression", (), {"thresholds": 0.5}, "answers with a number"),
        ("single", THREE, {"thresholds": 0.5}, "makes no sense for one of 3 classes"),
        ("single", NAMES, {"thresholds": {"pos": 0.5, "neg": 0.6}}, "of two classes one threshold"),
        ("single", NAMES, {"thresholds": {"good": 0.5}}, "no such label; there are neg, pos"),
        ("multi", THREE, {"thresholds": {"joy": 1.0}}, "more than 0 and less than 1"),
        ("multi", THREE, {"thresholds": 0.0}, "more than 0 and less than 1"),
        ("single", NAMES, {"unsure": 1.0}, "at least 0 and less than 1"),
        ("single", NAMES, {"unsure": float("nan")}, "at least 0 and less than 1"),
    ],
)
def test_what_makes_no_sense_is_refused(kind, names, asked, message):
    with pytest.raises(ValueError, match=message):
        override(Decision(kind), names, **asked)


@pytest.mark.parametrize("words", [["high"], ["pos="], ["0.5", "0.6"], ["a=0.5", "a=0.5"]])
def test_thresholds_that_are_none_are_refused(words):
    with pytest.raises(ValueError, match="threshold"):
        read_thresholds(words)


def test_a_label_may_hold_an_equals_sign():
    assert read_thresholds(["a=b=0.5"]) == {"a=b": 0.5}


@pytest.mark.parametrize(
    ("decision", "names"),
    [
        (Decision("single", 1.25), NAMES),
        (Decision("single", 1.25, (), 0.0), THREE),
        (Decision("single", limit=1.0), THREE),
        (Decision("multi", 0.7, (0.1, 0.5, 0.8), NOTHING_IS_SURE), THREE),
        (Decision("regression", target=Target(1e9, 250.0)), ()),
    ],
)
def test_a_decision_comes_back_from_its_file(decision, names):
    values = json.loads(json.dumps(to_json(decision, names)))
    assert from_json(values, "decision.json", decision.kind, names) == decision


@pytest.mark.parametrize(("limit", "read"), [(1.0, NOTHING_IS_SURE), (0.9, 0.9), (None, None)])
def test_a_file_of_the_first_format_decides_as_it_did(limit, read):
    values = to_json(Decision("single", limit=limit), NAMES) | {"format": 1}
    assert from_json(values, "decision.json", "single", NAMES).limit == read


@pytest.mark.parametrize(
    "change",
    [
        {"format": 3}, {"unsure": 3.0},
        {"kind": "multi"}, {"labels": ["pos", "neg"], "thresholds": [0.7]}, {"temperature": 0},
        {"temperature": "1"}, {"temperature": True}, {"temperature": float("inf")},
        {"thresholds": None}, {"thresholds": [0.5, 0.5]}, {"thresholds": [1]}, {"unsure": 1.5},
        {"unsure": "no"},
    ],
)  # fmt: skip
def test_a_damaged_file_is_refused_by_its_name(change):
    values = to_json(Decision("single", 1.25), NAMES) | change
    with pytest.raises(ValueError, match=r"model/decision\.json"):
        from_json(values, "model/decision.json", "single", NAMES)
