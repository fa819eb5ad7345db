"""Who trains, who validates, who tests: seeded cuts, samples, and texts that stand twice."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from data.clean import normalise


def seeded_order(size: int, seed: int, stream: int) -> np.ndarray:
    """A permutation of range(size) that is a pure function of its arguments.

    Philox is a counter-based generator whose raw bits are fixed for good; sorting by them keeps the
    order the same over numpy's versions, which `Generator.permutation` does not promise.
    """
    key = np.array([seed % 2**64, stream % 2**64], dtype=np.uint64)
    draws = np.random.Philox(key=key).random_raw(size) if size else np.empty(0, np.uint64)
    return np.argsort(draws, kind="stable")


def hold_out_size(size: float, rows: int) -> int:
    """Rows of a hold-out wanted as a share (below 1, at least one row) or as a number."""
    if size < 0 or (size >= 1 and size != int(size)):
        raise ValueError(f"got {size}, expected a share from 0 to below 1, or a number of rows")
    return int(size) if size >= 1 or size == 0 else max(1, round(size * rows))


def cut(
    classes: np.ndarray | None, rows: int, sizes: Mapping[str, int], seed: int
) -> dict[str, np.ndarray]:
    """Cut the hold-outs `sizes` (name -> rows) from range(rows); what is left is "train".

    With `classes` (rows,) each hold-out has every class in its proportion, to within one row, and
    never takes the last training row of a class. Indices come sorted.
    """
    order = seeded_order(rows, seed, 0)
    parts = {}
    for name, size in sizes.items():
        if size >= len(order):
            raise ValueError(
                f"data.{name}: {size} rows asked for, and {len(order)} are left to cut them from"
            )
        taken = np.zeros(rows, dtype=bool)
        if classes is None:
            taken[order[:size]] = True
        else:
            values, counts = np.unique(classes[order], return_counts=True)
            for value, quota in zip(values, _quotas(counts, size), strict=True):
                taken[order[classes[order] == value][:quota]] = True
        parts[name] = np.flatnonzero(taken)
        order = order[~taken[order]]
    parts["train"] = np.sort(order)
    return parts


def _quotas(counts: np.ndarray, size: int) -> np.ndarray:
    """`size` shared out by class (largest remainders), leaving each class a row while possible."""
    exact = counts * size / counts.sum()
    quotas = np.floor(exact).astype(np.int64)
    by_remainder = np.argsort(-(exact - quotas), kind="stable")
    for reserve in (1, 0):  # rows left to each class; 0 only where none has more
        for i in by_remainder:
            if quotas.sum() < size and quotas[i] < counts[i] - reserve:
                quotas[i] += 1
    return quotas


def sample(rows: int, size: int, seed: int) -> np.ndarray:
    """The well-known recipe `Dataset.shuffle(seed).select(range(size))`, as indices.

    It draws from the same numpy generator, so the very same rows are meant.
    """
    if size > rows:
        raise ValueError(f"{size} rows asked for, and there are {rows}")
    return np.random.default_rng(seed).permutation(rows)[:size]


def text_key(text: str, pair: str | None = None) -> bytes:
    """16 bytes that stand for a text (or a pair), so that memory does not hold the texts."""
    joined = text if pair is None else f"{text}\0{pair}"
    return hashlib.blake2b(joined.encode("utf-8"), digest_size=16).digest()


def normalised_keys(texts: Iterable[tuple[str, str | None]]) -> list[bytes]:
    """The keys of texts in the form in which two of them count as the same."""
    return [
        text_key(normalise(text), None if pair is None else normalise(pair)) for text, pair in texts
    ]


def find_overlap(left: Sequence[bytes], right: Sequence[bytes]) -> list[tuple[int, int]]:
    """Rows of `left` whose key stands in `right`, each with the first such row there."""
    places: dict[bytes, int] = {}
    for j, key in enumerate(right):
        places.setdefault(key, j)
    return [(i, places[key]) for i, key in enumerate(left) if key in places]
