"""A loss gives a SUM over the items of a micro-batch; `count` gives the number of items.

The engine divides once, by the count of the whole window of micro-batches. That is what makes
gradient accumulation exact: a mean of means would weigh a short last micro-batch too much.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.targets import IDENTITY, Target

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


def binary_cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """Multi-label loss: mean over the classes, sum over the rows. Both (B, C).

    `weights` (C,) multiply the loss of the labels that hold: a rare class counts as if it were
    that many times as frequent.
    """
    logits = at_least_fp32(logits)
    loss = F.binary_cross_entropy_with_logits(
        logits,
        labels.to(logits),
        pos_weight=weights.to(logits.dtype) if weights is not None else None,
        reduction="none",
    )
    return loss.mean(dim=-1).sum()


def squared_error(logits: Tensor, labels: Tensor, target: Target = IDENTITY) -> Tensor:
    """Regression loss: sum of squared errors. logits (B, 1) in deviations from the target's mean,
    labels (B,) in the user's unit."""
    standard = at_least_fp32(logits).squeeze(-1)  # (B,)
    return F.mse_loss(standard, target.standardise(labels).to(standard), reduction="sum")


def build_loss(
    kind: str,
    class_weights: list[float] | None = None,
    label_smoothing: float = 0.0,
    device: torch.device | None = None,
    target: Target = IDENTITY,
) -> tuple[LossFn, str]:
    """The loss for the labels' kind ("single", "multi", "regression"), and a sentence about it."""
    # on the device from the start: a copy at each step would wait for it
    weights = torch.tensor(class_weights, device=device) if class_weights else None
    if kind == "multi":
        sentence = "binary cross-entropy per class (rows with several labels)"
        return lambda logits, labels: binary_cross_entropy(logits, labels, weights), sentence
    if kind == "regression":
        sentence = "squared error in standard deviations: 1 is as good as always saying the mean"
        return lambda logits, labels: squared_error(logits, labels, target), sentence
    if kind != "single":
        raise ValueError(f"kind is {kind!r}; expected 'single', 'multi' or 'regression'")
    sentence = "cross-entropy (one class a row)"
    if label_smoothing:
        sentence += f", label smoothing {label_smoothing:g}"

    def loss_fn(logits: Tensor, labels: Tensor) -> Tensor:
        return cross_entropy(logits, labels, weights, label_smoothing)

    return loss_fn, sentence


def balanced_weights(counts: Mapping[str, int]) -> list[float]:
    """Weight n / (C * n_c) for each class: the rare classes count as much as the common ones.

    `counts` are the training rows of each class; the order is kept.
    """
    check_every_class(counts)
    return [sum(counts.values()) / (len(counts) * count) for count in counts.values()]


def positive_weights(counts: Mapping[str, int], rows: int) -> list[float]:
    """Weight (rows without) / (rows with) for each class of rows with several labels: holding and
    not holding count the same. A class that every row holds weighs 1."""
    check_every_class(counts)
    return [(rows - count) / count if count < rows else 1.0 for count in counts.values()]


def check_every_class(counts: Mapping[str, int]) -> None:
    """Raise ValueError naming the classes that no training row has."""
    missing = [name for name, count in counts.items() if not count]
    if missing:
        shown = ", ".join(map(repr, missing[:12])) + (", …" if len(missing) > 12 else "")
        raise ValueError(
            f'train.class_weights = "balanced" needs training rows of every class; there is none '
            f"of {shown}. Give the weights as a list, cut the splits otherwise (data.split_seed), "
            "or leave that class out of the data"
        )


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

    Before the batch leaves the host: on a device it would wait for the device. feed.py asks in time
    and notes the answer under "items".
    """
    if "items" in batch:
        return int(batch["items"])
    labels: Tensor = batch["labels"]
    if labels.dtype == torch.int64:
        return int((labels != IGNORE).sum())
    return labels.shape[0]
