"""Several conversations in one row, so that no step computes padding.

First-fit decreasing: the longest first, each into the first row that still has room for it. That
takes at most 11/9 of the fewest rows possible, and 6/9 of a row (Dósa 2007).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa

from data.cache import make_key, open_built, read_arrow, write_arrow
from data.chat.encode import IDS
from data.encode import Encoded
from data.splits import seeded_order

CHUNK = 500  # packs written at a time
SCHEMA = pa.schema(
    [("input_ids", IDS), ("labels", IDS), ("chats", IDS), ("rows", pa.list_(pa.int64())),
     ("length", pa.int32())]
)  # fmt: skip


@dataclass(frozen=True)
class Packed:
    """An encoded split in packs: columns input_ids, labels, chats (tokens of each conversation in
    it), rows (their numbers in the source), length. `efficiency`: tokens per place."""

    encoded: Encoded
    packs: int
    chats: int
    efficiency: float

    def line(self, capacity: int) -> str:
        """The same for people."""
        return (
            f"packed: {self.chats:,} conversations in {self.packs:,} rows of {capacity:,} tokens, "
            f"{self.efficiency:.1%} filled"
        )


def pack(lengths: Sequence[int] | np.ndarray, capacity: int, seed: int) -> list[list[int]]:
    """Numbers of the conversations in each pack, by their lengths in tokens: a pure function.

    Those of one length are put in the order that the seed draws. All of them go at once: the first
    packs with room take as many as fit, which is what putting one after the other does. Raises
    ValueError for a length that no pack holds.
    """
    sizes = np.asarray(lengths, dtype=np.int64)  # (n,)
    if not len(sizes):
        return []
    if not 1 <= sizes.min() <= sizes.max() <= capacity:
        raise ValueError(
            f"conversations of {sizes.min()} to {sizes.max()} tokens do not go into packs of "
            f"{capacity}"
        )
    order = seeded_order(len(sizes), seed, 0)
    order = order[np.argsort(-sizes[order], kind="stable")]  # the longest first
    pack_of = np.empty(len(sizes), dtype=np.int64)
    room = np.zeros(len(sizes), dtype=np.int64)  # of each pack; more there never are
    packs = 0
    starts = np.flatnonzero(np.diff(sizes[order], prepend=-1))  # of each length in the order
    for start, end in zip(starts, np.append(starts[1:], len(order)), strict=True):
        size, left = int(sizes[order[start]]), int(end - start)
        open_packs = np.flatnonzero(room[:packs] >= size)
        takes = room[open_packs] // size
        new = max(0, -(-(left - int(takes.sum())) // (capacity // size)))
        room[packs : packs + new] = capacity
        open_packs = np.append(open_packs, np.arange(packs, packs + new))
        takes = np.append(takes, np.full(new, capacity // size))
        packs += new
        takes = np.diff(np.minimum(np.cumsum(takes), left), prepend=0)  # the last one may take less
        room[open_packs] -= takes * size
        pack_of[order[start:end]] = np.repeat(open_packs, takes)
    members = order[np.argsort(pack_of[order], kind="stable")]
    borders = np.searchsorted(pack_of[members], np.arange(1, packs))
    return [part.tolist() for part in np.split(members, borders)]


def pack_chats(encoded: Encoded, capacity: int, seed: int, cache_dir: Path | None) -> Packed:
    """An encoded split of conversations in packs of at most `capacity` tokens, or the cache of
    having packed it. Without a `cache_dir` the result is held in memory."""
    lengths = np.array(encoded.dataset["length"])
    packs = pack(lengths, capacity, seed)
    key = make_key(packed=encoded.key, capacity=capacity, seed=seed)
    batches = _batches(encoded.dataset, lengths, packs)
    hit = False
    if cache_dir is None:
        dataset = datasets.Dataset(pa.Table.from_batches(list(batches), schema=SCHEMA))
    else:
        folder = cache_dir / "encoded" / key[:32]
        hit = open_built(folder, lambda made: write_arrow(made / "rows.arrow", SCHEMA, batches))
        dataset = read_arrow(folder / "rows.arrow")
    done = Encoded(
        dataset, key, hit, len(packs), encoded.truncated_rows, encoded.tokens, encoded.cut_tokens
    )
    efficiency = encoded.tokens / max(1, len(packs) * capacity)
    return Packed(done, len(packs), encoded.rows, efficiency)


def _batches(
    rows: datasets.Dataset, lengths: np.ndarray, packs: Sequence[Sequence[int]]
) -> Iterator[pa.RecordBatch]:
    """The packs, CHUNK at a time; what lies on disk is joined there, without a token looked at."""
    arrow = rows.with_format("arrow")
    for start in range(0, len(packs), CHUNK):
        chunk = packs[start : start + CHUNK]
        members = list(chain.from_iterable(chunk))
        table = arrow[members].combine_chunks()
        counts = np.cumsum([0, *map(len, chunk)])  # (packs + 1,) members before each
        tokens = np.cumsum([0, *lengths[members]])[counts]  # (packs + 1,)
        columns = [
            _lists(tokens, table.column("input_ids").combine_chunks().flatten()),
            _lists(tokens, table.column("labels").combine_chunks().flatten()),
            _lists(counts, pa.array(lengths[members], pa.int32())),
            _lists(counts, table.column("row").combine_chunks()),
            pa.array(np.diff(tokens), pa.int32()),
        ]
        yield pa.RecordBatch.from_arrays(columns, schema=SCHEMA)


def _lists(borders: np.ndarray, values: pa.Array) -> pa.ListArray:
    return pa.ListArray.from_arrays(pa.array(borders, pa.int32()), values)
