"""Batches in a counted order, padded to their longest row.

The order of an epoch is a function of (seed, epoch) alone, so a resumed run needs two counters to
meet the same batches again, and the number of workers changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch.utils.data import DataLoader

from data.long import split_windows, widest_window
from data.splits import seeded_order

if TYPE_CHECKING:  # any list of rows with the columns of one serves
    import datasets

    from data.kept import Kept

Batch = dict[str, Any]
Join = Callable[..., Batch]  # (rows, padding=…): collate, or another task's


@dataclass(frozen=True)
class Padding:
    """How rows of different length become one tensor: pad token, side, multiple of tokens.

    `max_length`, where set, is a bound that rounding up does not pass (a model's last position).
    """

    pad_id: int
    side: Literal["right", "left"] = "right"
    multiple: int = 8
    max_length: int | None = None


def epoch_order(size: int, seed: int, epoch: int) -> np.ndarray:
    """The order (size,) int64 in which an epoch takes the rows: a pure function."""
    return seeded_order(size, seed, epoch)


def collate(rows: Sequence[Mapping[str, Any]], padding: Padding) -> Batch:
    """One batch of encoded rows. Of texts in windows W rows, and inputs.windows (long.py).

    inputs: input_ids (B, T), attention_mask (B, T), token_type_ids or counts (B, T) where there are
    any, all int64; tokens: number of real tokens. Where the rows have them: labels (B,) int64 |
    (B, C) float32 | (B,) float64, rows (B,) int64. The mask comes from lengths, never from token
    ids.
    """
    texts, windows = rows, None
    if "windows" in texts[0]:
        rows, windows = split_windows(texts)
    lengths = np.array([len(row["input_ids"]) for row in rows])  # (B,)
    longest = int(lengths.max())
    width = -(-longest // padding.multiple) * padding.multiple
    if padding.max_length is not None:
        width = max(longest, min(width, padding.max_length))
    places = np.arange(width)  # (T,)
    if padding.side == "right":
        real = places[None, :] < lengths[:, None]  # (B, T)
    else:
        real = places[None, :] >= width - lengths[:, None]  # (B, T)
    inputs = {}
    for name, filler in (("input_ids", padding.pad_id), ("token_type_ids", 0), ("counts", 0)):
        if name in rows[0]:
            padded = np.full(real.shape, filler, dtype=np.int64)  # (B, T)
            padded[real] = np.concatenate([row[name] for row in rows])
            inputs[name] = torch.from_numpy(padded)
    inputs["attention_mask"] = torch.from_numpy(real.astype(np.int64))
    if windows is not None:
        inputs["windows"] = torch.from_numpy(windows)  # (B, K)
    batch: Batch = {"inputs": inputs, "tokens": int(lengths.sum())}
    if "labels" in texts[0]:
        batch["labels"] = make_labels([text["labels"] for text in texts])
    if "row" in texts[0]:
        batch["rows"] = torch.tensor([text["row"] for text in texts], dtype=torch.int64)
    return batch


def make_labels(labels: list[Any]) -> torch.Tensor:
    """(B,) int64 of classes, (B, C) float32 of several at once, (B,) float64 of numbers."""
    # numbers keep all their digits: years and prices lie close beside their own size
    dtypes = {int: torch.int64, float: torch.float64, list: torch.float32}
    return torch.tensor(labels, dtype=dtypes[type(labels[0])])


def train_batches(
    dataset: datasets.Dataset,
    order: np.ndarray,
    numbers: Iterable[int],
    micro_batch_size: int,
    padding: Padding,
    workers: int = 0,
    kept: Kept | None = None,
    join: Join = collate,
) -> Iterator[Batch]:
    """The micro-batches of these numbers of an epoch, of the rows in `order`; its last one may be
    smaller. With what was `kept` of them, where a frozen part of the model was cut off.
    `join` makes a batch of rows: a function of a module, which workers can be handed."""
    _check_size(micro_batch_size)
    size = micro_batch_size
    batches = [order[number * size : (number + 1) * size].tolist() for number in numbers]
    return _load(dataset, batches, padding, workers, kept, join)


def eval_batches(
    dataset: datasets.Dataset,
    micro_batch_size: int,
    padding: Padding,
    workers: int = 0,
    kept: Kept | None = None,
    join: Join = collate,
    share: slice = slice(None),
) -> Iterator[Batch]:
    """Every row exactly once, longest first: little padding, and the most memory at once. Of
    several processes each takes its `share` of the batches.

    `micro_batch_size` rows of the longest, and as many more of the shorter ones as take no more
    room.
    """
    lengths, widest = np.array(dataset["length"]).tolist(), None
    if kept is not None and kept.vectors:  # a vector takes a token's room
        micro_batch_size, lengths = micro_batch_size * max(lengths), [1] * len(lengths)
    elif "windows" in dataset.column_names:
        widest = widest_window(dataset["windows"])
    batches = fill_batches(lengths, micro_batch_size, padding.multiple, widest)
    return _load(dataset, batches[share], padding, workers, kept, join)


def fill_batches(
    lengths: Sequence[int], micro_batch_size: int, multiple: int, widest: int | None = None,
    least: int = 0,
) -> list[list[int]]:  # fmt: skip
    """Numbers of the rows of each batch, by their lengths in tokens, longest first.

    The first one has `micro_batch_size` rows. Of shorter ones as many go together as take no more
    room, padded to a multiple of `multiple` tokens; or no more than `least` tokens, if that is
    more. Of texts in windows, the `widest` of so many tokens, a batch has `micro_batch_size`
    windows, or those of one text.
    """
    _check_size(micro_batch_size)
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    widths = [max(1, -(-lengths[row] // multiple)) for row in order]
    room = micro_batch_size * (max(widths, default=0) if widest is None else -(-widest // multiple))
    room = max(room, least // multiple)
    batches, first = [], 0
    while first < len(order):
        count = max(1, room // widths[first])
        batches.append(order[first : first + count])
        first += count
    return batches


def _check_size(micro_batch_size: int) -> None:
    if micro_batch_size < 1:
        raise ValueError(f"micro_batch_size: got {micro_batch_size}, expected at least 1")


def _load(
    dataset: datasets.Dataset,
    batches: list[list[int]],
    padding: Padding,
    workers: int,
    kept: Kept | None,
    join: Join,
) -> Iterator[Batch]:
    if kept is not None and kept.vectors:
        return map(kept.vector_batch, batches)
    columns = [c for c in dataset.column_names if c not in ("length", "full_length")]
    loader: DataLoader[Batch] = DataLoader(
        dataset.select_columns(columns),
        batch_sampler=batches,
        collate_fn=partial(join, padding=padding),
        num_workers=workers,
        generator=torch.Generator(),  # else it draws from torch's global one, and moves it
    )
    return iter(loader) if kept is None else map(kept.join, loader, batches)
