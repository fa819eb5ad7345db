"""Which rows make which split: what the source names, what is cut, sampled, and found twice."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import datasets
import numpy as np

from data.grouped import cut_groups
from data.reading.columnar import CHUNK
from data.refused import RefusedError
from data.sources import SPLITS
from data.splits import cut, find_overlap, hold_out_size, normalised_keys, sample

# The rows of a split: the source's split that they come from, and their places in it.
Piece = tuple[str, np.ndarray]


def allot(
    read: Mapping[str, int],
    classes: np.ndarray | None,
    wanted: Mapping[str, float],
    split_seed: int,
    subset: Mapping[str, int],
    subset_seed: int,
    groups: Sequence[str] | None = None,
) -> tuple[dict[str, Piece], Piece]:
    """The pieces of all splits: those in `read` (rows by split) as they are, the others of `wanted`
    (a share or a number of rows) cut from train, stratified by `classes` (rows,) of the training
    rows where there are any, and whole `groups` at a time where each training row has one; then
    `subset` samples. And the training rows that the sample leaves out, in the order of the
    source."""
    rows = read["train"]
    sizes = {}
    for split, share in wanted.items():
        try:
            size = hold_out_size(share, rows)
        except ValueError as error:
            raise ValueError(f"data.{split}: {error}") from None
        if split not in read and size:
            sizes[split] = size
    if groups is None:
        parts = cut(classes, rows, sizes, split_seed)
    else:
        parts = cut_groups(groups, classes, sizes, split_seed)
    pieces: dict[str, Piece] = {}
    for split in SPLITS:
        if split in parts:
            pieces[split] = ("train", parts[split])
        elif split in read:
            pieces[split] = (split, np.arange(read[split]))
    whole = pieces["train"][1]
    for split, size in subset.items():
        if split not in pieces:
            raise ValueError(f"data.subset.{split}: there is no such split, only {list(pieces)}")
        origin, places = pieces[split]
        try:
            pieces[split] = (origin, places[sample(len(places), size, subset_seed)])
        except ValueError as error:
            raise ValueError(f"data.subset.{split}: {error}") from None
    return pieces, ("train", np.setdiff1d(whole, pieces["train"][1]))


def describe_origin(
    pieces: Mapping[str, Piece], split_seed: int, subset: Collection[str], subset_seed: int
) -> dict[str, str]:
    """Where each split comes from, for people: the source, or a cut from train, and whether it is a
    sample, as those in `subset` are."""
    cut_off = [split for split, (origin, _) in pieces.items() if origin != split]
    texts = {}
    for split in pieces:
        if split in cut_off:
            texts[split] = f"cut from train (seed {split_seed})"
        elif split == "train" and cut_off:
            texts[split] = "what the cuts left"
        else:
            texts[split] = "as in the source"
        if split in subset:
            texts[split] += f", a sample (seed {subset_seed})"
    return texts


def drop_held_out(
    piece: Piece, pieces: Mapping[str, Piece], read: Mapping[str, datasets.Dataset]
) -> tuple[Piece, int]:
    """A piece without the rows whose text stands in validation or test, and how many these were."""
    held = {key for s in ("validation", "test") if s in pieces for key in _keys_of(pieces[s], read)}
    origin, places = piece
    keep = np.array([key not in held for key in _keys_of(piece, read)], dtype=bool)
    return (origin, places[keep]), int((~keep).sum())


def drop_seen(
    rest: Piece, pieces: Mapping[str, Piece], read: Mapping[str, datasets.Dataset]
) -> tuple[Piece, list[str]]:
    """The rows left out without those that a held-out row equals, and what to say of it."""
    rest, seen = drop_held_out(rest, pieces, read)
    lines = [f"left out of train by data.subset and kept apart: {len(rest[1]):,} rows"]
    return rest, lines + (
        [f"dropped: {seen:,} of these, whose text a held-out row has"] * bool(seen)
    )


def treat_overlap(
    action: str, pieces: dict[str, Piece], read: Mapping[str, datasets.Dataset]
) -> tuple[dict[str, int], dict[str, int]]:
    """Find texts that stand in two splits, among the rows that are used.

    Returns rows found by "train/test" and rows dropped by split. Dropping changes `pieces`, on the
    side that learns from the other's figure: train, or validation against test. Raises RefusedError
    where the action is "refuse" and there are any.
    """
    keys = {split: _keys_of(piece, read) for split, piece in pieces.items()}
    overlap: dict[str, int] = {}
    removed: dict[str, int] = {}
    examples: list[str] = []
    rows: list[str] = []
    for left, right in (("validation", "test"), ("train", "validation"), ("train", "test")):
        pairs = find_overlap(keys.get(left, []), keys.get(right, []))
        if not pairs:
            continue
        overlap[f"{left}/{right}"] = len(pairs)
        for i, j in pairs[:3]:
            here, there = _address(read, pieces[left], i), _address(read, pieces[right], j)
            examples.append(f"{left} {here} = {right} {there}")
            rows += [here, there]
        if action == "drop":
            gone = {i for i, _ in pairs}
            origin, places = pieces[left]
            pieces[left] = (origin, np.delete(places, sorted(gone)))
            keys[left] = [key for i, key in enumerate(keys[left]) if i not in gone]
            removed[left] = removed.get(left, 0) + len(gone)
            if not keys[left]:
                raise ValueError(f"data.on_overlap: every row of {left} stands in {right} too")
    if overlap and action == "refuse":
        counts = ", ".join(f"{n:,} rows of {sides}" for sides, n in overlap.items())
        message = (
            f"data.on_overlap: the same text stands on both sides of a split: {counts}:\n  "
            + "\n  ".join(examples)
            + '\na figure measured so is too good; set data.on_overlap = "drop" (removes the rows '
            'from the training side) or "warn" (keeps them), or correct the source'
        )
        raise RefusedError(message, "overlap", rows)
    return overlap, removed


def chunks(dataset: datasets.Dataset, places: np.ndarray) -> Iterator[dict[str, list[Any]]]:
    """The rows at `places`, in that order, CHUNK at a time."""
    table = dataset.data.table
    for start in range(0, len(places), CHUNK):
        wanted = places[start : start + CHUNK]
        first, last = int(wanted.min()), int(wanted.max())
        if last - first < 10 * CHUNK:  # a cut keeps the order: Arrow gathers rows that lie near
            yield table.slice(first, last - first + 1).take(wanted - first).to_pydict()
        else:
            yield dataset[wanted.tolist()]


def _keys_of(piece: Piece, read: Mapping[str, datasets.Dataset]) -> list[bytes]:
    """The keys of a piece's rows in their normalised form: of texts, or as a column `key` has them
    already."""
    origin, places = piece
    keys = []
    if "key" in read[origin].column_names:
        return [
            key
            for chunk in chunks(read[origin].select_columns("key"), places)
            for key in chunk["key"]
        ]
    for chunk in chunks(read[origin], places):
        pairs = chunk.get("text_pair", [None] * len(chunk["text"]))
        keys += normalised_keys(zip(chunk["text"], pairs, strict=True))
    return keys


def _address(read: Mapping[str, datasets.Dataset], piece: Piece, i: int) -> str:
    origin, places = piece
    return str(read[origin][int(places[i])]["address"])
