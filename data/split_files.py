"""One split of the prepared rows as an Arrow file, and its part of the fingerprint."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa

from data.allot import Piece, chunks
from data.cache import write_arrow
from data.intake import SLICES
from data.labels.settle import Kind


def write_split(
    path: Path,
    split: str,
    piece: Piece,
    read: Mapping[str, datasets.Dataset],
    labels: Mapping[str, Sequence[Any]],
    kind: Kind,
    digest: "hashlib._Hash",
) -> None:
    """Write one split's Arrow file; every row also goes into the digest."""
    origin, places = piece
    types = {"single": pa.int64(), "multi": pa.list_(pa.float32()), "regression": pa.float64()}
    texts = [name for name in ("text", "text_pair") if name in read[origin].column_names]
    schema = pa.schema(
        [(name, pa.string()) for name in texts]
        + [("label", types[kind]), ("row", pa.int64()), ("address", pa.string())]
        + [("slices", SLICES)] * (split == "test" and "slices" in read[origin].column_names)
    )

    def batches() -> Iterator[pa.RecordBatch]:
        done = 0
        for chunk in chunks(read[origin], places):
            size = len(chunk["row"])
            chunk["label"] = [labels[origin][i] for i in places[done : done + size]]
            done += size
            hashed = [chunk[name] for name in (*texts, "label", "row")]
            for row in zip(*hashed, strict=True):
                digest.update(f"{split}\0{row!r}\n".encode())
            yield pa.RecordBatch.from_pydict({f.name: chunk[f.name] for f in schema}, schema=schema)

    write_arrow(path, schema, batches())
