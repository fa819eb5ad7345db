"""Training on pairs of rows ([contrast]): which there are, and what a step minimises of them."""

from collections.abc import Callable

import numpy as np
from torch import Tensor, nn

from configs.schema import Config
from data.encode import Encoded
from data.labels.settle import label_array
from data.pairs import Order, count_pairs, why_no_pairs
from data.prepare import Data
from engine.contrast import contrast_loss, describe_loss
from engine.losses import Batch
from models.pooled import PooledVectors
from report.format import format_count

ComputeLoss = Callable[[nn.Module, Batch], Tensor]


def why_unpaired(data: Data) -> str | None:
    """Why no pairs can be drawn of the training rows; None where they can."""
    if data.kind != "single":
        several = "rows have several labels" if data.kind == "multi" else "the labels are numbers"
        return f"{several}, and a pair is of one class or of two; remove it"
    reason = why_no_pairs(label_array(data.splits["train"], data.kind))
    return reason and f"{reason}; take other rows, or remove it"


def choose_order(config: Config, train: Encoded, data: Data) -> tuple[Order, list[str]]:
    """In which order epochs take the training rows, and lines for the plan on what is drawn."""
    seed = config.run.seed
    if config.contrast is None:
        streamed = 0 if data.stream is None else data.stream.rows
        return Order(seed, None, train.rows, streamed=streamed), []
    classes, pairs = np.array(train.dataset["labels"]), config.contrast.pairs
    equal, different = (format_count(number) for number in count_pairs(classes))
    counts = np.unique(classes, return_counts=True)[1]
    note = (
        f"pairs: an epoch draws {format_count(pairs)} ({format_count(2 * pairs)} rows), half of "
        f"one class and half of two; of its {train.rows:,} rows there are {equal} and {different}"
    )
    if single := int((counts == 1).sum()):
        note += f"; {single} of {len(counts)} classes have one row, and stand in those of two alone"
    return Order(seed, classes, train.rows, pairs), [note]


def pair_up(
    config: Config, model: nn.Module, compute_loss: ComputeLoss, sentence: str
) -> tuple[ComputeLoss, str]:
    """What a step minimises of pairs, beside `compute_loss` of single rows, and a sentence about
    it; both as they are without [contrast]. Raises ValueError where the model has no vectors that
    could be compared."""
    if config.contrast is None:
        return compute_loss, sentence
    weight, read = config.contrast.weight, PooledVectors(model).read
    return contrast_loss(compute_loss, weight, read), describe_loss(weight, sentence)
