"""Texts become bags, once: which buckets each one fills, and how often; cached, not padded.

A bag takes the place of a row of tokens: its buckets are called input_ids.
"""

import hashlib
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import datasets
import numpy as np
import pyarrow as pa

from data.cache import make_key, open_built, read_arrow, write_arrow
from data.encode import CHUNK, Encoded, tokenizer_digest


class Counts(Protocol):
    """What counts the terms of texts; models/ngrams/ has it."""

    def count(self, texts: list[str], pairs: list[str] | None) -> tuple[np.ndarray, ...]: ...


def encode_bags(
    dataset: datasets.Dataset, counter: Any, cache_dir: Path | None, fingerprint: str
) -> Encoded:
    """As encode() does, with columns input_ids, counts, labels, row, length (terms of the row).
    Texts are read whole, so none is truncated."""
    label = dataset.features.arrow_schema.field("label").type
    lists = [(name, pa.list_(pa.int32())) for name in ("input_ids", "counts")]
    rest = [("labels", label), ("row", pa.int64()), ("length", pa.int32())]
    schema, rows = pa.schema([*lists, *rest]), np.array(dataset["row"], dtype=np.int64)
    key = make_key(
        tokenizer=tokenizer_digest(counter), fingerprint=fingerprint,
        rows=hashlib.sha256(rows.tobytes()).hexdigest(),
    )  # fmt: skip
    batches = _batches(dataset, counter, schema)
    if cache_dir is None:
        hit, made = False, datasets.Dataset(pa.Table.from_batches(list(batches), schema=schema))
    else:
        folder = cache_dir / "encoded" / key[:32]
        hit = open_built(folder, lambda made: write_arrow(made / "rows.arrow", schema, batches))
        made = read_arrow(folder / "rows.arrow")
    terms = int(made.with_format("numpy")["length"][:].sum())
    return Encoded(made, key, hit, len(rows), 0, terms, 0)


def _batches(
    dataset: datasets.Dataset, counter: Counts, schema: pa.Schema
) -> Iterator[pa.RecordBatch]:
    for chunk in dataset.iter(batch_size=CHUNK):
        buckets, counts, ends = counter.count(chunk["text"], chunk.get("text_pair"))
        lists = [
            pa.ListArray.from_arrays(pa.array(ends, pa.int32()), pa.array(values, pa.int32()))
            for values in (buckets, counts)
        ]
        rest = [pa.array(chunk["label"], schema.field("labels").type)]
        rest += [pa.array(chunk["row"], pa.int64()), pa.array(np.diff(ends), pa.int32())]
        yield pa.RecordBatch.from_arrays([*lists, *rest], schema=schema)


def bags_of(counter: Counts, texts: list[str], pairs: list[str] | None) -> list[dict[str, Any]]:
    """One dict a text: input_ids and counts, arrays of one length."""
    buckets, counts, ends = counter.count(texts, pairs)
    bounds = itertools.pairwise(ends)
    return [{"input_ids": buckets[a:b], "counts": counts[a:b]} for a, b in bounds]


def flat_terms(encoded: Encoded) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Buckets (n,), counts (n,) and lengths (N,) of a split's rows, int64, in their order."""
    table = encoded.dataset.data
    lists = [
        np.concatenate([chunk.flatten().to_numpy() for chunk in table.column(name).chunks])
        for name in ("input_ids", "counts")
    ]
    buckets, counts = (values.astype(np.int64) for values in lists)
    return buckets, counts, table.column("length").to_numpy().astype(np.int64)


def filled_rows(encoded: Encoded, buckets: int) -> np.ndarray:
    """(V,) in how many rows of a split each bucket is met."""
    filled = np.zeros(buckets, dtype=np.int64)
    for chunk in encoded.dataset.data.column("input_ids").chunks:
        filled += np.bincount(chunk.flatten().to_numpy(), minlength=buckets)
    return filled
