"""Encoder layers on a stream: query, key and value from one input, and a short last layer.

Replaces the attention block of BERT and its kin, and DistilBERT's whole layer. Query, key and value
share the cast of their input, and its gradient is one product (linear.py). Where the head reads
nothing but each text's first token (first_token_only), the last layer's queries, and all that
follows its attention, are worked out for those tokens alone: the same logits and gradients without
five sixths of that layer's arithmetic. Gain: see benchmarks/ablation.md.
"""

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from models.fast.attention import attend
from models.fast.kernels import Kernels
from models.fast.linear import project
from models.heads import HEADS, Classifier

# model types of transformers whose layers are written as BERT's
KIN = ("bert", "electra", "roberta", "xlm-roberta")
# heads of transformers that read the first token of a row, and nothing else
FIRST_TOKEN = {
    f"{family}ForSequenceClassification"
    for family in ("Bert", "DistilBert", "Electra", "Roberta", "XLMRoberta")
}


def first_token_only(model: nn.Module) -> bool:
    """Whether the head reads each text's first token alone; a head of the user's own may read
    anything."""
    if isinstance(model, Classifier):
        return type(model.head) in HEADS.values() and getattr(model.head, "pool", None) == "cls"
    return type(model).__name__ in FIRST_TOKEN


def layers_of(backbone: Any) -> list[nn.Module]:
    """The layers that can be replaced, in order; none for another architecture."""
    kind = backbone.config.model_type
    if kind == "distilbert":
        return list(backbone.transformer.layer)
    return list(backbone.encoder.layer) if kind in KIN else []


def first_tokens(ends: Tensor) -> Tensor:
    """The places (M,) of each text's first token, from ends (texts + 1,); a stream of empty texts
    gives its filling's first one."""
    found = ends[:-1][ends.diff() > 0]
    return found if len(found) else ends.new_zeros(1)


def attend_stream(
    block: Any, x: Tensor, ends: Tensor, layers: Sequence[nn.Module], size: int, dropout: float
) -> tuple[Tensor, Tensor]:
    """Attention within the texts of a stream, and what is to be added to it, (1, M, D) each, from
    x (1, N, D): M is N, or the number of texts where the block is `first_only`."""
    spans, queries = list(pairwise(ends.tolist())), None
    if block.first_only:
        residual = x.index_select(1, first_tokens(ends))
        (q,), (k, v) = project(residual, layers[:1]), project(x, layers[1:])
        full = torch.cumsum(ends.diff() > 0, 0).tolist()
        queries = list(pairwise([0, *full]))
    else:
        residual = x
        q, k, v = project(x, layers)
    q, k, v = (t.view(-1, t.shape[-1] // size, size) for t in (q, k, v))  # (N, H, D)
    dropped = dropout if block.training else 0.0
    out = attend(q, k, v, spans, size**-0.5, dropped, block.kernels, queries)
    return out.view(1, len(out), -1), residual


def kin_forward(
    block: Any, hidden_states: Tensor, *given: Any, cu_seq_lens_q: Tensor | None = None,
    **others: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """The attention block of KIN on a stream; the plain one on a padded batch."""
    if cu_seq_lens_q is None:
        return type(block).forward(block, hidden_states, *given, **others)
    own = block.self
    attended, residual = attend_stream(
        block, hidden_states, cu_seq_lens_q, (own.query, own.key, own.value),
        own.attention_head_size, own.dropout.p,
    )  # fmt: skip
    return block.output(attended, residual), None


def distil_forward(
    layer: Any, hidden_states: Tensor, *given: Any, cu_seq_lens_q: Tensor | None = None,
    **others: Any,
) -> Tensor:  # fmt: skip
    """DistilBERT's layer on a stream; the plain one on a padded batch."""
    if cu_seq_lens_q is None:
        return type(layer).forward(layer, hidden_states, *given, **others)
    run = partial(distil_stream, layer, ends=cu_seq_lens_q)
    if layer.gradient_checkpointing and layer.training:
        return layer._gradient_checkpointing_func(run, hidden_states)
    return run(hidden_states)


def distil_stream(layer: Any, x: Tensor, ends: Tensor) -> Tensor:
    """x (1, N, D) -> (1, M, D)."""
    own = layer.attention
    attended, residual = attend_stream(
        layer, x, ends, (own.q_lin, own.k_lin, own.v_lin), own.attention_head_size, own.dropout.p
    )
    x = layer.sa_layer_norm(own.out_lin(attended) + residual)
    return layer.output_layer_norm(layer.ffn(x) + x)


def replace_layers(backbone: Any, kernels: Kernels, qkv: bool, first_only: bool) -> int:
    """Give the layers the forwards above, in place: all of them for `qkv`, the last one for
    `first_only`; returns how many. The backbone must run as a stream."""
    layers = layers_of(backbone)
    chosen = layers if qkv else layers[-1:] if first_only else []
    for layer in chosen:
        distil = backbone.config.model_type == "distilbert"
        block: Any = layer if distil else layer.attention
        block.kernels, block.first_only = kernels, first_only and layer is layers[-1]
        block.forward = MethodType(distil_forward if distil else kin_forward, block)
    return len(chosen)
