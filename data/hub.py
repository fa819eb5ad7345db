"""Hugging Face sets: loaded whole, or read on as they come."""

import hashlib
import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import datasets

from data.reading.columnar import CHUNK
from data.reading.rows import BadRow, Row, decode_bytes, nearest, with_nested
from data.tables import Digest, Table
from files.errors import meets_limit


def open_hub(
    name: str,
    config: str | None,
    revision: str | None,
    digest: Digest,
    stream: bool = False,
    split: str | None = None,
) -> dict[str, list[Table]]:
    """The splits of a Hugging Face set as Tables, all or one; `name` may be a local folder. With
    `stream` nothing is loaded: a split is the shards that `datasets` reads on, and `digest`
    identifies files of a folder. Raises ValueError as load_hub does."""
    if not stream or _is_saved(name):
        loaded = load_hub(name, config, revision, split)
        return {theirs: [hub_table(rows, f"{name}/{theirs}")] for theirs, rows in loaded.items()}
    try:
        builder = datasets.load_dataset_builder(name, config, revision=revision)
        sets = datasets.load_dataset(name, config, revision=revision, streaming=True)
        for rows in sets.values():
            rows.info.features = rows.features or rows._resolve_features().features
    except Exception as error:
        raise _cannot_load(name, config, revision, error) from None
    _check_split(name, split, sets)
    files = builder.config.data_files or {}
    return {
        theirs: shard_tables(rows, f"{name}/{theirs}", files.get(theirs, []), digest)
        for theirs, rows in sets.items()
        if split in (None, theirs)
    }


def _is_saved(name: str) -> bool:
    """Whether `save_to_disk` wrote the folder: its Arrow files are mapped, not loaded."""
    return any(os.path.exists(os.path.join(name, f)) for f in ("dataset_dict.json", "state.json"))


def shard_tables(
    rows: datasets.IterableDataset, name: str, files: Sequence[str], digest: Digest
) -> list[Table]:
    """A streamed split as Tables: one where the set says how many rows it has, else one a shard,
    whose rows can be counted where its `files` lie in a folder. The rows of each are in the set's
    own order. Raises ValueError for a set of the hub that does not say how many rows it has."""
    local = bool(files) and all(map(os.path.isfile, files))
    told = [digest(Path(file)) if local else str(file) for file in files]  # of the hub: with commit
    more = "" if local else str(getattr(files, "origin_metadata", ""))
    identity = hashlib.sha256(repr([told, more]).encode()).hexdigest()
    features = rows.info.features
    info = (rows.info.splits or {}).get(name.rpartition("/")[2])
    count = info.num_examples if info is not None and info.num_examples else None
    if count is None and not local:
        raise ValueError(
            f"data.source: hub:{name} does not say how many rows it has, and a stream has to know: "
            'set data.revision = "refs/convert/parquet" where the hub has that, or download its '
            "files and name them as data.source, or their folder as hub:path/to/folder"
        )
    shards = 1 if count is not None else rows.num_shards
    tables = []
    for i in range(shards):
        one = rows if shards == 1 else rows.shard(shards, i)
        called = name if shards == 1 else f"{name}/{i}"

        def read(
            needed: Sequence[str], start: int = 0,
            one: datasets.IterableDataset = one, called: str = called,
        ) -> Iterator[Row | BadRow]:  # fmt: skip
            columns = _columns(needed, list(features)) or list(features)[:1]
            chunks = one.skip(start) if start else one
            return _rows(chunks.select_columns(columns), columns, needed, called, start)

        tables.append(
            Table(
                f"hub:{called}", f"{identity}/{i}", tuple(features), read, _class_names(features),
                count=count, rows_from=read,
            )
        )  # fmt: skip
    return tables


def load_hub(
    name: str, config: str | None, revision: str | None, split: str | None = None
) -> dict[str, datasets.Dataset]:
    """All splits of a Hugging Face set, or one; `name` may be a local folder.

    Raises ValueError in one line, with the ways out, where it cannot be had.
    """
    try:
        if os.path.isdir(name) and os.path.exists(os.path.join(name, "dataset_dict.json")):
            loaded = datasets.load_from_disk(name)  # what DatasetDict.save_to_disk wrote
        elif os.path.isdir(name) and os.path.exists(os.path.join(name, "state.json")):
            loaded = datasets.DatasetDict(train=datasets.load_from_disk(name))
        else:
            loaded = datasets.load_dataset(name, config, revision=revision)
    except Exception as error:
        raise _cannot_load(name, config, revision, error) from None
    _check_split(name, split, loaded)
    return dict(loaded) if split is None else {split: loaded[split]}


def _check_split(name: str, split: str | None, there: Collection[str]) -> None:
    if split is not None and split not in there:
        raise ValueError(
            f"data.source: hub:{name} has no split {split!r}{nearest(split, list(there))}; it has "
            f"{', '.join(there)} (data.splits maps our names to them)"
        )


def _cannot_load(
    name: str, config: str | None, revision: str | None, error: Exception
) -> Exception:
    """What to raise where a set cannot be had; the network's and the hub's errors have no common
    class."""
    if meets_limit(error):
        return error
    cause = " ".join(str(error).split())[:200]
    which = f"hub:{name} ({config or 'its only configuration'}, {revision or 'newest revision'})"
    return ValueError(
        f"data.source: {which} could not be loaded ({type(error).__name__}: {cause}); ways "
        "out: check the name, data.config and data.revision, read local files (CSV, JSONL, "
        "Parquet) or a package: source instead, set HF_ENDPOINT to a mirror, or download it "
        "on another machine and name the folder as hub:path/to/folder"
    )


def hub_table(dataset: datasets.Dataset, name: str) -> Table:
    """One split of a loaded Hugging Face set as a Table; the names of its ClassLabels go with
    it."""

    def read(needed: Sequence[str], start: int = 0) -> Iterator[Row | BadRow]:
        columns = _columns(needed, dataset.column_names)
        rest = dataset.select(range(start, len(dataset))) if start else dataset
        return _rows(rest.select_columns(columns).with_format(None), columns, needed, name, start)

    return Table(
        f"hub:{name}", dataset._fingerprint, tuple(dataset.column_names), read,
        _class_names(dataset.features), count=len(dataset), rows_from=read,
    )  # fmt: skip


def _columns(needed: Sequence[str], there: Collection[str]) -> list[str]:
    """The columns that hold what is needed; a dotted name reaches into one."""
    return list(dict.fromkeys(c if c in there else c.partition(".")[0] for c in needed))


def _rows(
    chosen: Any, columns: Sequence[str], needed: Sequence[str], name: str, start: int
) -> Iterator[Row | BadRow]:
    """The rows of a set with these columns alone, the first of them number `start`."""
    for chunk in chosen.iter(batch_size=CHUNK):
        values = [chunk[column] for column in columns]
        for i, row in enumerate(zip(*values, strict=True)):
            values_there = decode_bytes(dict(zip(columns, row, strict=True)))
            yield Row(f"{name}[{start + i}]", with_nested(values_there, needed))
        start += len(values[0])


def _class_names(features: datasets.Features) -> dict[str, tuple[str, ...]]:
    names = {}
    for column, feature in features.items():
        inner = getattr(feature, "feature", feature)  # of a list
        if isinstance(inner, datasets.ClassLabel):
            names[column] = tuple(inner.names)
    return names
