"""Near duplicates: candidates by MinHash signatures, each verified exactly on the two texts.

The signatures are datasketch's (the extra `check`), imported here alone. Rows whose signatures
agree in a band of BAND values are candidates: with BANDS bands a pair that shares half of its
shingles is met with a probability of 0.995, one that shares 0.4 of them with 0.93. Bands are sorted
one at a time instead of hashed into datasketch's tables, so memory is the signatures': 480 bytes a
text.
"""

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from data.checks.shingles import count_words, resemblance, shared_words, shingles

Texts = tuple[str, ...]  # of a row: one, or two of a pair
BANDS, BAND = 40, 3
NEAR = 0.4  # shingles in common over all: of long texts about 14 % of the words are others
# of texts with fewer shingles so many of the words too: one other word may turn their meaning
SHORT, NEAR_SHORT = 20, 0.83
SLACK = 0.2  # by which a signature may underrate a pair: four standard errors of 120 values


@dataclass(frozen=True)
class NearPair:
    """Two rows and how much of their texts is the same, 0 to 1; of pairs of texts the lesser."""

    left: int
    right: int
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


def candidate_pairs(signatures: np.ndarray) -> list[tuple[int, int]]:
    """Pairs of rows that agree in a band and, by all their values, may be near.

    In a band each row is paired with the first and with the one before it of those that agree, so
    that 500 copies of a text are a thousand pairs and not a hundred thousand.
    """
    pairs: set[tuple[int, int]] = set()
    for start in range(0, signatures.shape[1], BAND):
        band = np.ascontiguousarray(signatures[:, start : start + BAND])
        order = np.lexsort(band.T[::-1])  # rows that agree stand together, in their own order
        same = (band[order[1:]] == band[order[:-1]]).all(axis=1)
        first = -1
        for i in np.flatnonzero(same):
            if i == 0 or not same[i - 1]:
                first = int(order[i])
            here, before = int(order[i + 1]), int(order[i])
            pairs |= {tuple(sorted((here, before))), tuple(sorted((here, first)))}  # type: ignore[arg-type]
    found = np.array(sorted(pairs), dtype=np.int64).reshape(-1, 2)
    likely = np.concatenate(
        [
            (signatures[part[:, 0]] == signatures[part[:, 1]]).mean(axis=1) >= NEAR - SLACK
            for part in np.array_split(found, len(found) // 100_000 + 1)
        ]
    )
    return [(int(left), int(right)) for left, right in found[likely]]


def near_pairs(signatures: np.ndarray, read: Any) -> list[NearPair]:
    """The pairs of rows that are near, verified on their texts, which `read(row)` gives."""
    pairs = []
    for left, right in candidate_pairs(signatures):
        amount = compare_texts(read(left), read(right))
        if amount is not None:
            pairs.append(NearPair(left, right, amount))
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


def join_pairs(pairs: Sequence[NearPair]) -> list[list[int]]:
    """The rows that hang together through pairs, each set sorted, in the order of their first."""
    above: dict[int, int] = {}

    def top(row: int) -> int:
        while above.setdefault(row, row) != row:
            above[row] = above[above[row]]
            row = above[row]
        return row

    for pair in pairs:
        left, right = top(pair.left), top(pair.right)
        above[max(left, right)] = min(left, right)
    sets: dict[int, list[int]] = {}
    for row in sorted(above):
        sets.setdefault(top(row), []).append(row)
    return list(sets.values())
