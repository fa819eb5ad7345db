"""The largest batch of a run is known beforehand."""

import numpy as np
import pytest

from data.loaders import epoch_order
from data.pairs import Order
from engine.plan import Plan
from job.training.needs import batch_tokens, held_out_tokens, most_tokens

LENGTHS = np.array([5, 1, 1, 2, 9, 3, 4])


def make_plan(steps, accumulate=1):
    return Plan(
        seed=3, epochs=2, micro_batches_per_epoch=4, accumulate=accumulate, total_steps=steps,
        max_grad_norm=None, evaluate_every=None, save_every=None,
    )  # fmt: skip


def test_a_stream_costs_its_own_tokens_and_a_padded_batch_its_longest_rows():
    assert batch_tokens(LENGTHS, 3, streams=True).tolist() == [7, 14, 4]
    assert batch_tokens(LENGTHS, 3, streams=False).tolist() == [15, 27, 4]


@pytest.mark.parametrize(
    ("steps", "accumulate", "micro_batches"), [(1, 1, 1), (2, 2, 4), (5, 1, 5)]
)
def test_the_largest_batch_is_among_those_that_the_run_sees(steps, accumulate, micro_batches):
    orders = [LENGTHS[epoch_order(len(LENGTHS), 3, epoch)] for epoch in (0, 1)]
    seen = [order[first : first + 2].sum() for order in orders for first in range(0, 7, 2)]
    order = Order(3, None, len(LENGTHS))
    found = most_tokens(LENGTHS, order, make_plan(steps, accumulate), 2, streams=True)
    assert found == max(seen[:micro_batches])


def test_an_evaluations_largest_batch_may_be_one_of_short_rows():
    lengths = np.array([64] + [10] * 40)
    # 2 rows of 64 tokens leave room for 8 of up to 16
    assert held_out_tokens(lengths, 2, 8, streams=True) == 80
    assert held_out_tokens(lengths, 2, 8, streams=False) == 128
