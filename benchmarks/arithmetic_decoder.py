"""The arithmetic that a training step of a language model needs, whoever runs it.

Counted as in arithmetic.py: 2 FLOP for each multiply-add, real tokens only. A token sees itself and
what came before it, so a conversation of T tokens has P = T (T + 1) / 2 pairs, half of the square.
With N tokens, P pairs, n learned tokens and their p pairs, one layer's forward is, of queries Q
wide and keys K wide (narrower where heads share them), inner width I and rank r,

    2 M H Q + 4 N H K          query; key and value
    2 M Q H + 6 M H I          output; gate, up and down (GPT-2: 4 M H I, it has no gate)
    4 Q P                      Q Kᵀ and P V
    2 r (in + out) each        LoRA on every linear layer, of M or N tokens as the layer itself

for M = N. In the last layer only what is learned is asked for: M = n and P = p, there and in the
query, while keys and values are those of all tokens. The head is 2 n H V.

The backward pass is what the chain rule asks for: a gradient of the input and, where the weight
trains, one of the weight; attention has four products for two. With LoRA nothing asks for a
gradient of the embeddings, so query, key and value of layer 0 have none of their input.

A step is counted by a flat list of N, P, n, p of each micro-batch in it (`chat_work`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from arithmetic import Trains

FUSED = ("gpt2",)  # one layer makes query, key and value; no gate
GATED = ("llama", "mistral", "qwen2", "qwen3")


@dataclass(frozen=True)
class Product:
    """A product of each token with a weight: a layer's own, LoRA's A ("down") or B ("up").
    `entry`: it reads what comes into the layer. `all_tokens`: in the last layer too."""

    inputs: int
    outputs: int
    weight: Literal["own", "down", "up"]
    entry: bool
    all_tokens: bool


@dataclass(frozen=True)
class DecoderShape:
    """A language model; `rank` is 0 without LoRA, which otherwise is on all linear layers."""

    hidden: int
    inner: int
    layers: int
    queries: int
    keys: int
    vocabulary: int
    fused: bool
    rank: int
    trains: Trains

    def tokens(self, step: Sequence[int]) -> int:
        """Real tokens of a step."""
        return sum(step[0::4])

    def learned(self, step: Sequence[int]) -> int:
        """Those of them that are somebody's target."""
        return sum(step[2::4])

    def step_flops(self, step: Sequence[int]) -> int:
        """Forward and backward."""
        work = tuple(sum(step[part::4]) for part in range(4))
        return forward_flops(self, work) + backward_flops(self, work)


def decoder_shape(config: Any, rank: int, trains: Trains) -> DecoderShape:
    """The shape from a transformers config. Raises ValueError for an architecture not counted."""
    kind, heads = config.model_type, config.num_attention_heads
    if kind not in FUSED + GATED:
        raise ValueError(f"{kind!r} is not counted here; {', '.join(FUSED + GATED)} are")
    fused = kind in FUSED
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    groups = heads if fused else config.num_key_value_heads
    inner = (config.n_inner or 4 * config.hidden_size) if fused else config.intermediate_size
    return DecoderShape(
        config.hidden_size, inner, config.num_hidden_layers, heads * size, groups * size,
        config.vocab_size, fused, rank, trains,
    )  # fmt: skip


def products(shape: DecoderShape) -> list[Product]:
    """Those of one layer, without attention's."""
    H, inner = shape.hidden, shape.inner
    query, key = (shape.queries, False), (shape.keys, True)
    heads = [[query, key, key]] if shape.fused else [[query], [key], [key]]
    layers = [(H, parts, True) for parts in heads]  # (inputs, parts of the outputs, entry)
    layers += [(shape.queries, [(H, False)], False), (inner, [(H, False)], False)]
    layers += [(H, [(inner, False)], False)] * (1 if shape.fused else 2)
    result = []
    for inputs, parts, entry in layers:
        result += [Product(inputs, out, "own", entry, whole) for out, whole in parts]
        if shape.rank:
            whole = any(whole for _, whole in parts)
            result.append(Product(inputs, shape.rank, "down", entry, whole))
            result += [Product(shape.rank, out, "up", False, whole) for out, whole in parts]
    return result


def forward_flops(shape: DecoderShape, work: Sequence[int]) -> int:
    """One forward pass over N tokens with P pairs, n learned ones with p."""
    tokens, pairs, learned, learned_pairs = work
    total = 2 * shape.hidden * shape.vocabulary * learned
    for layer in range(shape.layers):
        last = layer == shape.layers - 1
        total += 4 * shape.queries * (learned_pairs if last else pairs)
        for one in products(shape):
            rows = learned if last and not one.all_tokens else tokens
            total += 2 * one.inputs * one.outputs * rows
    return total


def backward_flops(shape: DecoderShape, work: Sequence[int]) -> int:
    """The backward pass that belongs to it."""
    if shape.trains == "nothing":
        return 0
    if shape.trains == "all":  # the embeddings too, so all gradients of inputs are asked for
        return 2 * forward_flops(shape, work)
    tokens, pairs, learned, learned_pairs = work
    total = 2 * shape.hidden * shape.vocabulary * learned
    for layer in range(shape.layers):
        last = layer == shape.layers - 1
        total += 8 * shape.queries * (learned_pairs if last else pairs)
        for one in products(shape):
            rows = learned if last and not one.all_tokens else tokens
            gradients = (one.weight != "own") + (layer > 0 or not one.entry)
            total += 2 * one.inputs * one.outputs * rows * gradients
    return total


def chat_work(inputs: Any, labels: Any) -> Any:
    """(4,) int64 of a batch: its real tokens, their pairs, the learned ones, and theirs.

    `inputs` are the model's, labels (B, T) those of what follows each position. On the device, and
    nothing waits for it: a conversation begins where its position is 0.
    """
    import torch

    real = inputs.get("attention_mask", torch.ones_like(labels))  # (B, T)
    positions = inputs.get("position_ids")
    if positions is None:
        positions = torch.arange(labels.shape[1], device=labels.device).expand_as(labels)
    seen, learned = (positions + 1) * real, labels != -100  # (B, T)
    return torch.stack([real.sum(), seen.sum(), learned.sum(), (seen * learned).sum()])
