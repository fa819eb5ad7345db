"""From the label column to class indices, multi-hot lists or numbers.

While rows are read, each label is brought to one plain form (a name, a tuple of names, a number);
when all are known, the kind is settled and the names get their order.
"""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import datasets

from data.tables import nearest

Kind = Literal["single", "multi", "regression"]
Label = str | float | tuple[str, ...]  # one class | regression | the classes that hold

NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
WHOLE = re.compile(r"[+-]?[0-9]+")
ON = {"1", "true", "yes"}
OFF = {"0", "false", "no"}
MOST_NAMES = 100  # more distinct labels than this are more likely a wrong column


class RowError(ValueError):
    """A row that cannot be used: `reason` is what it is counted under."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def _name(value: Any) -> str:
    """The plain form of one label: 1, 1.0 and " 1" are all "1"; true is "true"."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


@dataclass
class LabelReader:
    """Brings one row's label to its plain form; `class_names` are those of a hub set's column."""

    columns: tuple[str, ...]
    names: tuple[str, ...] | None
    kind: str
    class_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.columns) > 1 and self.kind not in ("auto", "multi"):
            raise ValueError(
                f"data.label: {len(self.columns)} columns make a multi-label set, and data.kind is "
                f"{self.kind!r}; expected 'multi' or 'auto'"
            )
        if len(self.columns) > 1 and self.names and len(self.names) != len(self.columns):
            raise ValueError(
                f"data.labels: {len(self.names)} names for {len(self.columns)} label columns"
            )
        if self.kind == "regression" and self.names:
            raise ValueError("data.labels: a regression has no label names")
        # Names given for numbered classes: number i is called names[i].
        self.numbered = bool(self.names) and not any(WHOLE.fullmatch(n) for n in self.names or ())

    def read(self, values: Mapping[str, Any]) -> Label:
        """The plain label. Raises RowError where it is missing, malformed or outside the set."""
        if len(self.columns) > 1:
            names = self.names or self.columns
            held = [self._is_on(column, values[column]) for column in self.columns]
            return tuple(name for name, on in zip(names, held, strict=True) if on)
        column = self.columns[0]
        value = values[column]
        if value is None or (isinstance(value, str) and not value.strip()):
            raise RowError("no_label", f"{column}: no label")
        if self.kind == "regression":
            return self._number(column, value)
        if isinstance(value, list | tuple):
            if self.kind == "single":
                raise RowError("bad_label", f"{column}: a list, and data.kind is 'single'")
            return tuple(dict.fromkeys(self._class(column, item) for item in value))
        if self.kind == "multi":
            raise RowError(
                "bad_label",
                f"{column}: {value!r} is one label, and data.kind = 'multi' needs a list of labels "
                "(JSONL, Parquet), or several label columns of 0 and 1",
            )
        return self._class(column, value)

    def _class(self, column: str, value: Any) -> str:
        if value is None or isinstance(value, dict | list) or value != value:
            raise RowError("bad_label", f"{column}: {value!r} is no label")
        known = self.class_names.get(column)
        if known and isinstance(value, int):
            if not 0 <= value < len(known):  # hub sets mark rows without a label by -1
                raise RowError("no_label", f"{column}: no label ({value})")
            # Names given that are other than the set's own rename its numbers.
            if self.names is None or set(self.names) == set(known):
                value = known[value]
        name = _name(value)
        if self.names is None or name in self.names:
            return name
        if self.numbered and WHOLE.fullmatch(name) and 0 <= int(name) < len(self.names):
            return self.names[int(name)]
        allowed = ", ".join(self.names[:10]) + (", …" if len(self.names) > 10 else "")
        near = nearest(name, self.names)
        raise RowError("label_outside", f"{column}: {name[:60]!r} is none of {allowed}{near}")

    @staticmethod
    def _is_on(column: str, value: Any) -> bool:
        name = "" if value is None else _name(value).lower()
        number = name.removesuffix(".0")
        if number in ON or number in OFF:
            return number in ON
        raise RowError("bad_label", f"{column}: {value!r}, expected 0 or 1")

    @staticmethod
    def _number(column: str, value: Any) -> float:
        text = "" if isinstance(value, bool) else str(value).strip()
        if NUMBER.fullmatch(text) and math.isfinite(float(text)):
            return float(text)
        raise RowError("bad_label", f"{column}: {value!r} is no finite number, for a regression")


def settle_kind(labels: Sequence[Label], kind: str, names: tuple[str, ...] | None, at: str) -> Kind:
    """The kind that the labels have: lists are multi, numbers that are not all whole are a
    regression, anything else is single. `at` names the label column in errors."""
    lists = sum(isinstance(label, tuple) for label in labels)
    if lists not in (0, len(labels)):
        raise ValueError(f"{at}: {lists} of {len(labels)} rows hold a list of labels, others one")
    if kind == "regression":
        return "regression"
    if lists:
        return "multi"
    if kind == "single" or names:
        return "single"
    counts = Counter(str(label) for label in labels)
    if all(NUMBER.fullmatch(name) for name in counts) and any(
        not float(name).is_integer() for name in counts
    ):
        return "regression"
    if len(counts) > MOST_NAMES or (len(counts) == len(labels) and len(labels) >= 10):
        examples = ", ".join(repr(name[:30]) for name in list(counts)[:3])
        raise ValueError(
            f"{at}: {len(counts)} different labels in {len(labels)} rows ({examples}, …); is this "
            "the label column? For numbers to be predicted set data.kind = 'regression', for "
            "classes that are meant data.kind = 'single'"
        )
    return "single"


def settle_names(
    labels: Sequence[Label], kind: Kind, given: tuple[str, ...] | None, at: str
) -> tuple[str, ...]:
    """Label names in order: as given, else those of the data sorted (numbers by their value)."""
    if kind == "regression":
        return ()
    if given:
        return given
    found = {n for label in labels for n in (label if isinstance(label, tuple) else (str(label),))}
    if kind == "single" and len(found) < 2:
        raise ValueError(
            f"{at}: every row has the label {next(iter(found))!r}; expected at least two labels "
            "(does data.filter leave only one?)"
        )
    if not found:
        raise ValueError(f"{at}: no row holds any label")
    whole = all(WHOLE.fullmatch(name) for name in found)
    return tuple(sorted(found, key=lambda name: (int(name) if whole else 0, name)))


def convert_label(label: Label, kind: Kind, index: Mapping[str, int]) -> int | float | list[float]:
    """What stands in the data set: a class index, a number, or one 0/1 a class."""
    if kind == "regression":
        return float(label)  # type: ignore[arg-type]
    if kind == "multi":
        return [float(name in label) for name in index]  # type: ignore[operator]
    return index[str(label)]


def label_counts(
    dataset: datasets.Dataset, kind: Kind, label_names: tuple[str, ...]
) -> dict[str, int]:
    """Rows of each label (multi: rows that hold it; regression: nothing to count)."""
    if kind == "regression":
        return {}
    counts = [0] * len(label_names)
    for chunk in dataset.select_columns(["label"]).with_format(None).iter(batch_size=10_000):
        for label in chunk["label"]:
            for i in [label] if kind == "single" else [i for i, on in enumerate(label) if on]:
                counts[i] += 1
    return dict(zip(label_names, counts, strict=True))
