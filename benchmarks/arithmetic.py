"""The arithmetic that a step of a BERT classifier needs, whoever runs it.

2 FLOP for each multiply-add of the linear layers and of attention's two products, for real tokens
only. With N tokens in rows of T, width H, inner width I, rank r, C labels, one layer's forward is

    2 N (4 H² + 2 H I)  query, key, value, output; up, down      8 N H r  LoRA on query and value
    4 H Σ T²            Q Kᵀ and P V                             a row: 2 H² + 2 H C  pooler, head

The backward pass counts what the chain rule asks for: a gradient of the input and, where the
weight trains, one of the weight (each as much as the forward product); attention has four products
for two. Nothing counts below the first trainable layer: with LoRA, layer 0 needs no gradient of
its input, and none of its keys. Full fine-tuning so comes to three times the forward pass. Not
counted, since no product of the model: embeddings, norms, activations, softmax, dropout, the
optimizer, and whatever an implementation computes twice.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Shape:
    """A BERT classifier with its own head. `rank` is 0 without LoRA."""

    hidden: int
    inner: int
    layers: int
    labels: int
    rank: int
    trains: Literal["nothing", "lora", "all"]


def shape_of(bert: Any, rank: int, trains: Literal["nothing", "lora", "all"]) -> Shape:
    """The shape from a transformers BertConfig."""
    return Shape(
        bert.hidden_size, bert.intermediate_size, bert.num_hidden_layers, bert.num_labels,
        rank, trains,
    )  # fmt: skip


def forward_flops(shape: Shape, lengths: Sequence[int]) -> int:
    """One forward pass over rows of these lengths."""
    tokens, squares = sum(lengths), sum(n * n for n in lengths)
    H = shape.hidden
    linear = 2 * tokens * (4 * H * H + 2 * H * shape.inner)
    layer = linear + 4 * H * squares + 8 * tokens * H * shape.rank
    return shape.layers * layer + len(lengths) * (2 * H * H + 2 * H * shape.labels)


def backward_flops(shape: Shape, lengths: Sequence[int]) -> int:
    """The backward pass that belongs to it."""
    if shape.trains == "nothing":
        return 0
    if shape.trains == "all":
        return 2 * forward_flops(shape, lengths)
    tokens, squares = sum(lengths), sum(n * n for n in lengths)
    H, low = shape.hidden, 2 * tokens * shape.hidden * shape.rank  # one skinny product
    upper = 2 * tokens * (4 * H * H + 2 * H * shape.inner) + 8 * H * squares + 8 * low
    lowest = 2 * tokens * (H * H + 2 * H * shape.inner) + 6 * H * squares + 6 * low
    head = len(lengths) * (2 * H * H + 4 * H * shape.labels)  # the pooler is frozen
    return (shape.layers - 1) * upper + lowest + head


def step_flops(shape: Shape, lengths: Sequence[int]) -> int:
    """Forward and backward."""
    return forward_flops(shape, lengths) + backward_flops(shape, lengths)
