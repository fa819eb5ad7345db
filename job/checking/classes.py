"""Classes that a split lacks, or of which there are too few rows to learn or to judge by."""

import numpy as np

from data.prepare import Data
from job.checking.examined import Examined
from report.check import Check, Finding
from report.format import format_count, join_names
from report.verdict import few_rows

FEW = 10  # training rows of a class, below which it is hardly learned
WAYS_OUT = {
    "few_rows": "bring more rows, or a larger data.validation or data.test",
    "missing_label": "bring rows of the class, or leave it out with data.filter",
    "rare_class": 'more rows, classes joined in the source, or train.class_weights = "balanced"',
}


def examine_classes(examined: Examined) -> Check:
    """Rows of each class in each split, and splits that are too small."""
    data = examined.data
    findings = [_few_rows(name, rows) for name, rows in data.report.splits.items()]
    findings += [_missing(examined, split) for split in data.report.labels]
    findings += [_rare(examined, name) for name in data.report.labels["train"]]
    there = sorted(filter(None, findings), key=lambda finding: finding.level)
    headline = "numbers, which are in no classes"
    if counts := data.report.labels["train"]:
        shown = [f"{name} {format_count(rows)}" for name, rows in counts.items()]
        headline = f"{len(counts)} classes in train: {join_names(shown, 8)}"
    ways = dict.fromkeys(WAYS_OUT[finding.kind] for finding in there)
    return Check("classes", headline, there, "; ".join(ways))


def _few_rows(split: str, rows: int) -> Finding | None:
    if split == "train" or not (line := few_rows(split, rows)):
        return None
    return Finding("few_rows", "warning", line, (), f"data.{split}")


def _missing(examined: Examined, split: str) -> Finding | None:
    counts = examined.data.report.labels[split]
    missing = [name for name, rows in counts.items() if rows == 0]
    if not missing:
        return None
    what = "cannot be learned" if split == "train" else "is not measured"
    return Finding(
        "missing_label", "error" if split == "train" else "warning",
        f"{split} has no row of {join_names(missing, 8)}, which {what}", (),
        "data.filter", (),
        {"split": split, "labels": missing},
    )  # fmt: skip


def _rare(examined: Examined, name: str) -> Finding | None:
    count = examined.data.report.labels["train"][name]
    if not 0 < count < FEW:
        return None
    data = examined.data
    column = examined.labels if data.kind == "single" else examined.labels[:, _place(data, name)]
    value = _place(data, name) if data.kind == "single" else 1
    rows = np.flatnonzero((column == value) & (examined.split == "train"))
    addresses = examined.addresses(rows.tolist())
    return Finding(
        "rare_class", "warning",
        f"{name} has {count} training row{'' if count == 1 else 's'}: {', '.join(addresses[:4])}",
        addresses, 'train.class_weights = "balanced"', (), {"label": name, "count": count},
    )  # fmt: skip


def _place(data: Data, name: str) -> int:
    return data.label_names.index(name)
