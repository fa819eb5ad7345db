"""What a process holds and sends, by how the model is spread: by hand, and where it cannot be."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.ways import Processes, Sizes, Way, choose, held, sent

# a model of 100 bytes, four blocks of 20, of which 16 each can be split; 40 bytes train
MODEL = Sizes(frozen=60, trained=40, block=20, outside=20, splittable=64, activations=7)
FULL, GRAD, HYBRID = (Way("fsdp", shard) for shard in ("full", "grad_op", "hybrid"))
DDP = Way("ddp")


def test_each_has_all_of_it_and_sends_its_gradients_twice_around():
    one = held(MODEL, DDP, Processes(4, 4), 4)
    assert (one.weights, one.optimizer, one.gathered, one.activations) == (100, 80, 0, 7)
    assert one.gradients == 40 + 40  # they are summed in a copy
    assert sent(MODEL, DDP, Processes(4, 4), 4) == 2 * 40 * 3 / 4


def test_of_shards_each_has_its_own_and_two_blocks_of_others():
    one = held(MODEL, FULL, Processes(4, 4), 4)
    assert (one.weights, one.optimizer) == (25, 20)
    assert one.gathered == 2 * 20 + 20
    assert one.gradients == int(0.4 * (2 * 20 + 20)) + 10
    # forward and backward gather all weights, gradients are scattered once
    assert sent(MODEL, FULL, Processes(4, 4), 4) == (2 * 100 + 40) * 3 / 4


def test_gradients_of_several_micro_batches_are_kept_whole_until_the_last():
    assert held(MODEL, FULL, Processes(4, 4), 8).gradients == 40 + 10
    assert sent(MODEL, FULL, Processes(4, 4), 8) == (4 * 100 + 40) * 3 / 4


def test_weights_that_stay_gathered_are_sent_once():
    assert held(MODEL, GRAD, Processes(4, 4), 4).gathered == 100
    assert sent(MODEL, GRAD, Processes(4, 4), 12) == (100 + 40) * 3 / 4


def test_a_copy_on_each_machine_sums_shards_between_machines():
    one = held(MODEL, HYBRID, Processes(8, 4), 8)
    assert one.weights == 25
    assert sent(MODEL, HYBRID, Processes(8, 4), 8) == (2 * 100 + 40) * 3 / 4 + 2 * 0.5 * 40 / 4


def test_layers_in_two_parts_halve_what_is_in_them():
    assert held(MODEL, replace(DDP, tensor=2), Processes(2, 2), 1).weights == 36 + 64 / 2


def test_offloaded_shards_are_not_on_the_device():
    one = held(MODEL, replace(FULL, offload=True), Processes(4, 4), 4)
    assert (one.weights, one.optimizer) == (0, 0)
    assert one.gathered == 60


def test_shards_are_taken_where_a_whole_model_does_not_fit():
    processes = Processes(4, 4)
    need = held(MODEL, DDP, processes, 4).total
    assert choose(MODEL, processes, 4, need, FULL) == DDP
    assert choose(MODEL, processes, 4, need - 1, GRAD) == GRAD


@given(
    st.builds(Sizes, *[st.integers(0, 2**40)] * 2, *[st.just(2**20)] * 2, st.just(0), st.just(0)),
    st.integers(1, 64), st.integers(1, 64),
)  # fmt: skip
def test_one_process_sends_nothing_and_more_shards_hold_less(sizes, size, accumulate):
    for way in (DDP, FULL, GRAD, HYBRID):
        assert sent(sizes, way, Processes(1, 1), accumulate) == 0
    if sizes.weights:
        small, large = (held(sizes, FULL, Processes(n, n), accumulate) for n in (size + 1, size))
        assert small.weights <= large.weights
        assert small.optimizer <= large.optimizer


@pytest.mark.parametrize(
    ("way", "words"),
    [(DDP, "ddp"), (FULL, "fsdp, full"),
     (Way("fsdp", "grad_op", 2, True), "fsdp, grad_op, layers in 2 parts, offloaded")],
)  # fmt: skip
def test_a_way_is_named(way, words):
    assert str(way) == words
