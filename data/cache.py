"""Folders of memory-mapped Arrow files, found again under a key and published in one rename."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa

MANIFEST = "files.json"


def cache_root() -> Path:
    """`$OPENLOOP_CACHE`, or `~/.cache/openloop`."""
    named = os.environ.get("OPENLOOP_CACHE")
    path = str(Path(named).expanduser() if named else Path.home() / ".cache" / "openloop")
    # pyarrow wants characters, where Python in a locale of ASCII has unknown bytes
    return Path(path.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape"))


@cache
def code_digest() -> str:
    """Hash of this room's own source: whoever edits a step here is not served its old results."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def make_key(**parts: Any) -> str:
    """sha256 over named JSON values and this room's code."""
    text = json.dumps({"code": code_digest(), **parts}, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def is_complete(folder: Path) -> bool:
    """Whether every file that was published is there with its size."""
    try:
        sizes = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError):
        return False


def publish(folder: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary folder beside `folder`, then rename it there.

    Nobody ever sees half a folder. Where another process published the same key first, its folder
    stays; a damaged one is replaced. Raises ValueError where the cache cannot be written.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=f"{folder.name[:16]}.tmp-", dir=folder.parent))
    except OSError as error:
        raise ValueError(
            f"the cache {folder.parent} cannot be written ({error}); set OPENLOOP_CACHE to another "
            "folder"
        ) from None
    try:
        write(made)
        sizes = {path.name: path.stat().st_size for path in sorted(made.iterdir())}
        (made / MANIFEST).write_text(json.dumps(sizes), encoding="utf-8")
        if folder.exists() and not is_complete(folder):
            shutil.rmtree(folder, ignore_errors=True)
        try:
            made.rename(folder)
        except OSError:
            if not is_complete(folder):
                raise
    finally:
        shutil.rmtree(made, ignore_errors=True)


def write_arrow(path: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
    """Stream record batches into an Arrow file; memory holds one batch."""
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)


def read_arrow(path: Path) -> datasets.Dataset:
    """The file as a memory-mapped Dataset."""
    return datasets.Dataset.from_file(str(path))
