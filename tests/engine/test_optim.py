"""Schedules are pure functions of the step; parameter groups hold every parameter once."""

import math

import pytest
import torch
from torch import nn
from transformers.optimization import (
    get_constant_schedule_with_warmup,
    get_cosine_schedule_with_warmup,
    get_linear_schedule_with_warmup,
)

from engine.optim import (
    Schedule,
    build_optimizer,
    parameter_groups,
    rest_waiting,
    set_learning_rate,
    warmup_steps,
)

STOCK = {
    "linear": get_linear_schedule_with_warmup,
    "cosine": get_cosine_schedule_with_warmup,
    "constant": lambda optimizer, warmup, total: get_constant_schedule_with_warmup(
        optimizer, warmup
    ),
}


@pytest.mark.parametrize("warmup", [0, 1, 4, 10, 15])
@pytest.mark.parametrize("kind", STOCK)
def test_schedule_is_transformers_own_at_every_step(kind, warmup):
    total = 10
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    stock = STOCK[kind](optimizer, warmup, total)
    ours = Schedule(kind, total, warmup)
    for step in range(total):
        assert ours.factor(step) == pytest.approx(stock.get_last_lr()[0], abs=1e-12)
        optimizer.step()
        stock.step()


@pytest.mark.parametrize(
    ("kind", "warmup", "factors"),
    [
        ("linear", 0, [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]),
        ("linear", 2, [0.0, 0.5, 1.0, 0.5, 0.0, 0.0]),
        ("linear", 4, [0.0, 0.25, 0.5, 0.75, 0.0, 0.0]),
        ("linear", 8, [0.0, 0.125, 0.25, 0.375, 0.5, 0.625]),
        ("cosine", 0, [1.0, 0.853553, 0.5, 0.146447, 0.0, 0.0]),
        ("cosine", 4, [0.0, 0.25, 0.5, 0.75, 0.0, 0.0]),
        ("constant", 0, [1.0, 1.0, 1.0, 1.0, 1.0, 1.0]),
        ("constant", 2, [0.0, 0.5, 1.0, 1.0, 1.0, 1.0]),
    ],
)
def test_schedule_table_of_four_steps_and_past_the_end(kind, warmup, factors):
    schedule = Schedule(kind, 4, warmup)
    assert [schedule.factor(step) for step in range(6)] == pytest.approx(factors, abs=1e-6)


@pytest.mark.parametrize(
    ("warmup", "total", "steps"),
    [(0, 100, 0), (0.0, 100, 0), (0.06, 100, 6), (0.06, 10, 1), (0.5, 3, 2), (1, 9, 1), (7, 9, 7)],
)
def test_warmup_is_a_share_below_one_and_steps_from_one_on(warmup, total, steps):
    assert warmup_steps(warmup, total) == steps


def test_every_group_keeps_its_own_rate_under_the_schedule():
    model = nn.ModuleDict({"body": nn.Linear(3, 3), "head": nn.Linear(3, 2)})
    heads = {"head.weight", "head.bias"}
    optimizer = build_optimizer(parameter_groups(model, 0.1, 1.0, heads, 0.0), (0.9, 0.99), 1e-8)
    for step, factor in enumerate([0.0, 0.5, 1.0, 0.5]):
        set_learning_rate(optimizer, Schedule("linear", 4, 2), step)
        rates = {group["name"].split(",")[0]: group["lr"] for group in optimizer.param_groups}
        assert rates == pytest.approx({"backbone": 0.1 * factor, "head": 1.0 * factor})


class Mixed(nn.Module):
    """Biases, norms of one and more dimensions, a tied weight, a frozen one."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(5, 4)
        self.linear = nn.Linear(4, 4)
        self.table_bias = nn.Parameter(torch.zeros(4, 4))
        self.norm = nn.LayerNorm((3, 4))  # a norm with matrices
        self.scale = nn.Parameter(torch.ones(4))
        self.frozen = nn.Linear(4, 4).requires_grad_(False)
        self.decoder = nn.Linear(4, 5, bias=False)
        self.decoder.weight = self.embedding.weight
        self.classifier = nn.Linear(4, 2)


def names_by_group(model, groups):
    names = {p: name for name, p in model.named_parameters()}
    return {group["name"]: sorted(names[p] for p in group["params"]) for group in groups}


def test_biases_norms_and_vectors_do_not_decay_and_the_head_has_its_rate():
    model = Mixed()
    heads = {"classifier.weight", "classifier.bias"}
    groups = parameter_groups(model, 1e-3, 1e-2, heads, 0.1)
    assert names_by_group(model, groups) == {
        "backbone, decay": ["embedding.weight", "linear.weight"],
        "backbone, no decay": ["linear.bias", "norm.bias", "norm.weight", "scale", "table_bias"],
        "head, decay": ["classifier.weight"],
        "head, no decay": ["classifier.bias"],
    }
    assert [g["weight_decay"] for g in groups] == [0.1, 0.0, 0.1, 0.0]
    assert [g["base_lr"] for g in groups] == [1e-3, 1e-3, 1e-2, 1e-2]


def test_every_trainable_parameter_is_in_exactly_one_group():
    model = Mixed()
    grouped = [p for g in parameter_groups(model, 1e-3, None, set(), 0.1) for p in g["params"]]
    trainable = {p for p in model.parameters() if p.requires_grad}
    assert len(grouped) == len(trainable)
    assert set(grouped) == trainable


def test_without_a_head_rate_the_head_trains_at_the_common_one():
    groups = parameter_groups(Mixed(), 1e-3, None, {"classifier.weight"}, 0.1)
    assert {g["base_lr"] for g in groups} == {1e-3}


def test_nothing_trainable_is_an_error_that_names_the_settings():
    with pytest.raises(ValueError, match=r"model\.train"):
        parameter_groups(nn.Linear(2, 2).requires_grad_(False), 1e-3, None, set(), 0.1)


def test_fused_adamw_is_the_plain_one_to_rounding():
    weights = []
    for fused in (True, False):
        torch.manual_seed(0)
        model = nn.Linear(5, 3)
        groups = parameter_groups(model, 0.1, None, set(), 0.1)
        optimizer = build_optimizer(groups, (0.8, 0.95), 1e-6, fused)
        for _ in range(5):
            model(torch.ones(2, 5)).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
        weights.append(model.weight.detach())
    torch.testing.assert_close(weights[0], weights[1], rtol=1e-5, atol=1e-6)
    assert math.isfinite(weights[0].sum().item())


def test_rates_and_beginnings_of_their_own_make_groups_of_their_own():
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    groups = parameter_groups(model, 0.1, None, set(), 0.0, {"0.weight": 0.5}, {"0.weight": 3})
    assert [(g["name"], g["base_lr"], g["begins"]) for g in groups] == [
        ("backbone, decay", 0.1, 0),
        ("backbone, decay, lr x 0.5, from step 3", 0.05, 3),
    ]


def test_what_waits_neither_moves_nor_is_remembered_and_then_starts_as_new():
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    before = model[0].weight.detach().clone()
    groups = parameter_groups(model, 0.1, None, set(), 0.1, begins={"0.weight": 2})
    optimizer = build_optimizer(groups, (0.9, 0.99), 1e-8)
    for step in range(3):
        model(torch.ones(1, 2)).square().sum().backward()
        rest_waiting(optimizer, step)
        optimizer.step()
        optimizer.zero_grad()
        assert torch.equal(model[0].weight, before) is (step < 2)
        assert (model[0].weight in optimizer.state) is (step == 2)
    assert optimizer.state[model[0].weight]["step"] == 1
