"""Streaming counters: memory O(classes), integers until the end, every figure with its n.

Accuracy and everything per class come from one confusion matrix of int64 counts, so they are exact
and do not depend on how the rows were cut into batches.
"""

import math
from typing import Any, Protocol

import torch
from torch import Tensor


class Counter(Protocol):
    """What evaluation needs of a counter."""

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Count one batch."""

    def results(self) -> dict[str, Any]:
        """The figures: "accuracy" (not for regression), "n" and more."""


def wilson_interval(hits: int, n: int) -> tuple[float, float]:
    """95 % interval of a share (Wilson 1927): unlike p ± 1.96 s it stays right near 0 and 1."""
    if n == 0:
        return 0.0, 1.0
    z, p = 1.959963984540054, hits / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def share(part: int, whole: int) -> float:
    """part / whole, and 0 where there is nothing to divide by (as scikit-learn's zero_division)."""
    return part / whole if whole else 0.0


def f1_row(true: int, predicted: int, hits: int) -> dict[str, float | int]:
    """Precision, recall and F1 of one class from its counts."""
    precision, recall = share(hits, predicted), share(hits, true)
    f1 = 2 * precision * recall / (precision + recall) if hits else 0.0
    return {"precision": precision, "recall": recall, "f1": f1, "n": true}


class SingleCounter:
    """Counts for one class a row. logits (B, C), labels (B,) int64."""

    def __init__(self, num_labels: int, device: torch.device):
        self.confusion = torch.zeros(num_labels * num_labels, dtype=torch.int64, device=device)
        self.num_labels = num_labels

    def update(self, logits: Tensor, labels: Tensor) -> None:
        cell = labels * self.num_labels + logits.argmax(dim=-1)  # (B,) row of the truth
        self.confusion.scatter_add_(0, cell, torch.ones_like(cell))  # no host sync on CUDA

    def results(self) -> dict[str, Any]:
        confusion = self.confusion.view(self.num_labels, self.num_labels).tolist()
        n = sum(map(sum, confusion))
        hits = sum(confusion[c][c] for c in range(self.num_labels))
        classes = [
            f1_row(sum(confusion[c]), sum(row[c] for row in confusion), confusion[c][c])
            for c in range(self.num_labels)
        ]
        return {
            "accuracy": share(hits, n),
            "interval": wilson_interval(hits, n),
            "n": n,
            "macro_f1": sum(row["f1"] for row in classes) / self.num_labels,
            "classes": classes,
            "confusion": confusion,
        }


class MultiCounter:
    """Counts for any number of classes a row. logits (B, C), labels (B, C) of 0 and 1.

    Accuracy is the share of rows with every class right, as in scikit-learn.
    """

    def __init__(self, num_labels: int, device: torch.device):
        self.counts = torch.zeros(3, num_labels, dtype=torch.int64, device=device)
        self.rows = torch.zeros(2, dtype=torch.int64, device=device)  # all right, all

    def update(self, logits: Tensor, labels: Tensor) -> None:
        said, true = logits > 0, labels > 0.5  # (B, C)
        self.counts += torch.stack([true.sum(0), said.sum(0), (true & said).sum(0)])
        self.rows[0] += (said == true).all(dim=-1).sum()
        self.rows[1] += len(labels)

    def results(self) -> dict[str, Any]:
        hits, n = self.rows.tolist()
        classes = [f1_row(*column) for column in zip(*self.counts.tolist(), strict=True)]
        return {
            "accuracy": share(hits, n),
            "interval": wilson_interval(hits, n),
            "n": n,
            "macro_f1": sum(row["f1"] for row in classes) / len(classes),
            "classes": classes,
        }


class RegressionCounter:
    """Sums for one number a row. logits (B, 1), labels (B,) float."""

    def __init__(self, device: torch.device):
        self.sums = torch.zeros(5, dtype=torch.float64, device=device)
        self.origin: Tensor | None = None  # the first label: keeps the variance free of cancelling

    def update(self, logits: Tensor, labels: Tensor) -> None:
        said, true = logits.double().squeeze(-1), labels.double()  # (B,)
        error = said - true
        if self.origin is None and len(true):
            self.origin = true[0].clone()
        shifted = true - (self.origin if self.origin is not None else 0.0)
        one = torch.ones_like(true)
        self.sums += torch.stack([one, error.abs(), error**2, shifted, shifted**2]).sum(dim=1)

    def results(self) -> dict[str, Any]:
        n, absolute, squared, total, total_squared = self.sums.tolist()
        if n == 0:
            return {"n": 0}
        variance = total_squared / n - (total / n) ** 2
        return {
            "n": int(n),
            "rmse": math.sqrt(squared / n),
            "mae": absolute / n,
            # labels all alike: 1 if every one was met and else 0, as scikit-learn has it
            "r2": 1 - squared / n / variance if variance > 0 else float(squared == 0),
        }


def build_counter(kind: str, num_labels: int, device: torch.device) -> Counter:
    """The counter for the labels' kind: "single", "multi" or "regression"."""
    if kind == "single":
        return SingleCounter(num_labels, device)
    if kind == "multi":
        return MultiCounter(num_labels, device)
    return RegressionCounter(device)


def probabilities(kind: str, logits: Tensor) -> Tensor:
    """(B, C) class probabilities; for regression the numbers themselves (B, 1)."""
    logits = logits.float()
    if kind == "single":
        return logits.softmax(dim=-1)
    return logits.sigmoid() if kind == "multi" else logits
