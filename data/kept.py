"""What a frozen part of a model made of each row, computed once: memory-mapped, ragged.

A row holds one state a token, or one vector; no padding is stored. A folder of the cache has them,
under the rules of cache.py.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data.cache import open_built
from data.encode import Encoded
from data.loaders import Batch, make_labels
from files.read import read_json

BITS = {4: torch.int32, 2: torch.int16}  # numpy has no bfloat16: states are stored as their bits


@dataclass(frozen=True)
class Kept:
    """The kept states of an encoded split. `ends` (rows + 1,): where each row's states begin."""

    encoded: Encoded
    bits: np.ndarray  # (n, D) on disk
    dtype: torch.dtype
    ends: np.ndarray
    vectors: bool  # one a row, not one a token
    hit: bool

    @cached_property
    def labels(self) -> Tensor:
        return make_labels(list(self.encoded.dataset["labels"]))

    @cached_property
    def rows(self) -> Tensor:
        return torch.tensor(self.encoded.dataset["row"], dtype=torch.int64)

    @cached_property
    def lengths(self) -> np.ndarray:
        return np.array(self.encoded.dataset["length"])

    def states(self, numbers: list[int]) -> Tensor:
        """(n, D): those of these rows, one row after the other."""
        if self.vectors:
            bits = self.bits[numbers]
        else:
            bits = np.concatenate([self.bits[self.ends[i] : self.ends[i + 1]] for i in numbers])
        return torch.from_numpy(bits).view(self.dtype)

    def vector_batch(self, numbers: list[int]) -> Batch:
        """These rows as a batch of texts of one token, kept (B, 1, D) beside it. No token is
        looked at again."""
        return {
            "inputs": vector_inputs(self.states(numbers)),
            "tokens": int(self.lengths[numbers].sum()),
            "labels": self.labels[numbers],
            "rows": self.rows[numbers],
        }

    def join(self, batch: Batch, numbers: list[int]) -> Batch:
        """A batch of these rows with their states among the inputs, kept (B, T, D)."""
        kept = pad_states(self.states(numbers), batch["inputs"]["attention_mask"])
        return {**batch, "inputs": {**batch["inputs"], "kept": kept}}


def vector_inputs(vectors: Tensor) -> dict[str, Tensor]:
    """Inputs of texts of one token for vectors (B, D), which stand beside it as kept (B, 1, D)."""
    ones = torch.ones(len(vectors), 1, dtype=torch.int64, device=vectors.device)  # (B, 1)
    kept = vectors.unsqueeze(1)
    return {"input_ids": torch.zeros_like(ones), "attention_mask": ones, "kept": kept}


def pad_states(states: Tensor, mask: Tensor) -> Tensor:
    """(n, D) of the real tokens -> (B, T, D), zeros where mask (B, T) has none."""
    padded = states.new_zeros(*mask.shape, states.shape[1])
    padded[mask.bool()] = states
    return padded


def open_kept(
    folder: Path,
    encoded: Encoded,
    vectors: bool,
    dtype: torch.dtype,
    compute: Iterable[tuple[list[int], Tensor]],
) -> Kept:
    """The states of a split in `folder`. Where they are not there, whole, `compute` gives them: row
    numbers, and the states (n, D) of those rows in their order."""
    lengths = np.ones(encoded.rows) if vectors else np.array(encoded.dataset["length"])
    ends = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)

    def write(made: Path) -> None:
        width = 0
        with (made / "states.bin").open("wb") as file:  # not mapped: a full disk is an error here
            for numbers, states in compute:
                states = states.to("cpu", dtype).contiguous()
                width = states.shape[1]
                bits = states.view(BITS[dtype.itemsize]).numpy()
                start = 0
                for i in numbers:
                    count = int(ends[i + 1] - ends[i])
                    file.seek(int(ends[i]) * width * dtype.itemsize)
                    file.write(bits[start : start + count].tobytes())
                    start += count
        (made / "shape.json").write_text(json.dumps({"width": width}), encoding="utf-8")

    hit = open_built(folder, write)
    shape: Any = (int(ends[-1]), read_json(folder / "shape.json", ["width"])["width"])
    number = np.dtype(f"i{dtype.itemsize}")
    bits = np.memmap(folder / "states.bin", dtype=number, mode="r", shape=shape)
    return Kept(encoded, bits, dtype, ends, vectors, hit)
