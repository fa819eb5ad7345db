"""The encoder on a stream, written out: BERT and its kin, and DistilBERT.

Replaces the forward of the encoder and of its layers. Query, key and value share the cast of their
input, and its gradient is one product (linear.py); dropout, residual and norm are one function
(norm.py), which hands the next product its input in the right dtype. Where the head reads nothing
but each text's first token (first_token_only), the last layer's queries, and all that follows its
attention, are worked out for those tokens alone: the same logits and gradients without five sixths
of that layer's arithmetic. Gain: see benchmarks/ablation.md.

What is called as a module, so that a hook on it works: the layers, which then return (x, twin), and
all linear layers and activations; the blocks between are not.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from types import MethodType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions

from models.fast.cpu.attention import attend
from models.fast.cpu.kernels import Kernels, Spans
from models.fast.cpu.native import NativeKernels
from models.fast.cpu.norm import add_norm
from models.fast.linear import project
from models.heads import Classifier, LinearHead, MLPHead

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
        return type(model.head) in (LinearHead, MLPHead) and model.head.pool == "cls"
    return type(model).__name__ in FIRST_TOKEN


def encoder_of(backbone: Any) -> Any | None:
    """The encoder that can be written out, with its layers under `layer`; None where it cannot."""
    kind = backbone.config.model_type
    if kind == "distilbert":
        return backbone.transformer
    return backbone.encoder if kind in KIN else None


def first_tokens(ends: Tensor) -> Tensor:
    """The places (M,) of each text's first token, from ends (texts + 1,); a stream of empty texts
    gives its filling's first one."""
    found = ends[:-1][ends.diff() > 0]
    return found if len(found) else ends.new_zeros(1)


@dataclass(frozen=True)
class Parts:
    """The modules of a layer, whatever its architecture calls them."""

    query: nn.Module
    key: nn.Module
    value: nn.Module
    out: nn.Module
    out_dropout: nn.Dropout | None
    out_norm: nn.Module
    up: nn.Module
    activation: Callable[[Tensor], Tensor]
    down: nn.Module
    dropout: nn.Dropout
    norm: nn.Module
    head_size: int
    attention_dropout: float


def parts_of(layer: Any) -> Parts:
    """The parts of a layer of encoder_of(backbone)."""
    own = layer.attention
    if hasattr(own, "q_lin"):  # DistilBERT
        ffn = layer.ffn
        return Parts(
            own.q_lin, own.k_lin, own.v_lin, own.out_lin, None, layer.sa_layer_norm, ffn.lin1,
            ffn.activation, ffn.lin2, ffn.dropout, layer.output_layer_norm,
            own.attention_head_size, own.dropout.p,
        )  # fmt: skip
    inner, after, output = own.self, own.output, layer.output
    return Parts(
        inner.query, inner.key, inner.value, after.dense, after.dropout, after.LayerNorm,
        layer.intermediate.dense, layer.intermediate.intermediate_act_fn, output.dense,
        output.dropout, output.LayerNorm, inner.attention_head_size, inner.dropout.p,
    )  # fmt: skip


def after_queries(layer: nn.Module) -> Iterator[nn.Module]:
    """The modules of a layer but those that make its keys and values."""
    parts = parts_of(layer)
    others = {*parts.key.modules(), *parts.value.modules()}
    return (module for module in layer.modules() if module not in others)


@dataclass(frozen=True)
class Written:
    """How the layers of a backbone run: `norm` are the kernels for AddNorm, if it is wanted."""

    kernels: Kernels
    norm: NativeKernels | None
    qkv: bool
    first_only: bool  # the last layer for first tokens alone


class Stream(NamedTuple):
    """What a layer needs to know beside its input x (1, N, D)."""

    ends: Tensor  # (texts + 1,): where the texts end
    spans: Spans  # the same: where each text lies
    twin: Tensor | None  # x in the dtype of the products, where it is at hand
    how: Written
    first_only: bool


def attend_stream(parts: Parts, x: Tensor, stream: Stream, training: bool) -> tuple[Tensor, Tensor]:
    """Attention within the texts of a stream, and what is to be added to it, (1, M, D) each, from
    x (1, N, D): M is N, or with `first_only` the number of texts that are not empty."""
    ends, queries = stream.ends, None
    given, residual = x if stream.twin is None else stream.twin, x
    layers: list[nn.Module] = [parts.query, parts.key, parts.value]
    if stream.first_only:
        residual = x.index_select(1, first_tokens(ends))
        q, layers = parts.query(residual), layers[1:]
        queries = list(pairwise([0, *torch.cumsum(ends.diff() > 0, 0).tolist()]))
    outs = project(given, layers) if stream.how.qkv else [layer(given) for layer in layers]
    q, k, v = (q, *outs) if stream.first_only else outs
    size, rate = parts.head_size, parts.attention_dropout if training else 0.0
    q, k, v = (t.view(-1, t.shape[-1] // size, size) for t in (q, k, v))  # (N, H, D)
    out = attend(q, k, v, stream.spans, size**-0.5, rate, stream.how.kernels, queries)
    return out.view(1, len(out), -1), residual


def run_layer(layer: nn.Module, x: Tensor, stream: Stream) -> tuple[Tensor, Tensor | None]:
    """One layer: x (1, N, D) -> (1, M, D), and its twin."""
    parts, norm = parts_of(layer), stream.how.norm
    attended, residual = attend_stream(parts, x, stream, layer.training)
    x, twin = add_norm(parts.out(attended), residual, parts.out_norm, parts.out_dropout, norm)
    inner = parts.activation(parts.up(x if twin is None else twin))  # (1, M, I)
    return add_norm(parts.down(inner), x, parts.norm, parts.dropout, norm)


def layer_forward(layer: Any, x: Tensor, *given: Any, **others: Any) -> Any:
    """run_layer for a layer that is given a Stream, so that a hook on it sees (x, twin); else the
    plain forward."""
    if not given or not isinstance(given[0], Stream):
        return type(layer).forward(layer, x, *given, **others)
    if layer.gradient_checkpointing and layer.training:
        return layer._gradient_checkpointing_func(partial(run_layer, layer), x, given[0])
    return run_layer(layer, x, given[0])


def encoder_forward(
    encoder: Any, hidden_states: Tensor, *given: Any, cu_seq_lens_q: Tensor | None = None,
    **others: Any,
) -> Any:  # fmt: skip
    """All layers on a stream, hidden_states (1, N, D); the plain forward on a padded batch."""
    if cu_seq_lens_q is None:
        return type(encoder).forward(encoder, hidden_states, *given, **others)
    x, twin, how = hidden_states, None, encoder.how
    spans = list(pairwise(cu_seq_lens_q.tolist()))
    for layer in encoder.layer:
        short = how.first_only and layer is encoder.layer[-1]
        x, twin = layer(x, Stream(cu_seq_lens_q, spans, twin, how, short))
    return BaseModelOutputWithPastAndCrossAttentions(last_hidden_state=x)


def write_out(encoder: Any, how: Written) -> None:
    """Give an encoder_of(backbone) and its layers the forwards above, in place. The backbone must
    run as a stream."""
    encoder.how = how
    encoder.forward = MethodType(encoder_forward, encoder)
    for layer in encoder.layer:
        layer.forward = MethodType(layer_forward, layer)
