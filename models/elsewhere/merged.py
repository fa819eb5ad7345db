"""A model with its method merged into its weights, as a folder that transformers opens by itself:
a classifier with its own head, or a language model."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from models.export import export_merged
from models.methods.method import can_merge, merge, unmerge


def why_not_merged(model: nn.Module) -> str | None:
    """Why what a method added cannot go into the weights; None where it can, or there is none."""
    return None if can_merge(model) else "what its method added cannot go into the weights"


@contextmanager
def merged(model: nn.Module) -> Iterator[float]:
    """While the block runs the method is in the weights; the drift, as merge() has it."""
    drift = merge(model)
    try:
        yield drift
    finally:
        unmerge(model)


LOADING = ("name_or_path", "is_local", "local_files_only")  # how a tokenizer came to us


def tokenizer_of(tokenizer: Any, max_length: int | None, side: str = "right") -> Any:
    """A copy of a run's tokenizer that says nothing of how it was loaded, and with a `max_length`
    cuts, where it is told to cut, as the run did."""
    copied = copy.deepcopy(tokenizer)
    # what is saved are the words it was made with, whatever was set since
    for name in LOADING:
        copied.init_kwargs.pop(name, None)
    if max_length is not None:
        copied.model_max_length, copied.truncation_side = max_length, side
        copied.init_kwargs |= {"model_max_length": max_length, "truncation_side": side}
    return copied


def write_native(
    model: nn.Module, tokenizer: Any, folder: Path, max_length: int | None = None,
    side: str = "right",
) -> float:  # fmt: skip
    """Write a native classifier, or without a `max_length` a language model, merged; the drift.
    Label names and the kind of problem are in its config since it was built. Raises ValueError
    where it cannot be merged."""
    return export_merged(model, tokenizer_of(tokenizer, max_length, side), folder)
