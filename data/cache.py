"""Folders of memory-mapped Arrow files, found again under a key and published in one rename."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa

from files.publish import publish, sweep, verify
from files.verify import DamagedError
from files.write import temporary_name

OLD = 3600  # seconds after which a half-built folder that nobody has locked is left over


def cache_root() -> Path:
    """`$OPENLOOP_CACHE`, or `~/.cache/openloop`."""
    named = os.environ.get("OPENLOOP_CACHE")
    path = str(Path(named).expanduser() if named else Path.home() / ".cache" / "openloop")
    # pyarrow wants characters, where Python in a locale of ASCII has unknown bytes
    return Path(path.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape"))


@cache
def code_digest() -> str:
    """Hash of this package: whoever edits a step here is not served its old results."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def make_key(**parts: Any) -> str:
    """sha256 over named JSON values and this package's code."""
    text = json.dumps({"code": code_digest(), **parts}, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def open_built(folder: Path, write: Callable[[Path], None]) -> bool:
    """Make sure that `folder` holds what `write` puts into a folder; True where it did already.

    What is there is used when every byte is as it was published, and built again when one is not.
    Nobody ever sees half a folder; where two build the same at once, the first one's stays. Raises
    ValueError where the cache cannot be written.
    """
    if is_whole(folder):
        return True
    try:
        sweep(folder.parent, OLD)
        folder.parent.mkdir(parents=True, exist_ok=True)
        if os.path.lexists(folder):
            clear(folder)
        with publish(folder) as made:
            write(made)
    except FileExistsError as error:
        if not is_whole(folder):
            raise unwritable(folder, error) from None
    except OSError as error:
        raise unwritable(folder, error) from None
    return False


def is_whole(folder: Path) -> bool:
    """Whether a folder is there with every byte as it was published."""
    try:
        verify(folder)
        return True
    except DamagedError:
        return False


def clear(folder: Path) -> None:
    """Take a damaged folder away, in one rename: another process may be about to do the same."""
    aside = temporary_name(folder)
    try:
        folder.rename(aside)
    except FileNotFoundError:
        return
    shutil.rmtree(aside, ignore_errors=True)


def unwritable(folder: Path, error: OSError) -> ValueError:
    """The message for a cache that takes nothing."""
    return ValueError(
        f"the cache {folder.parent} cannot be written ({error}); set OPENLOOP_CACHE to another "
        "folder"
    )


def write_arrow(path: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
    """Stream record batches into an Arrow file; memory holds one batch."""
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)


def read_arrow(path: Path) -> datasets.Dataset:
    """The file as a memory-mapped Dataset."""
    return datasets.Dataset.from_file(str(path))
