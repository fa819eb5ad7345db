"""The estimate counts bytes, and leaves nothing behind."""

import random

import numpy as np
import pytest
import torch
from torch import nn

from engine.estimate import LiveBytes, estimate, peak_memory
from engine.losses import cross_entropy, loss_from_logits
from engine.randomness import mix, preserve_randomness, seed_forward

LOSS = loss_from_logits(cross_entropy)


def read_generators():
    """The states of torch's, NumPy's and Python's generators."""
    return torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()


def test_weights_gradients_and_optimizer_are_counted(make_rig):
    model = make_rig.toy()
    model.embedding.requires_grad_(False)
    found = estimate(model, LOSS, make_rig.rows(2), make_rig.precision(), tokens=12)
    numbers = [p.numel() for p in model.parameters()]
    trained = sum(numbers) - model.embedding.weight.numel()
    assert found.weights == 4 * sum(numbers)
    assert (found.gradients, found.optimizer) == (4 * trained, 8 * trained)
    held = found.weights + 12 * trained + found.libraries
    assert found.total == held + found.activations + found.holes
    assert found.holes == int(0.3 * found.activations)
    assert found.seconds_per_token > 0


def test_activations_grow_with_the_tokens(make_rig):
    model, probe = make_rig.toy(), make_rig.rows(4)
    sizes = [
        estimate(model, LOSS, probe, make_rig.precision(), tokens).activations
        for tokens in (24, 48, 96)
    ]
    assert 0 < sizes[0] < sizes[1] < sizes[2]
    assert sizes[2] - sizes[1] == pytest.approx(2 * (sizes[1] - sizes[0]), abs=2)


class Wide(nn.Module):
    """A large matrix and a few numbers that depend on the rows."""

    def __init__(self):
        super().__init__()
        self.embedding, self.linear = nn.Embedding(20, 256), nn.Linear(256, 256)

    def forward(self, input_ids, attention_mask):
        return self.linear(self.embedding(input_ids[:, 0]))


def test_half_precision_copies_of_weights_are_counted_once(make_rig):
    model, probe = Wide(), make_rig.rows(2)
    copies = 2 * 256 * 256  # bytes of the matrix in bf16
    activations = estimate(
        model, LOSS, probe, make_rig.precision("bf16"), tokens=32 * 6
    ).activations
    gradient = 2 * copies  # of the matrix, in fp32, until it is dropped
    assert copies + gradient < activations < 2 * copies + gradient


def test_a_small_probe_tells_what_a_large_batch_takes(make_rig):
    model, precision = make_rig.toy(), make_rig.precision()
    guess = estimate(model, LOSS, make_rig.rows(4), precision, tokens=32 * 6)
    whole = estimate(model, LOSS, make_rig.rows(32), precision, tokens=32 * 6)
    assert guess.activations == pytest.approx(whole.activations, rel=0.01)


def test_what_passes_through_a_step_is_counted_while_it_lives():
    given = torch.ones(1000)
    with LiveBytes([given]) as live:
        kept = given.view(10, 100) + 1  # the view is nothing new
        for _ in range(3):
            passing = kept * 2
            del passing
        assert (live.now, live.most) == (4000, 8000)
        kept.mul_(2)
    assert live.most == 8000


def test_an_evaluation_may_take_more_than_a_step(make_rig):
    model, probe = make_rig.toy(), make_rig.rows(4)
    found = [
        estimate(model, LOSS, probe, make_rig.precision(), 24, evaluated).activations
        for evaluated in (0, 24, 24_000)
    ]
    assert found[0] == found[1] < found[2]


def test_a_probe_of_one_row_is_enough(make_rig):
    found = [
        estimate(Wide(), LOSS, make_rig.rows(rows), make_rig.precision(), tokens=48).activations
        for rows in (1, 8)
    ]
    assert found[0] == pytest.approx(found[1], rel=0.01)


def test_estimate_leaves_no_gradient_weight_or_random_state(make_rig):
    model = make_rig.toy().train()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    generators = read_generators()
    estimate(model, LOSS, make_rig.rows(3), make_rig.precision(), 18)
    torch.testing.assert_close(dict(model.state_dict()), before, rtol=0, atol=0)
    assert all(p.grad is None for p in model.parameters())
    assert read_generators() == generators
    assert model.training


def test_peak_memory_is_in_bytes():
    assert 50 * 2**20 < peak_memory(torch.device("cpu")) < 2**40


def test_near_counters_give_unrelated_seeds():
    seeds = {mix(a, b, c) for a in range(10) for b in range(10) for c in range(10)}
    assert len(seeds) == 1000
    assert all(0 <= seed < 2**63 for seed in seeds)
    bits = np.array([[seed >> bit & 1 for bit in range(63)] for seed in seeds])
    assert abs(bits.mean() - 0.5) < 0.02


def test_a_forwards_randomness_is_a_function_of_its_counters():
    draws = []
    for counters in [(1, 2, 3), (1, 2, 4), (1, 2, 3)]:
        torch.rand(5)
        seed_forward(*counters)
        draws.append(torch.rand(4))
    assert torch.equal(draws[0], draws[2])
    assert not torch.equal(draws[0], draws[1])


def test_randomness_comes_back_even_after_an_error():
    def draw_and_fail():
        torch.rand(1), np.random.rand(1), random.random()
        raise RuntimeError

    before = read_generators()
    with pytest.raises(RuntimeError), preserve_randomness():
        draw_and_fail()
    assert read_generators() == before
