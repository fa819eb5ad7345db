"""Evaluation gives the right figures and cannot disturb training."""

import random
from copy import deepcopy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from engine.evaluate import evaluate, inference
from engine.losses import build_loss, cross_entropy
from engine.metrics import RegressionCounter, SingleCounter
from engine.precision import Precision
from engine.stop import Stopped, StopRequest

CPU = torch.device("cpu")


def run_evaluation(make_rig, model, batches, on_batch=None):
    return evaluate(
        model, batches, cross_entropy, SingleCounter(2, CPU), make_rig.precision(), on_batch
    )


def test_an_uneven_last_batch_weighs_what_it_should(make_rig):
    rows, model = make_rig.rows(7), make_rig.toy()
    model.eval()
    with torch.no_grad():
        logits = model(**rows["inputs"])
    metrics = run_evaluation(make_rig, model, make_rig.cut(rows, 5))  # 5 and 2 rows
    mean_of_all = F.cross_entropy(logits, rows["labels"]).item()
    halves = [F.cross_entropy(logits[a:b], rows["labels"][a:b]).item() for a, b in ((0, 5), (5, 7))]
    assert metrics["loss"] == pytest.approx(mean_of_all, rel=1e-6)
    assert metrics["loss"] != pytest.approx(sum(halves) / 2, rel=1e-4)
    assert metrics["accuracy"] == (logits.argmax(-1) == rows["labels"]).double().mean().item()
    assert metrics["n"] == 7


def test_a_known_answer():
    class Given(nn.Module):
        def forward(self, x):
            return x

    batches = [
        {"inputs": {"x": torch.tensor([[2.0], [1.0]])}, "labels": torch.tensor([1.0, 1.0])},
        {"inputs": {"x": torch.tensor([[5.0]])}, "labels": torch.tensor([2.0])},
    ]
    metrics = evaluate(
        Given(), batches, build_loss("regression")[0], RegressionCounter(CPU),
        Precision(CPU, "", "fp32", ""),
    )  # fmt: skip
    assert metrics["loss"] == pytest.approx(10 / 3)
    assert metrics["mae"] == pytest.approx(4 / 3)


def test_figures_do_not_depend_on_the_batch_size(make_rig):
    rows, model = make_rig.rows(11), make_rig.toy()
    figures = [run_evaluation(make_rig, model, make_rig.cut(rows, size)) for size in (1, 4, 11)]
    for metrics in figures[1:]:
        assert metrics.pop("loss") == pytest.approx(figures[0]["loss"], rel=1e-6)
        assert metrics == {k: v for k, v in figures[0].items() if k != "loss"}


def test_an_empty_split_is_an_error(make_rig):
    with pytest.raises(ValueError, match="nothing to evaluate"):
        run_evaluation(make_rig, make_rig.toy(), [])


def test_on_batch_sees_each_batch_with_its_logits(make_rig):
    rows, model, seen = make_rig.rows(5), make_rig.toy(), {}

    def note(batch, logits):
        assert not logits.requires_grad
        seen.update(zip(batch["rows"].tolist(), logits.tolist(), strict=True))

    run_evaluation(make_rig, model, make_rig.cut(rows, 2), note)
    model.eval()
    expected = model(**rows["inputs"])
    torch.testing.assert_close(torch.tensor([seen[row] for row in range(5)]), expected.detach())


def snapshot(rig):
    """Every bit that training depends on."""
    return {
        "weights": rig.weights(),
        "optimizer": deepcopy(rig.optimizer.state_dict()["state"]),
        "modes": {name: module.training for name, module in rig.model.named_modules()},
        "torch": torch.get_rng_state(),
        "numpy": [np.asarray(part).tolist() for part in np.random.get_state()],
        "python": random.getstate(),
        "gradients": {n: p.grad is None for n, p in rig.model.named_parameters()},
        "requires": {n: p.requires_grad for n, p in rig.model.named_parameters()},
        "enabled": torch.is_grad_enabled(),
    }


def check_same(before, after):
    assert before.pop("numpy") == after.pop("numpy")
    assert before.pop("python") == after.pop("python")
    torch.testing.assert_close(after, before, rtol=0, atol=0)


def draw(batch, logits):
    """Use up randomness of every kind."""
    torch.rand(3), np.random.rand(3), random.random()


@pytest.fixture
def trained(make_rig):
    """A rig in the middle of training, with one module frozen in evaluation mode."""
    rig = make_rig()
    rig.fit()
    rig.model.train()
    rig.model.batch_norm.eval()
    return rig


def test_evaluation_leaves_every_bit_alone(make_rig, trained):
    before = snapshot(trained)
    assert before["modes"]["batch_norm"] is False
    assert before["modes"]["dropout"] is True
    run_evaluation(make_rig, trained.model, make_rig.cut(trained.rows, 3), draw)
    check_same(before, snapshot(trained))


@pytest.mark.parametrize("error", [Stopped, RuntimeError])
def test_an_evaluation_cut_short_leaves_every_bit_alone(make_rig, trained, error):
    before = snapshot(trained)

    def batches():
        yield from make_rig.cut(trained.rows, 3)[:2]
        raise error

    with pytest.raises(error):
        run_evaluation(make_rig, trained.model, batches(), draw)
    check_same(before, snapshot(trained))


def test_a_stop_request_ends_an_evaluation_between_two_batches(make_rig, trained):
    stop, seen = StopRequest(), []

    def note(batch, logits):
        seen.append(len(batch["rows"]))
        stop.signal = 15

    with pytest.raises(Stopped):
        run_evaluation(
            make_rig, trained.model, stop.guard(make_rig.cut(trained.rows, 3)), note
        )  # fmt: skip
    assert seen == [3]
    assert trained.model.training


def test_dropout_is_off_in_evaluation(make_rig):
    model = make_rig.toy(dropout=0.9).train()
    batches = make_rig.cut(make_rig.rows(6), 2)
    first = run_evaluation(make_rig, model, batches)
    assert run_evaluation(make_rig, model, batches) == first


class Caching(nn.Module):
    """Makes a table at its first call and keeps it, as rotary embeddings do."""

    def __init__(self):
        super().__init__()
        self.linear, self.table = nn.Linear(3, 2), None

    def forward(self, x):
        if self.table is None:
            self.table = torch.linspace(0.0, 1.0, 2)
        return self.linear(x) * self.table


def test_a_table_made_during_evaluation_serves_training():
    model = Caching()
    with inference(model):
        model(torch.ones(1, 3))
    model(torch.ones(1, 3)).sum().backward()
    assert model.linear.weight.grad is not None


def test_half_precision_logits_give_an_fp32_loss(make_rig):
    rows, model = make_rig.rows(6), make_rig.toy()
    batches = make_rig.cut(rows, 4)
    exact = run_evaluation(make_rig, model, batches)["loss"]
    rounded = evaluate(
        model, batches, cross_entropy, SingleCounter(2, CPU), make_rig.precision("bf16")
    )["loss"]
    assert rounded == pytest.approx(exact, rel=0.02)
    assert rounded != exact
