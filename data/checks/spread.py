"""Rows that are far from each other: farthest-first selection over the words of their texts."""

import zlib
from collections import Counter
from collections.abc import Sequence

import numpy as np

from data.checks.shingles import WORD
from data.clean import normalise

TERMS = 4096  # that words are hashed into


def word_vectors(texts: Sequence[str]) -> np.ndarray:
    """(N, TERMS) float32 of length one: 1 + log counts of hashed words, rare ones weighing more."""
    vectors = np.zeros((len(texts), TERMS), dtype=np.float32)
    for row, text in enumerate(texts):
        counts = Counter(zlib.crc32(w.encode()) % TERMS for w in WORD.findall(normalise(text)))
        vectors[row, list(counts)] = 1 + np.log(list(counts.values())) if counts else 0
    held = np.maximum((vectors > 0).sum(axis=0), 1)
    vectors *= 1 + np.log(len(texts) / held)
    lengths: np.ndarray = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.maximum(lengths, 1e-12)


def choose_spread(vectors: np.ndarray, count: int) -> list[int]:
    """`count` rows of `vectors` (N, D), or all: the first one, then again and again the one whose
    nearest among those chosen is farthest (Gonzalez 1985). Of equals the earlier row."""
    chosen: list[int] = []
    nearest = np.full(len(vectors), -np.inf, dtype=np.float32)  # greatest cosine to one chosen
    while len(chosen) < min(count, len(vectors)):
        row = int(nearest.argmin()) if chosen else 0
        chosen.append(row)
        nearest = np.maximum(nearest, vectors @ vectors[row])
        nearest[chosen] = np.inf
    return chosen
