"""Sizes that a stranger's folder may ask for: what this machine can hold, and no more.

A few bytes of JSON can ask for a million layers or for a table of a terabyte. So numbers are looked
at as numbers first; then counted.py counts the tensors of the model. Nothing here loads torch.
"""

import functools
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

MOST_LAYERS = 1024  # the deepest published text models have a tenth of it
MOST_LABELS = 250_000  # of each the files of a run hold up to 200 bytes beside its name
MOST_WORDS = 10_000_000  # a tokenizer keeps a place for every number up to its largest
MOST_TENSORS = 50_000  # mixtures of experts have as many
LAYERS = re.compile(r"(num_|n_)?(\w+_)?(layers?|blocks|depths?|groups)|block_(sizes|repeats)")
SIZES = re.compile(r".*(size|dim|embd|embed|d_model|d_ff|inner|width|vocab|positions|embeddings).*")
FLOAT = 4  # bytes of a weight


@functools.cache
def machine_memory() -> int:
    """Bytes of memory that this process may have: the machine's, or its container's."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        groups = Path("/proc/self/cgroup").read_text(encoding="utf-8")
    except OSError:  # no Linux
        return memory
    return min([memory, *group_limits(groups, Path("/sys/fs/cgroup"))])


def group_limits(groups: str, root: Path) -> Iterator[int]:
    """The limits in bytes on the groups of a /proc/self/cgroup, and on all groups around them, that
    can be read below `root`. A container may see its own group as the root, by another name."""
    for line in groups.splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":  # version 2
            place, name = root, "memory.max"
        elif "memory" in controllers.split(","):  # version 1
            place, name = root / "memory", "memory.limit_in_bytes"
        else:
            continue
        inside = PurePosixPath(path).relative_to("/")
        for group in (inside, *inside.parents):
            with suppress(OSError):
                limit = (place / group / name).read_text(encoding="utf-8").strip()
                if limit.isdigit():  # not "max"
                    yield int(limit)


def check_bytes(size: int, what: str) -> None:
    """Raises ValueError where `size` bytes, of `what`, are more than the machine has."""
    memory = machine_memory()
    if size > memory:
        raise ValueError(
            f"{what} needs {size / 1e9:,.1f} GB of memory; this machine has {memory / 1e9:,.1f} GB"
        )


def entries(value: Any) -> Iterator[tuple[str, Any]]:
    """Every key of an object, and of all objects and lists within it, with its value."""
    inside = [value]
    while inside:
        item = inside.pop()
        if isinstance(item, dict):
            yield from item.items()
            inside += item.values()
        elif isinstance(item, list):
            inside += item


def check_numbers(config: dict[str, Any], name: str) -> None:
    """Raises ValueError where a number in a config, read from the file `name`, is larger than any
    model's that fits this machine: as many layers, labels, or rows of one number each."""
    for key, value in entries(config):
        if key in ("id2label", "label2id") and isinstance(value, dict):
            check_count(name, f"entries of {key}", len(value), MOST_LABELS)
        most = machine_memory() // FLOAT if SIZES.fullmatch(key) else None
        most = MOST_LAYERS if LAYERS.fullmatch(key) else most
        most = MOST_LABELS if key in ("num_labels", "_num_labels") else most
        for number in value if isinstance(value, list) else [value]:
            if most is not None and isinstance(number, int | float):
                check_count(name, key, number, most)


def check_count(name: str, key: str, value: float, most: int) -> None:
    if value > most:
        raise ValueError(f"{name}: {key} is {value:,}; at most {most:,} fit this machine")


def check_head(hidden_size: int, num_labels: int, head_args: dict[str, Any]) -> None:
    """Raises ValueError where a head of ours is larger than this machine has memory for."""
    width = head_args.get("width")
    rows = width if isinstance(width, int) else hidden_size
    check_bytes(rows * (hidden_size + num_labels) * FLOAT, f"a head with head.args = {head_args}")
