"""data/stream/order.py and rows.py: which rows a micro-batch holds depends on nothing else."""

from itertools import chain, islice

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from data.reading.rows import Row
from data.stream.order import block_order, draw_runs, part_order
from data.stream.parts import Counted, make_parts
from data.stream.rows import Stream
from data.tables import Table
from engine.plan import Plan
from engine.windows import own_micro_batches
from engine.world import World


class Takes:
    """Takes all rows but some, and notes which were read."""

    def __init__(self, unusable=()):
        self.unusable, self.read = set(unusable), []

    def needed(self):
        return ["n"]

    def take(self, row, number, table):
        self.read.append(number)
        assert row.values["n"] == number
        return None if number in self.unusable else {"row": number}

    def check(self):
        pass

    def lines(self):
        return ["all are bad"]


def make_stream(sizes, buffer, seed=3, held=(), unusable=()):
    """A stream over tables of so many rows."""
    tables, first = [], 0
    for i, size in enumerate(sizes):
        rows = [Row(f"{i}[{n}]", {"n": first + n}) for n in range(size)]
        tables.append(
            Table(f"{i}", f"{i}", ("n",), lambda _, rows=rows: iter(rows), count=size)
        )  # fmt: skip
        first += size
    parts = make_parts(tables, [Counted(n) for n in sizes], None, np.array(held, dtype=np.int64))
    return Stream(parts, buffer, seed, Takes(unusable), "tables")


def as_they_are(rows):
    """Rows that need no encoding."""
    return rows


def numbers_of(stream, epoch, numbers, size):
    """The numbers of the rows of each of these micro-batches."""
    made = stream.micro_batches(epoch, numbers, size, as_they_are)
    return [[row["row"] for row in rows] for rows in made]


def flat(batches):
    """The rows of all of them."""
    return list(chain.from_iterable(batches))


def every(stream, size):
    """The numbers of an epoch's micro-batches."""
    return range(-(-stream.rows // size))


sources = st.lists(st.integers(0, 30), min_size=1, max_size=5).filter(any)
sizes, seeds = st.integers(1, 9), st.integers(0, 2**32 - 1)


@given(sources, st.integers(1, 40), sizes, seeds, st.integers(0, 3), st.data())
def test_a_stream_begun_anywhere_goes_on_as_one_read_from_its_start(
    rows, buffer, size, seed, epoch, data
):
    stream = make_stream(rows, buffer, seed)
    whole = numbers_of(stream, epoch, every(stream, size), size)
    start = data.draw(st.integers(0, len(whole)))
    rest = numbers_of(stream, epoch, every(stream, size)[start:], size)
    assert rest == whole[start:]


@given(sources, st.integers(1, 40), sizes, st.integers(1, 4), st.integers(1, 4), st.data())
def test_processes_share_the_micro_batches_of_one(rows, buffer, size, ranks, accumulate, data):
    stream = make_stream(rows, buffer)
    whole = numbers_of(stream, 0, every(stream, size), size)
    plan = Plan(0, 1, len(whole), accumulate, 99, None, None, None)
    start = accumulate * data.draw(st.integers(0, len(whole) // accumulate))
    together = {}
    for rank in range(ranks):
        own = dealt(plan, start, World(rank, ranks))
        together |= dict(zip(own, numbers_of(stream, 0, own, size), strict=True))
    assert [together[i] for i in sorted(together)] == whole[start:]


def dealt(plan, start, world):
    """The numbers that are a process's own."""
    from engine import world as module

    before, module._joined = module._joined, world
    try:
        return list(own_micro_batches(plan, start))
    finally:
        module._joined = before


@given(sources, st.integers(1, 40), sizes, st.data())
def test_an_epoch_sees_every_row_once_but_those_held_out(rows, buffer, size, data):
    held = data.draw(st.sets(st.integers(0, sum(rows) - 1), max_size=sum(rows) - 1))
    stream = make_stream(rows, buffer, held=sorted(held))
    seen = flat(numbers_of(stream, 1, every(stream, size), size))
    assert sorted(seen) == sorted(set(range(sum(rows))) - held)


def test_each_epoch_has_an_order_of_its_own():
    stream = make_stream([20, 20, 20], 7)
    first, second = (flat(numbers_of(stream, epoch, every(stream, 4), 4)) for epoch in (0, 1))
    assert first != second
    assert sorted(first) == sorted(second)
    orders = {tuple(part_order(6, 1, epoch)) for epoch in range(20)}
    assert len(orders) > 10
    blocks = {tuple(block_order(6, 1, epoch, k)) for epoch in range(5) for k in range(5)}
    assert len(blocks) > 15


def test_rows_move_within_their_block_alone():
    stream = make_stream([40], 10)
    seen = flat(numbers_of(stream, 0, every(stream, 5), 5))
    for k in range(4):
        assert sorted(seen[10 * k : 10 * k + 10]) == list(range(10 * k, 10 * k + 10))


@given(sources, st.integers(1, 40), sizes, st.data())
def test_what_cannot_be_used_moves_no_other_row(rows, buffer, size, data):
    total = sum(rows)
    stream = make_stream(rows, buffer)
    order = flat(numbers_of(stream, 0, every(stream, size), size))
    unusable = data.draw(st.sets(st.integers(0, total - 1), max_size=3))
    blocks = [set(order[i : i + buffer]) for i in range(0, total, buffer)]
    if any(block <= unusable for block in blocks):
        return
    other = make_stream(rows, buffer, unusable=unusable)
    seen = numbers_of(other, 0, every(other, size), size)
    assert [len(batch) for batch in seen[:-1]] == [size] * (len(seen) - 1)
    rows_seen = flat(seen)
    assert set(rows_seen) == set(range(total)) - unusable
    for i, block in enumerate(blocks):  # and no other block has changed
        here = rows_seen[i * buffer : (i + 1) * buffer]
        assert set(here) == block - unusable
        assert unusable & block or here == order[i * buffer : (i + 1) * buffer]


def test_a_resumed_stream_reads_nothing_before_its_block():
    stream = make_stream([100], 10)
    made = stream.micro_batches(0, range(16, 25), 4, as_they_are)
    list(islice(made, 1))  # places 64 to 67, of block 6
    assert stream.taker.read == list(range(60, 70))


def test_no_step_waits_for_a_whole_block():
    stream, read = make_stream([100], 20), []
    for _ in stream.micro_batches(0, range(25), 4, as_they_are):
        read.append(len(stream.taker.read))
    assert read == [20, 24, 28, 32, 36, 40, 44, 48, 52, 56, 60, 64, 68, 72, 76, 80,
                    84, 88, 92, 96, 100, 100, 100, 100, 100]  # fmt: skip


@given(st.integers(1, 500), st.integers(0, 500), st.integers(1, 20), seeds)
def test_runs_are_as_many_rows_as_wanted(rows, wanted, most, seed):
    wanted = min(wanted, rows)
    drawn = draw_runs(rows, wanted, most, seed, 0)
    assert len(drawn) == wanted
    assert (np.diff(drawn) > 0).all()
    assert not wanted or (drawn[0] >= 0 and drawn[-1] < rows)
    assert (np.diff(drawn) > 1).sum() < most


@given(sources, st.integers(1, 40), sizes, st.data())
def test_rows_that_give_no_tokens_have_stand_ins_of_their_block(rows, buffer, size, data):
    stream = make_stream(rows, buffer)
    refused = data.draw(st.sets(st.integers(0, sum(rows) - 1), max_size=3))
    order = flat(numbers_of(stream, 0, every(stream, size), size))
    blocks = [set(order[i : i + buffer]) for i in range(0, sum(rows), buffer)]
    if any(block <= refused for block in blocks):
        return

    def encode(taken):
        return [None if row["row"] in refused else row for row in taken]

    made = list(stream.micro_batches(0, every(stream, size), size, encode))
    seen = [[row["row"] for row in batch] for batch in made]
    assert [len(batch) for batch in seen[:-1]] == [size] * (len(seen) - 1)
    assert len(flat(seen)) == len(order)
    for number, batch in enumerate(seen):
        planned = order[number * size : (number + 1) * size]
        kept = [row for row in planned if row not in refused]
        assert batch[: len(kept)] == kept
        block = blocks[(number * size + len(planned) - 1) // buffer]
        assert set(batch[len(kept) :]) <= block - refused
    start = data.draw(st.integers(0, len(seen)))
    rest = stream.micro_batches(0, every(stream, size)[start:], size, encode)
    assert [[row["row"] for row in batch] for batch in rest] == seen[start:]
