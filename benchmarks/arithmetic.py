"""The arithmetic that a step of a BERT classifier needs, whoever runs it.

2 FLOP for each multiply-add of the linear layers and of attention's two products, for real tokens
only. With N tokens in rows of T, width H, inner width I, rank r, C labels, one layer's forward is

    2 N 2 H² + 2 M (2 H² + 2 H I)   key, value; query, output, up, down
    4 H P + 4 H r (M + N)           Q Kᵀ and P V; LoRA on query and value

for M = N and P = Σ T². In the last layer M is the number of rows and P = N: BERT's own head, 2 H² +
2 H C a row, reads nothing but each row's first token. Whoever works out the rest does not get it
counted.

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

Trains = Literal["nothing", "lora", "all"]


@dataclass(frozen=True)
class Shape:
    """A BERT classifier with its own head. `rank` is 0 without LoRA. Its steps are counted by the
    lengths of their rows."""

    hidden: int
    inner: int
    layers: int
    labels: int
    rank: int
    trains: Trains

    def tokens(self, step: Sequence[int]) -> int:
        """Real tokens of a step."""
        return sum(step)

    def learned(self, step: Sequence[int]) -> int:
        """Tokens that are learned: a classifier learns none."""
        return 0

    def step_flops(self, step: Sequence[int]) -> int:
        """Forward and backward."""
        return forward_flops(self, step) + backward_flops(self, step)


def shape_of(bert: Any, rank: int, trains: Trains) -> Shape:
    """The shape from a transformers BertConfig."""
    return Shape(
        bert.hidden_size, bert.intermediate_size, bert.num_hidden_layers, bert.num_labels,
        rank, trains,
    )  # fmt: skip


def sizes_of(shape: Shape, lengths: Sequence[int]) -> list[tuple[int, int, int]]:
    """(queries M, tokens N, pairs P) of each layer."""
    tokens, squares = sum(lengths), sum(n * n for n in lengths)
    return [(tokens, tokens, squares)] * (shape.layers - 1) + [(len(lengths), tokens, tokens)]


def forward_flops(shape: Shape, lengths: Sequence[int]) -> int:
    """One forward pass over rows of these lengths."""
    H, inner = shape.hidden, shape.inner
    total = len(lengths) * (2 * H * H + 2 * H * shape.labels)
    for queries, tokens, pairs in sizes_of(shape, lengths):
        total += 4 * H * H * tokens + 4 * (H * H + H * inner) * queries
        total += 4 * H * pairs + 4 * H * shape.rank * (queries + tokens)
    return total


def backward_flops(shape: Shape, lengths: Sequence[int]) -> int:
    """The backward pass that belongs to it."""
    if shape.trains == "nothing":
        return 0
    if shape.trains == "all":
        return 2 * forward_flops(shape, lengths)
    H, inner = shape.hidden, shape.inner
    total = len(lengths) * (2 * H * H + 4 * H * shape.labels)  # the pooler is frozen
    for layer, (queries, tokens, pairs) in enumerate(sizes_of(shape, lengths)):
        low = 2 * H * shape.rank * (queries + tokens)  # a skinny product of both adapters
        total += (2 * H * H + 4 * H * inner) * queries
        if layer == 0:
            total += 6 * H * pairs + 3 * low
        else:
            total += 2 * H * H * queries + 4 * H * H * tokens + 8 * H * pairs + 4 * low
    return total
