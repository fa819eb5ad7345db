"""A bag of n-grams: words and pairs of words, hashed into buckets, and one linear layer on them.

    text -- words, pairs of words -- buckets -- (1 + log count) * idf, of length 1 -- W -- logits
            predict_ngrams.py        2^18       a sparse row x (V,)                   x W + b

Nothing is pretrained and nothing is drawn: W begins at zero, and what is left is convex.
"""

import hashlib
import unicodedata
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from files.verify import sha256
from models.ngrams import predict_ngrams

SOURCE = "ngrams"  # in place of the name of a pretrained model
BAG = "ngrams.npz"  # the model, beside the script that reads it
BITS = 18  # 2^18 buckets
SCRIPT = Path(predict_ngrams.__file__)  # goes with every export


@cache
def word_table() -> np.ndarray:
    """(65536,) uint8, by character: 0 between words, 1 in one, 2 a word by itself, as ideographs,
    kana, emoji and all beyond the table are. A model keeps the table that it was trained with."""
    kinds = np.zeros(1 << 16, dtype=np.uint8)
    for code in range(1 << 16):
        letter = chr(code)
        category = unicodedata.category(letter)
        if category[0] in "LNM":  # letters, numbers, and the marks that belong to them
            kinds[code] = 2 if stands_alone(letter, category) else 1
        elif category == "So":
            kinds[code] = 2
    kinds[ord("'")] = 1  # don't
    kinds[2] = kinds[-1] = 2  # the beginning of a text; emoji and ideographs beyond the table
    return kinds


def stands_alone(letter: str, category: str) -> bool:
    """Whether a letter belongs to a script without blanks between words."""
    blocks = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR")
    return category == "Lo" and unicodedata.name(letter, "").startswith(blocks)


class NgramTokenizer:
    """Stands where a tokenizer does: texts become buckets and how often each one is met."""

    is_fast = False
    pad_token_id = 0
    model_max_length = 10**30  # of a text: it is read whole
    model_input_names = ("input_ids", "counts")

    def __init__(self, sides: int, kinds: np.ndarray | None = None, bits: int = BITS) -> None:
        """`sides`: texts of a row, 2 for pairs."""
        self.sides, self.bits = sides, bits
        self.kinds = word_table() if kinds is None else kinds
        code, table = sha256(SCRIPT), hashlib.sha256(self.kinds.tobytes()).hexdigest()
        self.init_kwargs = {"sides": sides, "bits": bits, "code": code, "table": table}

    def get_vocab(self) -> dict[str, int]:
        """No word has a number of its own."""
        return {}

    def count(self, texts: list[str], pairs: list[str] | None) -> tuple[np.ndarray, ...]:
        """Buckets (n,) and counts (n,) of all texts, one text's behind the other's, and ends
        (N + 1,), where those of each begin. A word is another one in the second text of a pair."""
        if pairs is not None:
            texts = [text for both in zip(texts, pairs, strict=True) for text in both]
        rows, buckets, counts = predict_ngrams.count_ngrams(
            texts, self.kinds, self.bits, self.sides
        )
        sizes = np.bincount(rows)  # each text has a beginning, so each row is met
        return buckets, counts, np.concatenate([[0], np.cumsum(sizes)])


class NgramBag(nn.Module):
    """Logits (B, C) from the buckets of texts. `idf` (V,) is 0 for a bucket that no training row
    fills: it then counts neither for the answer nor for the length of a row."""

    idf: Tensor

    def __init__(self, buckets: int, num_labels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(buckets, num_labels))
        self.bias = nn.Parameter(torch.zeros(num_labels))
        self.register_buffer("idf", torch.zeros(buckets))

    def weigh(self, filled: np.ndarray, rows: int) -> None:
        """Take idf from `filled` (V,), the number of training rows with each bucket; a bucket that
        has one already, of a run that is trained further, keeps it."""
        idf = np.where(filled > 0, np.log((1 + rows) / (1 + filled)) + 1, 0)
        new = torch.from_numpy(idf.astype(np.float32))
        self.idf.copy_(torch.where(self.idf > 0, self.idf, new))

    def forward(self, input_ids: Tensor, attention_mask: Tensor, counts: Tensor) -> Tensor:
        """All (B, T) -> logits (B, C)."""
        real = attention_mask.bool()
        return self.answer(input_ids[real], counts[real], attention_mask.sum(1))

    def answer(self, buckets: Tensor, counts: Tensor, lengths: Tensor) -> Tensor:
        """Logits (B, C) of rows of `lengths` (B,), the terms (n,) of one behind the other's."""
        weights = self.term_weights(buckets, counts, lengths)
        starts = lengths.cumsum(0) - lengths
        bags = F.embedding_bag(
            buckets, self.weight, starts, mode="sum", per_sample_weights=weights
        )  # (B, C)
        return bags + self.bias

    def term_weights(self, buckets: Tensor, counts: Tensor, lengths: Tensor) -> Tensor:
        """(n,): (1 + log count) * idf of each term, each row's of length 1."""
        weights = (1 + counts.float().log()) * self.idf[buckets]  # (n,)
        rows = torch.repeat_interleave(lengths)  # (n,) which row each one is of
        squares = torch.zeros(len(lengths), device=weights.device)
        norms = squares.index_add(0, rows, weights.square()).sqrt()  # (B,)
        return weights / norms.clamp(min=1e-12)[rows]
