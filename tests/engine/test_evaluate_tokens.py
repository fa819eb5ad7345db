"""Figures over tokens: right beside a plain recount, and the same however tokens are batched."""

import itertools
import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from engine.evaluate_tokens import conversations_of, evaluate_tokens, token_figures
from engine.intervals import MANY, ratio_interval
from engine.precision import Precision

V, D = 19, 6
FP32 = Precision(torch.device("cpu"), "", "fp32", "")


@dataclass(frozen=True)
class Head:
    weight: torch.Tensor
    bias: torch.Tensor | None
    softcap: float | None
    scale: float


class Counting(nn.Module):
    """What a position is made of, its token and all before it in its conversation, is summed up:
    a language model without its size."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(2)
        self.words = nn.Embedding(V, D)
        self.out = nn.Linear(D, V)
        self.drop = nn.Dropout(0.5)  # which no evaluation may run


def hidden_of(model, inputs):
    ids = inputs["input_ids"]
    words = model.drop(model.words(ids))
    if "position_ids" not in inputs:
        return words.cumsum(1).tanh()
    rows = []
    for vectors, positions in zip(words, inputs["position_ids"], strict=True):
        starts = [*(positions == 0).nonzero().flatten().tolist(), len(positions)]
        parts = [vectors[a:b].cumsum(0) for a, b in itertools.pairwise(starts)]
        rows.append(torch.cat(parts).tanh())
    return torch.stack(rows)


def head_of(model):
    return Head(model.out.weight, model.out.bias, 4.0, 2.0)


@pytest.fixture(scope="module")
def model():
    return Counting().double()


@pytest.fixture(scope="module")
def conversations():
    """(ids, labels) of conversations of 2 to 11 tokens, about half of them learned."""
    draws, made = np.random.default_rng(0), []
    for _ in range(23):
        ids = draws.integers(V, size=draws.integers(2, 12))
        labels = np.append(ids[1:], -100)
        labels[draws.random(len(ids)) < 0.5] = -100
        made.append((torch.tensor(ids), torch.tensor(labels)))
    return made


def pad(rows, value):
    return nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=value)


def batch_of(conversations, numbers):
    ids = [conversations[n][0] for n in numbers]
    return {
        "inputs": {"input_ids": pad(ids, 0), "attention_mask": pad([i * 0 + 1 for i in ids], 0)},
        "labels": pad([conversations[n][1] for n in numbers], -100),
        "rows": torch.tensor(numbers),
    }


def pack_of(conversations, packs):
    """Rows of several conversations each."""

    def row(pack, part):
        return torch.cat([conversations[n][part] for n in pack])

    ids = [row(pack, 0) for pack in packs]
    places = [torch.cat([torch.arange(len(conversations[n][0])) for n in pack]) for pack in packs]
    return {
        "inputs": {
            "input_ids": pad(ids, 0),
            "attention_mask": pad([i * 0 + 1 for i in ids], 0),
            "position_ids": pad(places, 0),
        },
        "labels": pad([row(pack, 1) for pack in packs], -100),
        "rows": torch.tensor([n for pack in packs for n in pack]),
    }


def evaluated(model, batches):
    return evaluate_tokens(model, batches, hidden_of, head_of, FP32)


@pytest.fixture(scope="module")
def figures(model, conversations):
    return evaluated(model, [batch_of(conversations, list(range(23)))])


def test_figures_are_those_of_a_plain_recount(model, conversations, figures):
    losses, hits = [], []
    model.eval()
    for ids, labels in conversations:
        hidden = hidden_of(model, {"input_ids": ids[None]})[0]
        logits = 4 * torch.tanh(2 * model.out(hidden) / 4)
        learned = labels != -100
        losses += F.cross_entropy(logits[learned], labels[learned], reduction="none").tolist()
        hits += (logits[learned].argmax(1) == labels[learned]).tolist()
    assert figures["n"] == len(losses)
    assert figures["loss"] == pytest.approx(sum(losses) / len(losses), rel=1e-13)
    assert figures["perplexity"] == pytest.approx(math.exp(figures["loss"]), rel=1e-13)
    assert figures["token_accuracy"] == pytest.approx(sum(hits) / len(hits), rel=1e-15)
    assert figures["conversations"] == sum(
        (labels != -100).any().item() for _, labels in conversations
    )
    for name, (low, high) in figures["intervals"].items():
        assert low < figures[name] < high


@pytest.mark.parametrize("size", [1, 4, 7])
def test_batch_size_and_order_move_nothing(model, conversations, figures, size):
    order = np.random.default_rng(size).permutation(23).tolist()
    batches = [batch_of(conversations, order[i : i + size]) for i in range(0, 23, size)]
    again = evaluated(model, batches)
    assert again["loss"] == pytest.approx(figures["loss"], rel=1e-13)
    assert again["token_accuracy"] == figures["token_accuracy"]
    assert (again["n"], again["conversations"]) == (figures["n"], figures["conversations"])
    assert again["intervals"]["loss"] == pytest.approx(figures["intervals"]["loss"], rel=1e-12)


def test_packing_moves_nothing(model, conversations, figures):
    order = list(range(23))[::-1]
    packs = [order[i : i + 5] for i in range(0, 23, 5)]
    batches = [pack_of(conversations, packs[:3]), pack_of(conversations, packs[3:])]
    again = evaluated(model, batches)
    assert again["loss"] == pytest.approx(figures["loss"], rel=1e-13)
    assert again["intervals"]["loss"] == pytest.approx(figures["intervals"]["loss"], rel=1e-12)
    assert again["token_accuracy"] == figures["token_accuracy"]


def test_a_conversation_in_two_pieces_is_one(conversations):
    numbers = torch.tensor([4, 4, 9, 4, 9])
    figures = token_figures(numbers, torch.ones(5).double(), torch.zeros(5).double())
    assert (figures["n"], figures["conversations"]) == (5, 2)


def test_tokens_know_their_conversation(conversations):
    pack = pack_of(conversations, [[3, 1], [2]])
    lengths = [len(conversations[n][0]) for n in (3, 1, 2)]
    places = conversations_of(pack)
    assert places[0][: lengths[0]].tolist() == [0] * lengths[0]
    assert places[0][lengths[0] : lengths[0] + lengths[1]].tolist() == [1] * lengths[1]
    assert places[1][: lengths[2]].tolist() == [2] * lengths[2]


def test_the_mode_of_the_model_comes_back(model, conversations):
    model.train()
    evaluated(model, [batch_of(conversations, [0, 1, 2])])
    assert model.drop.training


def test_nothing_learned_is_an_error(model, conversations):
    batch = batch_of(conversations, [0, 1])
    batch["labels"] = torch.full_like(batch["labels"], -100)
    with pytest.raises(ValueError, match="no token of the split is learned"):
        evaluated(model, [batch])


def test_a_hopeless_loss_has_an_infinite_perplexity():
    figures = token_figures(torch.tensor([0, 1]), torch.tensor([800.0, 900.0]).double(),
                            torch.zeros(2).double())  # fmt: skip
    assert figures["perplexity"] == math.inf


@pytest.mark.parametrize("groups", [40, 3 * MANY])
def test_intervals_over_conversations_cover_where_tokens_hang_together(groups):
    """Tokens of one conversation share a level: as independent ones they would be far too sure."""
    draws, inside, naive, trials = np.random.default_rng(1), 0, 0, 60
    for trial in range(trials):
        sizes = draws.integers(5, 60, size=groups)
        levels = draws.normal(2.0, 0.5, size=groups)
        parts = np.array(
            [
                draws.normal(level, 1.0, size).sum()
                for level, size in zip(levels, sizes, strict=True)
            ]
        )
        ratio, low, high = ratio_interval(parts, sizes, seed=trial)
        inside += low <= 2.0 <= high
        naive += abs(ratio - 2.0) <= 1.96 * (1.25 / sizes.sum()) ** 0.5
    assert inside / trials >= 0.85
    assert naive / trials < 0.7


def test_a_ratio_needs_groups_and_one_group_says_nothing():
    with pytest.raises(ValueError, match="expected one a group"):
        ratio_interval(np.zeros(0), np.zeros(0))
    assert ratio_interval(np.array([3.0]), np.array([2.0])) == (1.5, -math.inf, math.inf)
    assert math.isnan(ratio_interval(np.array([math.nan, 1]), np.array([2.0, 1]))[1])
