"""What is measured on a GPU: shapes of models, and rows as long as IMDb's reviews.

No weights and no reviews are needed: a step takes as long with random ones.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

LENGTHS = Path(__file__).with_name("imdb_lengths.json")  # measure_lengths.py made it
PAD, CLS, SEP = 0, 1, 2
FIRST = 5  # the first token id that stands for text
SIGNAL, WORDS = 0.1, 20  # this share of the tokens tells the label, by one of so many words


@dataclass(frozen=True)
class Task:
    """A BERT classifier with its own head, on two classes; `work` is what a contestant does."""

    says: str
    work: Literal["train", "evaluate"]
    layers: int
    hidden: int
    heads: int
    inner: int
    lora: bool
    vocabulary: int = 30522
    max_length: int = 512
    batch: int = 32
    rows: int = 4000
    dropout: float = 0.1  # as published


def minilm(says: str, lora: bool) -> Task:
    """The shape of all-MiniLM-L6."""
    return Task(says, "train", layers=6, hidden=384, heads=12, inner=1536, lora=lora)


def bert_base(says: str, work: Literal["train", "evaluate"], lora: bool) -> Task:
    """The shape of bert-base-uncased."""
    return Task(says, work, layers=12, hidden=768, heads=12, inner=3072, lora=lora)


TASKS = {
    "minilm_lora": minilm("MiniLM-L6, LoRA r=8 on query and value, 512 tokens", lora=True),
    "bert_full": bert_base("BERT-base, all weights, 512 tokens", "train", lora=False),
    "bert_lora": bert_base("BERT-base, LoRA r=8 on query and value, 512 tokens", "train", True),
    "bert_eval": bert_base("BERT-base, evaluation, 512 tokens", "evaluate", lora=False),
}
# for the steps that ask for bits or counts rather than for speed
SMALL = Task(
    "a small BERT", "train", layers=2, hidden=128, heads=4, inner=512, lora=False,
    vocabulary=1000, max_length=64, batch=16, rows=800,
)  # fmt: skip


def tiny(task: Task) -> Task:
    """The same task in a size that a CPU takes in passing."""
    return replace(
        task, layers=2, hidden=32, heads=2, inner=64, vocabulary=100, max_length=128, batch=4,
        rows=160,
    )  # fmt: skip


def sample_lengths(rows: int, max_length: int, seed: int) -> np.ndarray:
    """Lengths in tokens (rows,) as IMDb's reviews have them, special tokens counted, cut at
    `max_length`: the measured quantiles, read at random places."""
    quantiles = json.loads(LENGTHS.read_text(encoding="utf-8"))["quantiles"]
    places = np.random.default_rng(seed).random(rows) * (len(quantiles) - 1)
    lengths = np.interp(places, np.arange(len(quantiles)), quantiles).round().astype(np.int64)
    return np.minimum(lengths, max_length)


class Rows:
    """Encoded rows in memory, with what the loaders and the stock Trainer ask of a data set."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self.rows = rows
        self.column_names = list(rows[0])

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: int | str) -> Any:
        return [row[key] for row in self.rows] if isinstance(key, str) else self.rows[key]

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        return [self.rows[index] for index in indices]

    def select_columns(self, names: Sequence[str]) -> "Rows":
        """The same rows with these columns alone."""
        return Rows([{name: row[name] for name in names} for row in self.rows])

    def longest_first(self) -> "Rows":
        """The same rows, sorted by length."""
        return Rows(sorted(self.rows, key=lambda row: -row["length"]))


def make_rows(task: Task, seed: int = 0) -> Rows:
    """Rows of two classes that can be told apart: some of the words belong to one class alone."""
    random = np.random.default_rng(seed)
    rows = []
    for index, length in enumerate(sample_lengths(task.rows, task.max_length, seed).tolist()):
        label = index % 2
        ids = random.integers(FIRST, task.vocabulary, length)
        signals = random.random(length) < SIGNAL
        ids[signals] = FIRST + WORDS * label + random.integers(0, WORDS, int(signals.sum()))
        ids[0], ids[-1] = CLS, SEP
        row = {"input_ids": ids.tolist(), "token_type_ids": [0] * length, "labels": label}
        rows.append({**row, "row": index, "length": length})
    return Rows(rows)
