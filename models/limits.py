"""Sizes that a stranger's folder may ask for: what this machine can hold, and no more.

A few bytes of JSON can ask for a million layers or for a table of a terabyte. So numbers are looked
at as numbers first, then the model is built without memory (torch's "meta" device) and counted.
"""

import copy
import os
import re
from pathlib import Path
from typing import Any

import torch
from torch import nn

from files.read import read_json
from models.foreign import check_model_folder, entries

MOST_LAYERS = 1024  # the deepest published text models have a tenth of it
MOST_LABELS = 1_000_000
LAYERS = re.compile(r"(num_|n_)?(\w+_)?(layers?|blocks|depth|groups)")
SIZES = re.compile(r".*(size|dim|embd|embed|d_model|d_ff|inner|width|vocab|positions|embeddings).*")
FLOAT = 4  # bytes of a weight


def machine_memory() -> int:
    """Bytes of memory that this process may have: the machine's, or its container's."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text(encoding="utf-8").strip()
    except OSError:
        return memory
    return min(memory, int(limit)) if limit.isdigit() else memory


def check_bytes(size: int, what: str) -> None:
    """Raises ValueError where `size` bytes, of `what`, are more than the machine has."""
    memory = machine_memory()
    if size > memory:
        raise ValueError(
            f"{what} needs {size / 1e9:,.1f} GB of memory; this machine has {memory / 1e9:,.1f} GB"
        )


def check_before_reading(folder: str | Path) -> None:
    """Raises ValueError unless what transformers reads in a folder, for its tokenizer too, is data
    of that folder alone and of a size that this machine holds."""
    check_model_folder(folder)
    path = Path(folder) / "config.json"
    if path.is_file():
        check_numbers(read_json(path), str(path))


def check_numbers(config: dict[str, Any], name: str) -> None:
    """Raises ValueError where a number in a config, read from the file `name`, is larger than any
    model's that fits this machine: as many layers, labels, or rows of one number each."""
    for key, value in entries(config):
        if key in ("id2label", "label2id") and isinstance(value, dict):
            _check_count(name, f"entries of {key}", len(value), MOST_LABELS)
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        if key in ("num_labels", "_num_labels"):
            _check_count(name, key, value, MOST_LABELS)
        elif LAYERS.fullmatch(key):
            _check_count(name, key, value, MOST_LAYERS)
        elif SIZES.fullmatch(key):
            _check_count(name, key, value, machine_memory() // FLOAT)


def _check_count(name: str, key: str, value: float, most: int) -> None:
    if value > most:
        raise ValueError(f"{name}: {key} is {value:,}; at most {most:,} fit this machine")


def check_parameters(cls: type[nn.Module], config: Any, folder: str) -> None:
    """Raises ValueError where the model of a config has more weights than this machine has memory
    for, or cannot be built; none is allocated, and torch's generator is left where it was."""
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            model = cls(copy.deepcopy(config))
    except Exception as error:  # a model's code may stumble over anything that a config can hold
        line = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise ValueError(f"no model can be built from config.json in {folder}: {line}") from error
    count = sum(tensor.numel() for tensor in [*model.parameters(), *model.buffers()])
    check_bytes(count * FLOAT, f"the model of config.json in {folder}, {count:,} weights in fp32,")


def check_head(hidden_size: int, num_labels: int, head_args: dict[str, Any]) -> None:
    """Raises ValueError where a head of ours is larger than this machine has memory for."""
    width = head_args.get("width")
    rows = width if isinstance(width, int) else hidden_size
    check_bytes(rows * (hidden_size + num_labels) * FLOAT, f"a head with head.args = {head_args}")
