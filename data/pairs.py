"""Pairs of rows, half of them of one class and half of two, drawn anew for each epoch.

    place in the order   0 1   2 3   4 5   6 7   …
    classes              a a   a b   b b   b a   …      rows 2i and 2i + 1 are a pair

n rows make n (n - 1) / 2 pairs, far more than a run can take, so an epoch has as many as it is
given. What is drawn is a function of (seed, epoch) alone.
"""

from dataclasses import dataclass

import numpy as np

from data.loaders import epoch_order


def draw_pairs(classes: np.ndarray, pairs: int, seed: int, epoch: int) -> np.ndarray:
    """Numbers (2 * pairs,) int64 of rows; those at 2i and 2i + 1 are a pair. classes (N,) int64.

    Pairs of equal and of different class take turns. Each class has its share of both, but for
    those of one row, which no pair of equal class can have: no row stands beside itself. The first
    rows of equal pairs, and both of the others, go through all rows of a class before one of them
    comes again. Raises ValueError where no class has two rows, or there is only one class.
    """
    names, counts = np.unique(classes, return_counts=True)  # (C,)
    if reason := why_no_pairs(classes):
        raise ValueError(f"no pairs can be drawn: {reason}")
    # the counter begins far from that of the orders, so that these are draws of their own
    key = np.array([seed % 2**64, epoch % 2**64], dtype=np.uint64)
    raw = np.random.Philox(key=key, counter=np.array([0, 0, 0, 1], dtype=np.uint64))
    places = np.empty((pairs, 2), dtype=np.int64)  # of a row among those of its class
    owners = np.empty((pairs, 2), dtype=np.int64)  # its class, as a place in `names`
    several, equal = np.flatnonzero(counts > 1), (pairs + 1) // 2
    owners[0::2] = several[rounds(raw, len(several), equal).ravel()[:equal, None]]
    turns = rounds(raw, len(names), pairs - equal)  # (turns, C): each class beside the next one
    owners[1::2, 0] = turns.ravel()[: pairs - equal]
    owners[1::2, 1] = np.roll(turns, -1, axis=1).ravel()[: pairs - equal]
    partners = np.zeros((pairs, 2), dtype=bool)
    partners[0::2, 1] = True
    for number, count in enumerate(counts):
        drawn = (owners == number) & ~partners
        wanted = int(drawn.sum())
        places[drawn] = rounds(raw, count, wanted).ravel()[:wanted]
    rest = counts[owners[0::2, 0]] - 1  # (equal,) other rows of the class
    steps = (raw.random_raw(equal) % rest.astype(np.uint64)).astype(np.int64) + 1
    places[0::2, 1] = (places[0::2, 0] + steps) % (rest + 1)
    by_class = np.argsort(classes, kind="stable")  # (N,)
    starts = np.cumsum(counts) - counts  # (C,)
    return by_class[starts[owners] + places].ravel()


def rounds(raw: np.random.Philox, size: int, wanted: int) -> np.ndarray:
    """(rounds, size) permutations of range(size), at least `wanted` numbers together."""
    shape = -(-wanted // size), size
    return np.argsort(raw.random_raw(shape), axis=1, kind="stable")


def why_no_pairs(classes: np.ndarray) -> str | None:
    """What pairs of these classes (N,) lack; None where there are some."""
    counts = np.unique(classes, return_counts=True)[1]
    if len(counts) < 2:
        return "all training rows are of one class, and half of the pairs have two"
    if counts.max() < 2:
        return "no class has two training rows, and half of the pairs are of one class"
    return None


def count_pairs(classes: np.ndarray) -> tuple[int, int]:
    """(pairs of equal class, pairs of different class) that there are of classes (N,)."""
    counts = np.unique(classes, return_counts=True)[1]
    equal = int((counts * (counts - 1) // 2).sum())
    return equal, len(classes) * (len(classes) - 1) // 2 - equal


@dataclass(frozen=True)
class Order:
    """In which order epochs take the training rows: each of them once, or drawn in pairs."""

    seed: int
    classes: np.ndarray | None  # (N,) of the rows, for pairs
    size: int  # N
    pairs: int = 0  # of an epoch; 0: each row once
    streamed: int = 0  # rows of an epoch that stream; the N are a sample, to reckon with

    @property
    def rows(self) -> int:
        """Rows of an epoch."""
        return self.streamed or 2 * self.pairs or self.size

    @property
    def together(self) -> int:
        """So many rows, one after the other, make no sense apart."""
        return 2 if self.pairs else 1

    def epoch(self, epoch: int) -> np.ndarray:
        """(rows,) int64 numbers of rows, of a sample (N,): a pure function."""
        if self.classes is None:
            return epoch_order(self.size, self.seed, epoch)
        return draw_pairs(self.classes, self.pairs, self.seed, epoch)
