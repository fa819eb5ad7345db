"""A loss gives a SUM over the items of a micro-batch; `count` gives the number of items.

The engine divides once, by the count of the whole window of micro-batches. That is what makes
gradient accumulation exact: a mean of means would weigh a short last micro-batch too much.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Batch = dict[str, Any]
LossFn = Callable[[Tensor, Tensor], Tensor]
IGNORE = -100  # a label that is not learned, as everywhere in torch


def at_least_fp32(logits: Tensor) -> Tensor:
    """Half precision is too coarse for a sum over rows; fp64 stays fp64."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def cross_entropy(
    logits: Tensor, labels: Tensor, weights: Tensor | None = None, smoothing: float = 0.0
) -> Tensor:
    """Sum of cross-entropies. logits (B, C) or (B, T, C), labels (B,) or (B, T) int64.

    Class weights multiply each item's loss and do not enter the count: "balanced" weights have
    mean 1 over the training rows, so the sum stays comparable, and accumulation stays exact.
    """
    flat = at_least_fp32(logits).flatten(0, -2)  # (B, C) or (B*T, C)
    return F.cross_entropy(
        flat,
        labels.flatten(),
        weight=weights.to(flat.dtype) if weights is not None else None,
        ignore_index=IGNORE,
        label_smoothing=smoothing,
        reduction="sum",
    )


def binary_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Multi-label loss: mean over the classes, sum over the rows. Both (B, C)."""
    logits = at_least_fp32(logits)
    loss = F.binary_cross_entropy_with_logits(logits, labels.to(logits), reduction="none")
    return loss.mean(dim=-1).sum()


def squared_error(logits: Tensor, labels: Tensor) -> Tensor:
    """Regression loss: sum of squared errors. logits (B, 1), labels (B,)."""
    said = at_least_fp32(logits).squeeze(-1)  # (B,)
    return F.mse_loss(said, labels.to(said), reduction="sum")


def build_loss(
    kind: str,
    class_weights: list[float] | None = None,
    label_smoothing: float = 0.0,
    device: torch.device | None = None,
) -> tuple[LossFn, str]:
    """The loss for the labels' kind ("single", "multi", "regression"), and a sentence about it."""
    if kind == "multi":
        return binary_cross_entropy, "binary cross-entropy per class (rows with several labels)"
    if kind == "regression":
        return squared_error, "squared error (labels are numbers)"
    if kind != "single":
        raise ValueError(f"kind is {kind!r}; expected 'single', 'multi' or 'regression'")
    # on the device from the start: a copy at each step would wait for it
    weights = torch.tensor(class_weights, device=device) if class_weights else None
    said = "cross-entropy (one class a row)"
    if class_weights:
        said += ", class weights " + ", ".join(f"{w:.3g}" for w in class_weights)
    if label_smoothing:
        said += f", label smoothing {label_smoothing:g}"

    def loss_fn(logits: Tensor, labels: Tensor) -> Tensor:
        return cross_entropy(logits, labels, weights, label_smoothing)

    return loss_fn, said


def balanced_weights(counts: list[int]) -> list[float]:
    """Weight n / (C * n_c) for each class: the rare classes count as much as the common ones."""
    if 0 in counts:
        raise ValueError(
            f'train.class_weights = "balanced" needs every class among the training rows; class '
            f"{counts.index(0)} has none. Give the weights as a list, or change the split."
        )
    return [sum(counts) / (len(counts) * c) for c in counts]


def logits_of(output: Any) -> Tensor:
    """The logits, whether a model returns them or an object that carries them."""
    return output if isinstance(output, Tensor) else output.logits


def loss_from_logits(loss_fn: LossFn) -> Callable[[nn.Module, Batch], Tensor]:
    """`compute_loss(model, batch)` from the plain form `loss_fn(logits, labels)`."""

    def compute_loss(model: nn.Module, batch: Batch) -> Tensor:
        return loss_fn(logits_of(model(**batch["inputs"])), batch["labels"])

    return compute_loss


def count_items(batch: Batch) -> int:
    """Items a batch is judged by: rows, or for integer labels (B, T) the tokens to be learned.

    Call it before the batch leaves the host: on a device it would wait for the device.
    """
    labels: Tensor = batch["labels"]
    if labels.dtype == torch.int64:
        return int((labels != IGNORE).sum())
    return labels.shape[0]
