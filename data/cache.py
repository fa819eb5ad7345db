"""What data/ keeps in the cache (files/cache.py): memory-mapped Arrow files, and their keys."""

import hashlib
import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa

from files.cache import cache_root, is_whole, open_built, read_limit

__all__ = [
    "HOME", "cache_root", "code_digest", "is_whole", "make_key", "open_built", "read_arrow",
    "read_limit", "write_arrow",
]  # fmt: skip

HOME = Path(__file__).parent.parent  # whose code is hashed


@cache
def code_digest(*places: Path) -> str:
    """Hash of packages and of single files, this package by default: whoever edits a step in them
    is not served its old results."""
    digest = hashlib.sha256()
    for place in places or (HOME / "data",):
        for path in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            digest.update(path.read_bytes())
    return digest.hexdigest()


def make_key(**parts: Any) -> str:
    """sha256 over named JSON values and this package's code."""
    text = json.dumps({"code": code_digest(), **parts}, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def write_arrow(path: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
    """Stream record batches into an Arrow file; memory holds one batch."""
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)


def read_arrow(path: Path) -> datasets.Dataset:
    """The file as a memory-mapped Dataset."""
    return datasets.Dataset.from_file(str(path))
