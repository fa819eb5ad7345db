"""The encoder on a stream, written out: BERT and its kin, and DistilBERT.

Replaces the forward of the encoder and of its layers. Query, key and value share the cast of their
input, and its gradient is one product (linear.py); dropout, residual and norm are one function
(norm.py), which hands the next product its input in the right dtype. Where the head reads nothing
but each text's first token (first_token_only), the last layer's queries, and all that follows its
attention, are worked out for those tokens alone: the same logits and gradients without five sixths
of that layer's arithmetic. Gain: see benchmarks/ablation.md.

What is called as a module, so that a hook on it works: the layers, which then return (x, cast), and
all linear layers and activations; the blocks between are not.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from types import MethodType
from typing import Any, NamedTuple

from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions

from models.fast.cpu.dropout import NamedRows
from models.fast.cpu.native import NativeKernels
from models.fast.cpu.norm import add_norm
from models.fast.layout import Layout, insert_prefix
from models.heads import Classifier, LinearHead, MLPHead
from models.methods.method import tokens_in_front
from models.methods.prefixed import Prefix

# (x, layers) -> the output of each
Project = Callable[[Tensor, Sequence[nn.Module]], tuple[Tensor, ...]]
# (q, k, v, layout, first_only, scale, dropout) -> attention within each text, (M, H, D)
Attend = Callable[[Tensor, Tensor, Tensor, Layout, bool, float, float], Tensor]
# (parts, attended, residual) -> the layer's output, and its cast
Finish = Callable[["Parts", Tensor, Tensor], tuple[Tensor, Tensor | None]]
# model types of transformers whose layers are written as BERT's
KIN = ("bert", "electra", "roberta", "xlm-roberta")
# heads of transformers that read the first token of a row, and nothing else
FIRST_TOKEN = {
    f"{family}ForSequenceClassification"
    for family in ("Bert", "DistilBert", "Electra", "Roberta", "XLMRoberta")
}


def first_token_only(model: nn.Module) -> bool:
    """Whether the head reads the first token of each row alone; a head of the user's own may read
    anything, and behind virtual tokens the text's first is not the row's."""
    if isinstance(model, Classifier):
        ours = type(model.head) in (LinearHead, MLPHead)
        return ours and model.head.pool == "cls" and not tokens_in_front(model)
    return type(model).__name__ in FIRST_TOKEN


def encoder_of(backbone: Any) -> Any | None:
    """The encoder that can be written out, with its layers under `layer`; None where it cannot."""
    kind = backbone.config.model_type
    if kind == "distilbert":
        return backbone.transformer
    return backbone.encoder if kind in KIN else None


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
    prefix: Prefix | None


def parts_of(layer: Any) -> Parts:
    """The parts of a layer of encoder_of(backbone)."""
    own = layer.attention
    if hasattr(own, "q_lin"):  # DistilBERT
        ffn = layer.ffn
        return Parts(
            own.q_lin, own.k_lin, own.v_lin, own.out_lin, None, layer.sa_layer_norm, ffn.lin1,
            ffn.activation, ffn.lin2, ffn.dropout, layer.output_layer_norm,
            own.attention_head_size, own.dropout.p, getattr(own, "prefix", None),
        )  # fmt: skip
    inner, after, output = own.self, own.output, layer.output
    return Parts(
        inner.query, inner.key, inner.value, after.dense, after.dropout, after.LayerNorm,
        layer.intermediate.dense, layer.intermediate.intermediate_act_fn, output.dense,
        output.dropout, output.LayerNorm, inner.attention_head_size, inner.dropout.p,
        getattr(inner, "prefix", None),
    )  # fmt: skip


@dataclass(frozen=True)
class Written:
    """How the layers of a backbone run: the three parts of a layer, each as its device does it."""

    project: Project
    attend: Attend
    finish: Finish
    first_only: bool  # the last layer for first tokens alone


class Stream(NamedTuple):
    """What a layer needs to know beside its input x (1, N, D)."""

    layout: Layout
    cast: Tensor | None  # x in the dtype of the products, where it is at hand
    how: Written
    first_only: bool


def project_each(x: Tensor, layers: Sequence[nn.Module]) -> tuple[Tensor, ...]:
    """The outputs (..., out) of several layers for one x (..., in), one by one."""
    return tuple(layer(x) for layer in layers)


def attend_within(parts: Parts, x: Tensor, stream: Stream, training: bool) -> tuple[Tensor, Tensor]:
    """Attention within the texts of a stream, and what is to be added to it, (1, M, D) each, from
    x (1, N, D): M is N, or with `first_only` the number of first tokens."""
    how, residual = stream.how, x
    factor = x if stream.cast is None else stream.cast
    if stream.first_only:
        residual = x.index_select(1, stream.layout.firsts)
        with named_rows(stream):
            (q,) = how.project(residual, (parts.query,))
        k, v = how.project(factor, (parts.key, parts.value))
    else:
        q, k, v = how.project(factor, (parts.query, parts.key, parts.value))
    size, rate = parts.head_size, parts.attention_dropout if training else 0.0
    q, k, v = (t.view(-1, t.shape[-1] // size, size) for t in (q, k, v))  # (N, H, D)
    if parts.prefix is not None:
        k, v = insert_prefix(parts.prefix, k, v, stream.layout)  # (N + M P, H, D)
    out = how.attend(q, k, v, stream.layout, stream.first_only, size**-0.5, rate)
    return out.reshape(1, len(out), -1), residual


def named_rows(stream: Stream) -> NamedRows:
    """The names of the tokens that are left after a layer's queries."""
    layout = stream.layout
    return NamedRows(layout.first_ids if stream.first_only else layout.ids)


def finish_layer(
    parts: Parts, attended: Tensor, residual: Tensor, norm: NativeKernels | None = None
) -> tuple[Tensor, Tensor | None]:
    """What follows attention, token by token: (1, M, D) each -> (1, M, D), and its copy for
    the products. `norm`: kernels for AddNorm."""
    x, cast = add_norm(parts.out(attended), residual, parts.out_norm, parts.out_dropout, norm)
    inner = parts.activation(parts.up(x if cast is None else cast))  # (1, M, I)
    return add_norm(parts.down(inner), x, parts.norm, parts.dropout, norm)


def run_layer(layer: nn.Module, x: Tensor, stream: Stream) -> tuple[Tensor, Tensor | None]:
    """One layer: x (1, N, D) -> (1, M, D), and its copy for the products."""
    parts = parts_of(layer)
    with NamedRows(stream.layout.ids):  # again: this may be a recomputation
        attended, residual = attend_within(parts, x, stream, layer.training)
    with named_rows(stream):
        return stream.how.finish(parts, attended, residual)


def layer_forward(layer: Any, x: Tensor, *rest: Any, **others: Any) -> Any:
    """run_layer for a layer that is given a Stream, so that a hook on it sees (x, cast); else the
    plain forward."""
    if not rest or not isinstance(rest[0], Stream):
        return type(layer).forward(layer, x, *rest, **others)
    if layer.gradient_checkpointing and layer.training:
        return layer._gradient_checkpointing_func(partial(run_layer, layer), x, rest[0])
    return run_layer(layer, x, rest[0])


def encoder_forward(
    encoder: Any, hidden_states: Tensor, *rest: Any, layout: Layout | None = None, **others: Any
) -> Any:
    """All layers on a stream, hidden_states (1, N, D); the plain forward on a padded batch."""
    if layout is None:
        return type(encoder).forward(encoder, hidden_states, *rest, **others)
    x, cast, how = hidden_states, None, encoder.how
    for layer in encoder.layer:
        short = how.first_only and layer is encoder.layer[-1]
        x, cast = layer(x, Stream(layout, cast, how, short))
    return BaseModelOutputWithPastAndCrossAttentions(last_hidden_state=x)


def write_out(encoder: Any, how: Written) -> None:
    """Give an encoder_of(backbone) and its layers the forwards above, in place. The backbone must
    run as a stream."""
    encoder.how = how
    encoder.forward = MethodType(encoder_forward, encoder)
    for layer in encoder.layer:
        layer.forward = MethodType(layer_forward, layer)
