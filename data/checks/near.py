"""Near duplicates: candidates by MinHash signatures, each verified exactly on the two texts.

The signatures are datasketch's (the extra `check`), imported here alone. Rows whose signatures
agree in a band of BAND values are candidates: with BANDS bands a pair that shares half of its
shingles is met with a probability of 0.995, one that shares 0.4 of them with 0.93. Bands are sorted
one at a time instead of hashed into datasketch's tables, so memory is the signatures': 480 bytes a
text.
"""

import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from data.checks.shingles import count_words, resemblance, shared_words, shingles

Texts = tuple[str, ...]  # of a row: one, or two of a pair
BANDS, BAND = 40, 3
NEAR = 0.4  # shingles in common over all: of long texts about 14 % of the words are others
# of texts with fewer shingles so many of the words too: one other word may turn their meaning
SHORT, NEAR_SHORT = 20, 0.83
CHUNK = 10_000  # pairs looked at together
SLACK = 0.2  # by which a signature may underrate a pair: four standard errors of 120 values


@dataclass(frozen=True)
class NearPair:
    """Two rows and how much of their texts is the same, 0 to 1; of pairs of texts the lesser."""

    left: int
    right: int
    resemblance: float


@dataclass(frozen=True)
class NearSet:
    """Rows that hang together, sorted, and the least resemblance of their pairs."""

    rows: list[int]
    resemblance: float


def sign_texts(rows: Iterable[Texts]) -> np.ndarray:
    """(N, BANDS * BAND) uint32 signatures: equal in a value with the probability of the resemblance
    (Broder 1997). Raises ImportError without datasketch."""
    from datasketch import MinHash

    def hashed() -> Iterable[list[bytes]]:
        for texts in rows:
            sets = [{f"{i}{shingle}" for shingle in shingles(text)} for i, text in enumerate(texts)]
            yield [shingle.encode() for shingle in sorted(set().union(*sets))]

    generated = MinHash.generator(hashed(), num_perm=BANDS * BAND, hashfunc=zlib.crc32)
    signatures = [np.asarray(one.hashvalues, dtype=np.uint32) for one in generated]
    return np.stack(signatures) if signatures else np.empty((0, BANDS * BAND), np.uint32)


def candidate_pairs(signatures: np.ndarray) -> np.ndarray:
    """(P, 2) int64, sorted: pairs of rows, the earlier first, that agree in a band and, by all
    their values, may be near.

    In a band each row is paired with the first and with the one before it of those that agree, so
    that 500 copies of a text are a thousand pairs and not a hundred thousand.
    """
    rows = len(signatures)
    keys = np.empty(0, dtype=np.int64)  # left * rows + right: 8 bytes a pair
    for start in range(0, signatures.shape[1], BAND):
        band = np.ascontiguousarray(signatures[:, start : start + BAND])
        order = np.lexsort(band.T[::-1])  # rows that agree stand together, in their own order
        same = (band[order[1:]] == band[order[:-1]]).all(axis=1)
        begins = np.concatenate([np.ones(min(rows, 1), dtype=bool), ~same])
        first = order[np.maximum.accumulate(np.where(begins, np.arange(rows), 0))]
        here, before = order[1:][same], order[:-1][same]
        met = np.concatenate([before, first[1:][same]]) * rows + np.tile(here, 2)
        keys = np.union1d(keys, met)
    pairs = np.stack(np.divmod(keys, max(rows, 1)), axis=1)
    parts = np.array_split(pairs, len(pairs) // CHUNK + 1)
    alike = [(signatures[part[:, 0]] == signatures[part[:, 1]]).mean(axis=1) for part in parts]
    return pairs[np.concatenate(alike) >= NEAR - SLACK]


def near_pairs(
    signatures: np.ndarray,
    read: Callable[[list[int]], Sequence[Texts]],
    forms: np.ndarray | None = None,
) -> list[NearPair]:
    """The pairs of rows that are near, verified on their texts, which `read(rows)` gives. `forms`
    (N,) are numbers of templates, -1 for none: two rows of one are no pair."""
    candidates = candidate_pairs(signatures)
    if forms is not None:
        left, right = forms[candidates].T
        candidates = candidates[(left != right) | (left < 0)]
    pairs = []
    for start in range(0, len(candidates), CHUNK):
        part = candidates[start : start + CHUNK]
        rows = np.unique(part).tolist()
        texts = dict(zip(rows, read(rows), strict=True))
        for one, other in part.tolist():
            amount = compare_texts(texts[one], texts[other])
            if amount is not None:
                pairs.append(NearPair(one, other, amount))
    return pairs


def compare_texts(left: Texts, right: Texts) -> float | None:
    """How much of two rows is the same, or None where that is too little to be near. In pairs of
    texts both have to be: one premise with two hypotheses is two rows."""
    least = 1.0
    for one, other in zip(left, right, strict=True):
        sets = shingles(one), shingles(other)
        amount = resemblance(*sets)
        if amount < NEAR:
            return None
        short = min(map(len, sets)) < SHORT
        if short and shared_words(count_words(one), count_words(other)) < NEAR_SHORT:
            return None
        least = min(least, amount)
    return least


def join_pairs(pairs: Sequence[NearPair]) -> list[NearSet]:
    """The rows that hang together through pairs, in the order of their first."""
    above: dict[int, int] = {}

    def top(row: int) -> int:
        while above.setdefault(row, row) != row:
            above[row] = above[above[row]]
            row = above[row]
        return row

    for pair in pairs:
        left, right = top(pair.left), top(pair.right)
        above[max(left, right)] = min(left, right)
    rows: dict[int, list[int]] = {}
    for row in sorted(above):
        rows.setdefault(top(row), []).append(row)
    least = dict.fromkeys(rows, 1.0)
    for pair in pairs:
        least[top(pair.left)] = min(least[top(pair.left)], pair.resemblance)
    return [NearSet(members, least[first]) for first, members in rows.items()]
