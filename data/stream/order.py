"""The order of a stream, without anything remembered.

    parts, in an order drawn for the epoch      | file 2        | file 0   | file 1           |
    blocks of `buffer` rows of what they hold   | 0     | 1     | 2     | 3     | 4     | 5   |
    each in an order drawn for (epoch, block)     4 0 2…  1 5 3…  …
    micro-batches                               | 0 | 1 | 2 | 3 | …

Micro-batch i holds places i * size to (i + 1) * size of that. So which rows it holds is a pure
function of (seed, epoch, i): a run that goes on, on however many processes, goes to the block of
its place and reads from there. No buffer has to be kept, and none could be lost.
"""

import hashlib
import struct

import numpy as np

from data.splits import seeded_order

PARTS, BLOCK, HELD, SAMPLED = range(4)  # what is drawn: the draws of each are its own


def counted_order(size: int, seed: int, *counters: int) -> np.ndarray:
    """A permutation (size,) int64 that is a pure function of its arguments; near ones give
    unrelated permutations."""
    packed = struct.pack(f"<{len(counters)}q", *counters)
    stream = int.from_bytes(hashlib.blake2b(packed, digest_size=8).digest(), "little")
    return seeded_order(size, seed, stream)


def part_order(parts: int, seed: int, epoch: int) -> np.ndarray:
    """(parts,) in which order an epoch reads them."""
    return counted_order(parts, seed, PARTS, epoch)


def block_order(size: int, seed: int, epoch: int, block: int) -> np.ndarray:
    """(size,) in which order the rows of a block of an epoch are taken."""
    return counted_order(size, seed, BLOCK, epoch, block)


def draw_runs(rows: int, wanted: int, most: int, seed: int, kind: int) -> np.ndarray:
    """(wanted,) numbers of rows, sorted: at most `most` runs of rows that follow each other, each
    at a place drawn in its own stretch of the source.

    Runs, so that few places are read of a large source; drawn, so that a pattern of the source does
    not meet the distance between them. Expects 0 <= wanted <= rows.
    """
    if not wanted:
        return np.empty(0, dtype=np.int64)
    runs = min(most, wanted)
    borders = np.arange(runs + 1) * rows // runs  # (runs + 1,) of the stretches
    lengths = np.diff(np.arange(runs + 1) * wanted // runs)  # (runs,)
    room = np.diff(borders) - lengths
    while (room < 0).any():  # a short stretch beside a long run: rounding, on both sides
        lengths[room.argmin()] -= 1
        lengths[room.argmax()] += 1
        room = np.diff(borders) - lengths
    key = np.array([seed % 2**64, kind], dtype=np.uint64)
    draws = np.random.Philox(key=key).random_raw(runs) % (room + 1).astype(np.uint64)
    starts = borders[:-1] + draws.astype(np.int64)
    return np.concatenate(
        [np.arange(start, start + n) for start, n in zip(starts, lengths, strict=True)]
    )
