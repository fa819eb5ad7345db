"""Packs and batches: nothing lost, nothing twice, no target across two conversations."""

import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from talks import rows_of, talk
from transformers import DataCollatorForLanguageModeling

from data.chat.batches import collate_chats
from data.chat.encode import ChatEncoding, encode_chats
from data.chat.packing import pack, pack_chats
from data.loaders import Padding, epoch_order, eval_batches, train_batches
from data.splits import seeded_order

CHATS = [talk("hi", "yo " * (1 + i % 7), *(["you", "fine"] * (i % 3))) for i in range(50)]


@pytest.fixture
def encoded(chatml):
    return encode_chats(rows_of(*CHATS), chatml, ChatEncoding(60), None, "f")[0]


def first_fit(lengths, capacity, seed):
    """The plain way: each into the first pack with room."""
    order = sorted(seeded_order(len(lengths), seed, 0).tolist(), key=lambda i: -lengths[i])
    packs, room = [], []
    for i in order:
        place = next((p for p, free in enumerate(room) if free >= lengths[i]), len(packs))
        if place == len(packs):
            packs.append([])
            room.append(capacity)
        packs[place].append(i)
        room[place] -= lengths[i]
    return packs


@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(1, 30), max_size=60), st.integers(30, 50), st.integers(0, 3))
def test_packs_are_first_fit_decreasing_and_a_partition(lengths, capacity, seed):
    packs = pack(lengths, capacity, seed)
    assert packs == first_fit(lengths, capacity, seed)
    assert sorted(i for one in packs for i in one) == list(range(len(lengths)))
    assert all(0 < sum(lengths[i] for i in one) <= capacity for one in packs)
    assert packs == pack(lengths, capacity, seed)


def test_another_seed_packs_otherwise_and_as_tight():
    lengths = np.random.default_rng(0).integers(1, 200, 500)
    assert pack(lengths, 256, 1) != pack(lengths, 256, 2)
    assert len(pack(lengths, 256, 1)) == len(pack(lengths, 256, 2))


def test_what_no_pack_holds_is_refused():
    with pytest.raises(ValueError, match="1 to 40 tokens do not go into packs of 30"):
        pack([1, 40], 30, 0)


def test_a_hundred_thousand_are_packed_in_seconds_and_tight():
    lengths = np.random.default_rng(0).lognormal(5, 1, 100_000).astype(int).clip(1, 2048)
    begin = time.process_time()
    packs = pack(lengths, 2048, 0)
    assert time.process_time() - begin < 10
    assert lengths.sum() / (len(packs) * 2048) > 0.99


def test_packed_rows_hold_the_conversations_and_the_cache_is_hit(encoded, tmp_path):
    packed = pack_chats(encoded, 60, 3, tmp_path)
    rows = {row["row"]: row for row in encoded.dataset}
    met = []
    for one in packed.encoded.dataset:
        assert one["length"] == sum(one["chats"]) == len(one["input_ids"]) <= 60
        ends = np.cumsum(one["chats"])
        for number, length, end in zip(one["rows"], one["chats"], ends, strict=True):
            part = slice(end - length, end)
            assert one["input_ids"][part] == rows[number]["input_ids"]
            assert one["labels"][part] == rows[number]["labels"]
            assert one["labels"][end - 1] == -100  # no target in the next conversation
        met += one["rows"]
    assert sorted(met) == sorted(rows)
    assert packed.efficiency == encoded.tokens / (60 * packed.packs)
    assert f"50 conversations in {packed.packs} rows" in packed.line(60)
    again = pack_chats(encoded, 60, 3, tmp_path)
    assert again.encoded.hit
    assert again.encoded.dataset[:] == packed.encoded.dataset[:]
    assert not pack_chats(encoded, 60, 4, tmp_path).encoded.hit
    assert pack_chats(encoded, 60, 3, None).encoded.dataset[:] == packed.encoded.dataset[:]


def test_a_batch_of_packs_has_positions_that_begin_anew(encoded):
    rows = [pack_chats(encoded, 60, 0, None).encoded.dataset[i] for i in (0, -1)]
    batch = collate_chats(rows, Padding(7, "left", multiple=8))
    ids, mask = batch["inputs"]["input_ids"], batch["inputs"]["attention_mask"]
    positions = batch["inputs"]["position_ids"]
    for i, row in enumerate(rows):
        n = row["length"]
        assert ids[i, :n].tolist() == row["input_ids"]
        assert batch["labels"][i, :n].tolist() == row["labels"]
        assert positions[i, :n].tolist() == [p for m in row["chats"] for p in range(m)]
        assert mask[i].tolist() == [1] * n + [0] * (ids.shape[1] - n)  # behind the text
        assert set(positions[i, n:].tolist()) <= {0}
        assert set(batch["labels"][i, n:].tolist()) <= {-100}
    assert batch["rows"].tolist() == [number for row in rows for number in row["rows"]]
    assert batch["tokens"] == int(mask.sum())
    assert {t.dtype for t in (ids, mask, positions, batch["labels"])} == {torch.int64}


def test_transformers_finds_the_packs_by_our_positions(encoded):
    from transformers.masking_utils import find_packed_sequence_indices

    rows = pack_chats(encoded, 60, 0, None).encoded.dataset
    batch = collate_chats([rows[0], rows[1]], Padding(0))
    packs = find_packed_sequence_indices(batch["inputs"]["position_ids"])
    for i in range(2):
        expected = np.repeat(np.arange(len(rows[i]["chats"])), rows[i]["chats"])
        assert packs[i, : rows[i]["length"]].tolist() == expected.tolist()


def test_eos_is_learned_where_it_pads_and_the_usual_collator_hides_it(chatml):
    chatml.pad_token = chatml.eos_token
    encoded, _ = encode_chats(
        rows_of(talk("hi", "yo"), talk("hi", "yo", "you", "fine")), chatml, ChatEncoding(60),
        None, "f",
    )  # fmt: skip
    rows = list(encoded.dataset)
    eos = chatml.eos_token_id
    usual = DataCollatorForLanguageModeling(chatml, mlm=False)
    theirs = usual([{"input_ids": row["input_ids"]} for row in rows])["labels"]
    assert (theirs == eos).sum() == 0  # no reply ever ends
    batch = collate_chats(rows, Padding(eos))
    assert (batch["labels"] == eos).sum() == 3  # one a reply
    padding = batch["inputs"]["attention_mask"] == 0
    assert padding.any()
    assert (batch["labels"][padding] == -100).all()


@pytest.mark.parametrize("packed", [False, True])
def test_batches_are_the_same_with_workers_and_from_any_place_on(packed, encoded):
    rows = pack_chats(encoded, 60, 0, None).encoded.dataset if packed else encoded.dataset
    order = epoch_order(len(rows), 3, 1)
    usual = list(
        train_batches(rows, order, range(-(-len(order) // 4)), 4, Padding(0), join=collate_chats)
    )
    helped = list(
        train_batches(
            rows, order, range(-(-len(order) // 4)), 4, Padding(0), workers=2, join=collate_chats
        )
    )
    later = list(
        train_batches(rows, order, range(2, -(-len(order) // 4)), 4, Padding(0), join=collate_chats)
    )
    assert len(usual) == -(-len(rows) // 4)
    for one, other in [*zip(usual, helped, strict=True), *zip(usual[2:], later, strict=True)]:
        assert one["rows"].tolist() == other["rows"].tolist()
        assert torch.equal(one["labels"], other["labels"])
        assert all(torch.equal(value, other["inputs"][k]) for k, value in one["inputs"].items())
    all_rows = [n for batch in eval_batches(rows, 4, Padding(0), join=collate_chats)
                for n in batch["rows"].tolist()]  # fmt: skip
    assert sorted(all_rows) == list(range(100, 150))
