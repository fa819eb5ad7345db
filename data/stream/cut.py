"""A source before it streams: what is held out of it, and what is read of it before step 1."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from data.reading.rows import BadRow, Row
from data.splits import hold_out_size
from data.stream.order import HELD, SAMPLED, draw_runs
from data.stream.parts import Part, count_tables, make_parts, rows_at
from data.summary import DataReport
from data.tables import Table

ROW = 350  # bytes that a row takes in memory beside its letters: measured
SAMPLE = 1000  # training rows read before step 1
RUNS = 20  # places where they are, and where rows are held out


@dataclass(frozen=True)
class StreamArgs:
    """How training rows stream."""

    buffer: int  # rows that are shuffled among each other
    seed: int


@dataclass(frozen=True)
class Cut:
    """The parts of the stream; and tables of all that is read before step 1, a sample of the
    training rows among it."""

    parts: tuple[Part, ...]
    tables: dict[str, list[Table]]
    identity: str
    held: dict[str, int]  # rows held out of the training rows, by split

    def describe(
        self, report: DataReport, rows: int, buffer: int, letters: Sequence[int]
    ) -> DataReport:
        """The report of the tables, with what it is of. `letters` are those of sampled rows."""
        sample = report.splits["train"]
        parts = f"{len(self.parts):,} files or shards" if self.parts[1:] else "one file or shard"
        origin = report.origin | {"train": "a sample of those that stream"}
        origin |= dict.fromkeys(self.held, "held out of the stream")
        notes = [
            f"train streams: {rows:,} rows of {parts}; labels, lengths, memory and time are told "
            f"by a sample of {sample:,}",
            f"memory holds two blocks of {min(buffer, rows):,} rows, about "
            f"{2 * min(buffer, rows) * (ROW + sum(letters) / len(letters)) / 2**20:,.0f} MiB",
            *(note for note in report.notes if "no training row has the label" not in note),
        ]
        overlap = {sides: n for sides, n in report.overlap.items() if "train" not in sides}
        removed = {split: n for split, n in report.overlap_dropped.items() if split != "train"}
        return replace(report, origin=origin, notes=notes, overlap=overlap, overlap_dropped=removed)


def cut_stream(
    tables: Mapping[str, list[Table]],
    filter_text: str | None,
    wanted: Mapping[str, float],
    seed: int,
    cache_dir: Path,
) -> Cut:
    """Hold rows out of the training rows for the splits of `wanted` that the source lacks, so many
    each, and draw the sample. Raises ValueError for a share of the rows, and where none is left."""
    train = tables["train"]
    counted = count_tables(train, filter_text, cache_dir)
    total = sum(one.rows for one in counted)
    sizes = {
        split: held_rows(split, size, total)
        for split, size in wanted.items()
        if size and split not in tables
    }
    if sum(sizes.values()) >= total:
        raise ValueError(
            f"data.source: {total:,} rows, and {sum(sizes.values()):,} of them are held out: none "
            "is left to train on"
        )
    held = draw_runs(total, sum(sizes.values()), RUNS, seed, HELD)
    parts = make_parts(train, counted, filter_text, held)
    rows = sum(part.rows for part in parts)
    places = draw_runs(rows, min(SAMPLE, rows), RUNS, seed, SAMPLED)
    sample = places + np.searchsorted(held - np.arange(len(held)), places, side="right")
    made = {"train": [picked(parts, sample, "sample")]}
    made |= {split: own for split, own in tables.items() if split != "train"}
    for split, numbers in share_out(held, sizes).items():
        made[split] = [picked(parts, numbers, split)]
    told = [(part.table.digest, part.counted.rows) for part in parts]
    identity = hashlib.sha256(f"{told} {held.tolist()}".encode()).hexdigest()
    return Cut(parts, made, identity, sizes)


def held_rows(split: str, size: float, total: int) -> int:
    """How many rows a split takes of a stream. Raises ValueError for a share, which of a large
    source is more than anybody reads before step 1."""
    if size < 1:
        raise ValueError(
            f"data.{split}: got {size}, a share, beside data.stream; the source has no rows for "
            f"{split}, and what is held out of a stream is read whole before step 1: give a number "
            f"of rows (data.{split} = 2000), files of its own (data.source.{split}), or 0"
        )
    return min(hold_out_size(size, total), total)


def share_out(held: np.ndarray, sizes: Mapping[str, int]) -> dict[str, np.ndarray]:
    """The rows held out (H,), in turns, for the splits that take so many of them each."""
    turns = np.concatenate(
        [(np.arange(size) + 0.5) / size for size in sizes.values()] or [np.empty(0)]
    )
    owner = np.repeat(np.arange(len(sizes)), list(sizes.values()))[np.argsort(turns, kind="stable")]
    return {split: held[owner == i] for i, split in enumerate(sizes)}


def picked(parts: Sequence[Part], numbers: np.ndarray, what: str) -> Table:
    """Some rows of a stream's source as a Table."""
    first = parts[0].table

    def rows(needed: Sequence[str]) -> Iterator[Row | BadRow]:
        return rows_at(parts, numbers, needed)

    told = f"{[part.table.digest for part in parts]} {numbers.tolist()}"
    return Table(
        f"{first.path} ({what})", hashlib.sha256(told.encode()).hexdigest(), first.columns, rows,
        first.class_names,
    )  # fmt: skip
