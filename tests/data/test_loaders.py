import numpy as np
import pytest
import torch
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from data.loaders import (
    Padding,
    collate,
    epoch_order,
    eval_batches,
    fill_batches,
    train_batches,
)


def micro_batches(dataset, order, start, size, padding, **named):
    """train_batches of an epoch from number `start` on."""
    return train_batches(
        dataset, order, range(start, -(-len(order) // max(1, size))), size, padding, **named
    )


def make(lengths, labels=None):
    """Rows whose tokens all are their own number, from 1 on."""
    return Dataset.from_dict(
        {
            "input_ids": [[i + 1] * n for i, n in enumerate(lengths)],
            "labels": labels or [i % 2 for i in range(len(lengths))],
            "row": [100 + i for i in range(len(lengths))],
            "length": lengths,
        }
    )


def equal(left, right):
    flat = [
        {**batch["inputs"], "labels": batch["labels"], "rows": batch["rows"]}
        for batch in (left, right)
    ]
    return flat[0].keys() == flat[1].keys() and all(
        torch.equal(flat[0][name], flat[1][name]) for name in flat[0]
    )


@settings(max_examples=40, deadline=None)
@given(size=st.integers(1, 200), seed=st.integers(0, 2**31), epoch=st.integers(0, 50))
def test_epoch_order_is_a_permutation_and_a_pure_function(size, seed, epoch):
    order = epoch_order(size, seed, epoch)
    assert sorted(order) == list(range(size))
    np.random.seed(seed % 7)
    assert (epoch_order(size, seed, epoch) == order).all()


def test_epochs_and_seeds_have_orders_of_their_own():
    orders = {tuple(epoch_order(50, seed, epoch)) for seed in range(5) for epoch in range(5)}
    assert len(orders) == 25


@settings(max_examples=15, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 20), min_size=1, max_size=40),
    size=st.integers(1, 9),
    seed=st.integers(0, 99),
)
def test_batches_hold_every_row_once_in_epoch_order(lengths, size, seed):
    dataset = make(lengths)
    batches = list(micro_batches(dataset, epoch_order(len(lengths), seed, 3), 0, size, Padding(0)))
    rows = torch.cat([batch["rows"] for batch in batches]) - 100
    assert rows.tolist() == epoch_order(len(lengths), seed, 3).tolist()
    assert all(len(batch["rows"]) == size for batch in batches[:-1])
    assert sum(batch["tokens"] for batch in batches) == sum(lengths)


@settings(max_examples=12, deadline=None)
@given(rows=st.integers(1, 30), size=st.integers(1, 7), start=st.integers(0, 8))
def test_starting_at_k_equals_skipping_k_batches(rows, size, start):
    dataset = make([1 + i % 5 for i in range(rows)])
    order = epoch_order(rows, 1, 0)
    whole = list(micro_batches(dataset, order, 0, size, Padding(0)))
    rest = list(micro_batches(dataset, order, start, size, Padding(0)))
    assert len(rest) == max(0, len(whole) - start)
    assert all(equal(a, b) for a, b in zip(whole[start:], rest, strict=True))


def test_workers_change_no_batch():
    dataset = make([1 + i % 9 for i in range(25)])
    order = epoch_order(len(dataset), 1, 2)
    alone = list(micro_batches(dataset, order, 1, 4, Padding(0)))
    helped = list(micro_batches(dataset, order, 1, 4, Padding(0), workers=2))
    assert len(alone) == len(helped) == 6
    assert all(equal(a, b) for a, b in zip(alone, helped, strict=True))


@pytest.mark.parametrize("workers", [0, 1])
def test_loading_leaves_every_global_generator_alone(workers):
    dataset = make([3] * 8)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    order = epoch_order(len(dataset), 1, 0)
    list(micro_batches(dataset, order, 0, 4, Padding(0), workers=workers))
    list(eval_batches(dataset, 4, Padding(0), workers=workers))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=20), st.sampled_from(["right", "left"]))
def test_mask_follows_lengths_and_width_the_longest_row(lengths, side):
    rows = [{"input_ids": [0] * n} for n in lengths]  # all tokens look like padding
    inputs = collate(rows, Padding(0, side))["inputs"]
    width = inputs["input_ids"].shape[1]
    assert width % 8 == 0
    assert 0 <= width - max(lengths) < 8
    assert inputs["attention_mask"].sum(dim=1).tolist() == lengths
    edge = 0 if side == "right" else -1
    assert (inputs["attention_mask"][:, edge] == 1).all()


@pytest.mark.parametrize(
    ("side", "expected"),
    [("right", [[7, 8, 9, 9], [6, 5, 4, 3]]), ("left", [[9, 9, 7, 8], [6, 5, 4, 3]])],
)
def test_padding_stands_on_its_side(side, expected):
    rows = [
        {"input_ids": [7, 8], "token_type_ids": [0, 1]},
        {"input_ids": [6, 5, 4, 3], "token_type_ids": [1, 1, 1, 1]},
    ]
    inputs = collate(rows, Padding(9, side, multiple=4))["inputs"]
    assert inputs["input_ids"].tolist() == expected
    types = [0, 1, 0, 0] if side == "right" else [0, 0, 0, 1]
    assert inputs["token_type_ids"].tolist()[0] == types
    assert {tensor.dtype for tensor in inputs.values()} == {torch.int64}


def test_rounding_up_does_not_pass_the_last_position():
    rows = [{"input_ids": [1] * 9}]
    assert collate(rows, Padding(0, max_length=10))["inputs"]["input_ids"].shape == (1, 10)
    assert collate(rows, Padding(0, max_length=4))["inputs"]["input_ids"].shape == (1, 9)


@pytest.mark.parametrize(
    ("labels", "dtype", "shape"),
    [
        ([0, 1, 1], torch.int64, (3,)),
        ([0.5, 1.0, 1_700_000_000.123], torch.float64, (3,)),
        ([[0.0, 1.0], [1.0, 1.0], [0.0, 0.0]], torch.float32, (3, 2)),
    ],
)
def test_labels_have_the_type_of_their_kind(labels, dtype, shape):
    (batch,) = micro_batches(make([1, 2, 3], labels), epoch_order(3, 0, 0), 0, 3, Padding(0))
    assert batch["labels"].dtype == dtype
    assert batch["labels"].shape == shape


def test_texts_without_labels_make_a_batch_too():
    assert set(collate([{"input_ids": [1]}], Padding(0))) == {"inputs", "tokens"}


@settings(max_examples=12, deadline=None)
@given(st.lists(st.integers(1, 20), min_size=1, max_size=40), st.integers(1, 9))
def test_evaluation_takes_every_row_once_longest_first(lengths, size):
    batches = list(eval_batches(make(lengths), size, Padding(0)))
    rows = torch.cat([batch["rows"] for batch in batches]) - 100
    assert sorted(rows.tolist()) == list(range(len(lengths)))
    taken = [lengths[i] for i in rows]
    assert taken == sorted(lengths, reverse=True)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=40), st.integers(1, 5))
def test_shorter_rows_go_more_at_a_time_in_the_room_of_the_longest(lengths, size):
    padding = Padding(0)
    batches = fill_batches(lengths, size, padding.multiple)
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    rows = [{"input_ids": [0] * n} for n in lengths]
    shapes = [collate([rows[i] for i in b], padding)["inputs"]["input_ids"].shape for b in batches]
    room = size * shapes[0][1]
    assert all(shape.numel() <= room for shape in shapes)
    for count, width in shapes[:-1]:
        assert (count + 1) * width > room  # no more would have fitted


def test_few_tokens_are_filled_up_to_the_least_that_a_pass_is_worth():
    short = [3] * 100  # each is eight tokens wide
    assert [len(batch) for batch in fill_batches(short, 2, 8, least=400)] == [50, 50]
    assert [len(batch) for batch in fill_batches(short, 2, 8)] == [2] * 50
    assert fill_batches([60, 3], 8, 8, least=400) == [[0, 1]]  # the room is larger anyway


def test_a_batch_of_nothing_is_refused():
    for batches in (
        lambda: micro_batches(make([1]), epoch_order(1, 0, 0), 0, 0, Padding(0)),
        lambda: eval_batches(make([1]), 0, Padding(0)),
    ):
        with pytest.raises(ValueError, match="micro_batch_size: got 0"):
            batches()
