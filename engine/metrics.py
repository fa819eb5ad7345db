"""Streaming counters: integers until the end, every figure with its n. Memory goes with the classes
or the rows, never with the square of the classes: one class a row keeps 8 bytes a row, a regression
16, for their ranks.

Accuracy and everything per class come from exact int64 counts, and do not depend on how the rows
were cut into batches. A figure that is not defined, as the area under the ROC curve where all rows
are of one class, is left out: there is no NaN.
"""

import math
from typing import Any, Protocol

import torch
from torch import Tensor

from engine.curves import MOST_CURVES, CurveCounter, logits_of_classes, macro_curves, widest
from engine.decision import Decision
from engine.intervals import wilson_interval
from engine.targets import IDENTITY, Target

MOST_CONFUSED = 50  # classes of a confusion matrix: more of them nobody can look at


class Counter(Protocol):
    """What evaluation needs of a counter."""

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Count one batch."""

    def results(self) -> dict[str, Any]:
        """The figures: "accuracy" (not for regression), "n" and more."""


def share(part: int, whole: int) -> float:
    """part / whole, and 0 where there is nothing to divide by (as scikit-learn's zero_division)."""
    return part / whole if whole else 0.0


def f1_row(true: int, predicted: int, hits: int) -> dict[str, float | int]:
    """Precision, recall and F1 of one class from its counts, and how often it is predicted."""
    precision, recall = share(hits, predicted), share(hits, true)
    f1 = 2 * precision * recall / (precision + recall) if hits else 0.0
    return {"precision": precision, "recall": recall, "f1": f1, "n": true, "predicted": predicted}


def weighted_f1(rows: list[dict[str, float | int]]) -> float:
    """The mean F1 of the classes, each weighing as many rows as have it; 0 where there are none."""
    total = sum(row["n"] for row in rows)
    return sum(row["f1"] * row["n"] for row in rows) / total if total else 0.0


def balanced_accuracy(rows: list[dict[str, float | int]]) -> float:
    """The mean recall of the classes that have rows."""
    recalls = [row["recall"] for row in rows if row["n"]]
    return sum(recalls) / len(recalls) if recalls else 0.0


def matthews(true: list[int], predicted: list[int], hits: int, n: int) -> float:
    """Matthews' correlation coefficient for any number of classes, R_K (Gorodkin 2004), from how
    often each is true and predicted (C,). In whole numbers up to the last division; 0 where all
    rows are of one class, or given one, as scikit-learn has it."""
    covariance = hits * n - sum(t * p for t, p in zip(true, predicted, strict=True))
    spread = [n * n - sum(count * count for count in counts) for counts in (true, predicted)]
    return covariance / math.sqrt(spread[0] * spread[1]) if all(spread) else 0.0


class SingleCounter:
    """Counts for one class a row. logits (B, C), labels (B,) int64.

    What is kept of a row is its cell of the confusion matrix, truth * C + answer: the matrix itself
    would take 800 MB for 10,000 classes, nearly all of it zeros.
    """

    def __init__(self, num_labels: int, device: torch.device):
        self.cells = [torch.zeros(0, dtype=torch.int64, device=device)]
        self.num_labels = num_labels
        self.curves = curve_counter(num_labels, device)

    def update(self, logits: Tensor, labels: Tensor) -> None:
        # the likeliest, whatever the temperature; (B,), no host sync
        self.cells.append(labels * self.num_labels + logits.argmax(dim=-1))
        if self.curves is not None:
            classes = torch.arange(self.num_labels, device=labels.device)
            self.curves.update(logits_of_classes(logits), labels.unsqueeze(1) == classes)  # (B, C)

    def results(self) -> dict[str, Any]:
        classes = self.num_labels
        cells, counts = torch.cat(self.cells).cpu().unique(return_counts=True)  # (K,) that occur
        true, predicted = cells // classes, cells % classes
        right = true == predicted
        by_class = [
            torch.zeros(classes, dtype=torch.int64).scatter_add_(0, index, count).tolist()
            for index, count in ((true, counts), (predicted, counts), (true, counts * right))
        ]
        rows = [f1_row(*figures) for figures in zip(*by_class, strict=True)]
        n, hits = int(counts.sum()), int(counts[right].sum())
        beside = add_curves(self.curves, rows)
        return {
            "accuracy": share(hits, n),
            "interval": wilson_interval(hits, n),
            "n": n,
            "macro_f1": sum(row["f1"] for row in rows) / classes,
            "weighted_f1": weighted_f1(rows),
            "balanced_accuracy": balanced_accuracy(rows),
            "mcc": matthews(by_class[0], by_class[1], hits, n),
            **beside,
            "classes": rows,
            **confusion(true, predicted, counts, classes),
        }


def confusion(true: Tensor, predicted: Tensor, counts: Tensor, classes: int) -> dict[str, Any]:
    """ "confusion", a matrix whose rows are the truth, and "confused", the classes that it is of:
    all of them, or the MOST_CONFUSED that take part in the most mistakes. From the cells that occur
    (K,): their truth, answer and count."""
    wrong = counts * (true != predicted)
    mistakes = torch.zeros(classes, dtype=torch.int64)
    mistakes.scatter_add_(0, true, wrong).scatter_add_(0, predicted, wrong)
    order = mistakes.argsort(descending=True, stable=True)
    chosen = order[:MOST_CONFUSED].sort().values  # (S,) in the order of the labels
    place = torch.full((classes,), -1).scatter_(0, chosen, torch.arange(len(chosen)))
    inside = (place[true] >= 0) & (place[predicted] >= 0)
    matrix = torch.zeros(len(chosen), len(chosen), dtype=torch.int64)
    matrix[place[true[inside]], place[predicted[inside]]] = counts[inside]
    return {"confusion": matrix.tolist(), "confused": chosen.tolist()}


class MultiCounter:
    """Counts for any number of classes a row. logits (B, C), labels (B, C) of 0 and 1.

    Accuracy is the share of rows with every class right, as in scikit-learn.
    """

    def __init__(self, num_labels: int, device: torch.device, decision: Decision | None = None):
        self.decision = decision or Decision("multi")
        self.counts = torch.zeros(3, num_labels, dtype=torch.int64, device=device)
        self.rows = torch.zeros(2, dtype=torch.int64, device=device)  # all right, all
        self.curves = curve_counter(num_labels, device)

    def update(self, logits: Tensor, labels: Tensor) -> None:
        predicted, true = self.decision.answers(logits), labels > 0.5  # (B, C)
        self.counts += torch.stack([true.sum(0), predicted.sum(0), (true & predicted).sum(0)])
        self.rows[0] += (predicted == true).all(dim=-1).sum()
        self.rows[1] += len(labels)
        if self.curves is not None:
            self.curves.update(widest(logits), true)

    def results(self) -> dict[str, Any]:
        hits, n = self.rows.tolist()
        classes = [f1_row(*column) for column in zip(*self.counts.tolist(), strict=True)]
        beside = add_curves(self.curves, classes)
        return {
            "accuracy": share(hits, n),
            "interval": wilson_interval(hits, n),
            "n": n,
            "macro_f1": sum(row["f1"] for row in classes) / len(classes),
            "weighted_f1": weighted_f1(classes),
            **beside,
            "classes": classes,
        }


def curve_counter(num_labels: int, device: torch.device) -> CurveCounter | None:
    """Counts for AUROC and average precision; None for more than MOST_CURVES classes."""
    return CurveCounter(num_labels, device) if num_labels <= MOST_CURVES else None


def add_curves(curves: CurveCounter | None, rows: list[dict[str, float | int]]) -> dict[str, Any]:
    """The macro averages of what was counted; what there is of each class goes into its row."""
    if curves is None:
        return {}
    by_class = curves.by_class()
    for row, figures in zip(rows, by_class, strict=True):
        row.update(figures)
    return macro_curves(by_class)


def rank_correlation(first: Tensor, second: Tensor) -> float:
    """Spearman's coefficient of two rows of numbers (N,): the correlation of their ranks.

    Equal numbers share the mean of their ranks. Where either row is constant no order can be
    compared and the coefficient is 0; it is NaN where a number is.
    """
    if first.isnan().any() or second.isnan().any():
        return math.nan
    one, other = (average_ranks(numbers) for numbers in (first, second))
    one, other = one - one.mean(), other - other.mean()
    norms = (one.square().sum() * other.square().sum()).sqrt()
    return ((one * other).sum() / norms).clamp(-1, 1).item() if norms > 0 else 0.0


def average_ranks(numbers: Tensor) -> Tensor:
    """The rank of each number (N,) float64, from 1; equal ones share the mean of their ranks."""
    _, place, counts = torch.unique(numbers, return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()  # the rank of the last of each group of equals
    return (last - (counts - 1) / 2)[place]


class RegressionCounter:
    """One number a row. logits (B, 1) in deviations from the target's mean, labels (B,) float in
    the user's unit, in which all figures are.

    Spearman's coefficient needs all ranks at once, so two numbers a row are kept: 16 bytes.
    """

    def __init__(self, device: torch.device, target: Target = IDENTITY):
        self.target, nothing = target, torch.zeros(0, dtype=torch.float64, device=device)
        # deviations as the model gives them: restored, two of them could round to one number
        self.standard, self.true = [nothing], [nothing]

    def update(self, logits: Tensor, labels: Tensor) -> None:
        self.standard.append(logits.double().squeeze(-1))  # (B,)
        self.true.append(labels.double())

    def results(self) -> dict[str, Any]:
        standard, true = torch.cat(self.standard), torch.cat(self.true)  # (N,)
        if len(true) == 0:
            return {"n": 0}
        error = self.target.restore(standard) - true
        squared = error.square().mean().item()
        apart = true - true[0]  # labels all alike give exactly 0, and large ones do not cancel
        variance = (apart - apart.mean()).square().mean().item()
        return {
            "n": len(true),
            "rmse": math.sqrt(squared),
            "mae": error.abs().mean().item(),
            # labels all alike: 1 if every one was met and else 0, as scikit-learn has it
            "r2": 1 - squared / variance if variance > 0 else float(squared == 0),
            "spearman": rank_correlation(standard, true),
        }


def build_counter(decision: Decision, num_labels: int, device: torch.device) -> Counter:
    """The counter of what a decision answers."""
    if decision.kind == "single":
        return SingleCounter(num_labels, device)
    if decision.kind == "multi":
        return MultiCounter(num_labels, device, decision)
    return RegressionCounter(device, decision.target)
