"""python predict_ngrams.py "a text" "another one": reads ngrams.npz beside it, by numpy alone."""

import sys
from pathlib import Path

import numpy as np


def mix(words: np.ndarray) -> np.ndarray:
    """Spread the bits of 64-bit numbers: what differs anywhere differs in front."""
    return (words ^ (words >> np.uint64(32))) * np.uint64(0xD6E8FEB86659FD93)


def count_ngrams(texts: list[str], kinds: np.ndarray, bits: int, sides: int) -> tuple:
    """Rows, buckets and counts, each (n,), of all words and pairs of words; `sides` texts a row."""
    joined = "".join("\2" + text.lower().replace("\2", " ") for text in texts)  # \2: a text begins
    codes = np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), np.uint32)
    kind = kinds[np.minimum(codes, len(kinds) - 1)]  # 0: between words, 1: in one, 2: one by itself
    starts = np.flatnonzero((kind > 0) & ((kind == 2) | (np.append(0, kind[:-1]) != 1)))
    place = np.arange(len(codes)) - np.repeat(starts, np.diff(np.append(starts, len(codes))))
    powers = np.cumprod(np.full(place.max(initial=0) + 1, 0x9E3779B97F4A7C15, np.uint64))
    words = mix(np.add.reduceat((codes * (kind > 0)).astype(np.uint64) * powers[place], starts))
    text = np.cumsum(codes[starts] == 2) - 1
    words += (text % sides).astype(np.uint64)
    second = np.flatnonzero(text[1:] == text[:-1]) + 1  # words with one before them
    both = np.concatenate([words, words[second - 1] * np.uint64(3) + words[second]])
    buckets = (mix(both) >> np.uint64(64 - bits)).astype(np.int64)
    keys = np.concatenate([text, text[second]]) // sides << bits | buckets
    keys, counts = np.unique(keys, return_counts=True)
    return keys >> bits, keys & (1 << bits) - 1, counts


def predict(model: dict, texts: list[str]) -> np.ndarray:
    """Probabilities (N, C), numbers (N, 1) of a regression; pairs of texts one behind the other."""
    bits, sides = int(np.log2(len(model["idf"]))), int(model["sides"])
    rows, buckets, counts = count_ngrams(texts, model["kinds"], bits, sides)
    weights = (1 + np.log(counts)) * model["idf"][buckets]
    weights /= np.sqrt(np.bincount(rows, weights**2))[rows]
    columns = [np.bincount(rows, weights * column[buckets]) for column in model["weight"].T]
    logits = (np.stack(columns, axis=1) + model["bias"]) / model.get("temperature", 1)
    if model["kind"] == "regression":
        return logits * model["target_deviation"] + model["target_mean"]
    shares = 1 / (1 + np.exp(-logits)) if model["kind"] == "multi" else np.exp(logits)
    return shares if model["kind"] == "multi" else shares / shares.sum(1, keepdims=True)


if __name__ == "__main__":
    model = dict(np.load(Path(__file__).with_name("ngrams.npz")))
    for row in predict(model, sys.argv[1:]):
        print(dict(zip(model["labels"].tolist(), row.round(4).tolist(), strict=True)))
