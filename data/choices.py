"""Settings that are one of a few words, checked for whoever calls this package by hand."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from data.sources import SPLITS

ROW_CHOICES = {"on_bad_row": ("error", "skip"), "on_overlap": ("refuse", "drop", "warn")}


def wrong_choices(args: Any, choices: Mapping[str, Sequence[str | None]]) -> list[str]:
    """A message for each attribute of `args` that is none of its choices."""
    return [
        f"data.{name}: got {getattr(args, name)!r}, expected one of "
        f"{', '.join(filter(None, allowed))}"
        for name, allowed in choices.items()
        if getattr(args, name) not in allowed
    ]


def unknown_splits(names: Iterable[str]) -> list[str]:
    """A message for each name of data.subset that is no split."""
    return [
        f"data.subset: unknown split {name!r}, expected {', '.join(SPLITS)}"
        for name in names
        if name not in SPLITS
    ]
