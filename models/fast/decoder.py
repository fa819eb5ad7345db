"""The decoder on a stream, written out: GPT-2, and Llama and its kin.

Replaces the forward of the backbone, on streams, and that of its layers. Query, key and value are
one product, and so are gate and up; rotary positions are taken in the memory of queries and keys
(cpu/attention.py); residual and norm are one function (cpu/pre_norm.py), and so are the gate and
the product behind it (cpu/gated.py). A layer takes the norm that stands before the next one, where
it adds what its last product gave. Gain: see benchmarks/ablation.md.

What is called as a module, so that a hook on it works: the layers, which then return (x, norm of
x), and all linear layers; the blocks between are not.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from types import MethodType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions

from models.fast.cpu.attention import attend_stream
from models.fast.cpu.dropout import NamedRows
from models.fast.cpu.gated import gated_down
from models.fast.cpu.kernels import Kernels, Turn
from models.fast.cpu.native import NativeKernels
from models.fast.cpu.pre_norm import norm_heads, pre_norm, product_dtype
from models.fast.layout import Layout, insert_prefix
from models.fast.linear import is_hooked
from models.fast.products import side_by_side
from models.methods.prefixed import Prefix

# (x, layers) -> the output of each
Project = Callable[[Tensor, Sequence[nn.Module]], tuple[Tensor, ...]]


@dataclass(frozen=True)
class Written:
    """How the layers of a backbone run: what computes, and which parts are one function."""

    project: Project
    kernels: Kernels  # of attention
    norm: NativeKernels | None  # for residual and norm
    gate: NativeKernels | None  # for the gate and the product behind it
    rotary: bool  # rotary positions in place


@dataclass(frozen=True)
class Parts:
    """The modules of a layer, whatever its architecture calls them."""

    norm: Any
    inputs: tuple[nn.Module, ...]  # query, key, value, or one for all three
    out: nn.Module
    out_dropout: nn.Module | None
    second_norm: Any
    ups: tuple[nn.Module, ...]  # gate and up, or up alone
    activation: Callable[[Tensor], Tensor]
    down: nn.Module
    dropout: nn.Module | None
    head_norms: tuple[Any, Any] | None  # of queries and keys
    head_size: int
    scale: float
    attention_dropout: float
    prefix: Prefix | None


def parts_of(layer: Any) -> Parts:
    """The parts of a layer of layers_of(backbone)."""
    if hasattr(layer, "attn"):  # GPT-2
        own, mlp = layer.attn, layer.mlp
        return Parts(
            layer.ln_1, (own.c_attn,), own.c_proj, own.resid_dropout, layer.ln_2, (mlp.c_fc,),
            mlp.act, mlp.c_proj, mlp.dropout, None, own.head_dim, own.scaling, own.attn_dropout.p,
            getattr(own, "prefix", None),
        )  # fmt: skip
    own, mlp = layer.self_attn, layer.mlp
    norms = (own.q_norm, own.k_norm) if hasattr(own, "q_norm") else None
    return Parts(
        layer.input_layernorm, (own.q_proj, own.k_proj, own.v_proj), own.o_proj, None,
        layer.post_attention_layernorm, (mlp.gate_proj, mlp.up_proj), mlp.act_fn, mlp.down_proj,
        None, norms, own.head_dim, own.scaling, own.attention_dropout,
        getattr(own, "prefix", None),
    )  # fmt: skip


def layers_of(backbone: Any) -> Any:
    """The layers of a decoder of streams.DECODERS."""
    return backbone.h if hasattr(backbone, "h") else backbone.layers


class Stream(NamedTuple):
    """What a layer needs to know beside its input."""

    layout: Layout
    turn: Turn | None  # of rotary positions
    how: Written
    next_norm: Any  # of the layer behind, or of the backbone
    last: bool


class Thirds(torch.autograd.Function):
    """x (N, 3 C) as three (N, C), whose gradients go back as they lie."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        return x.chunk(3, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> Tensor:
        there = next(g for g in grads if g is not None)
        return side_by_side([torch.zeros_like(there) if g is None else g for g in grads])


def heads_of(parts: Parts, h: Tensor, how: Written) -> tuple[Tensor, Tensor, Tensor]:
    """Queries (N, H, D), keys and values (N, G, D) from h (1, N, C)."""
    if len(parts.inputs) == 1:
        (whole,) = how.project(h, parts.inputs)
        made = Thirds.apply(whole.flatten(0, 1))
    else:
        made = how.project(h, parts.inputs)
    size = parts.head_size
    q, k, v = (t.reshape(-1, t.shape[-1] // size, size) for t in made)
    if parts.head_norms is not None:
        q, k = (norm_heads(t, n, how.norm) for t, n in zip((q, k), parts.head_norms, strict=True))
    return q, k, v


def turned(x: Tensor, turn: Turn) -> Tensor:
    """x (N, H, D) by rotary positions, in memory of its own."""
    cos, sin = (t.unsqueeze(1) for t in turn)  # (N, 1, D)
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat((-second, first), -1) * sin


def attend_back(parts: Parts, h: Tensor, stream: Stream, training: bool) -> Tensor:
    """Attention of each token of h (1, N, C) to those before it in its text -> (1, N, H D)."""
    how, turn = stream.how, stream.turn
    q, k, v = heads_of(parts, h, how)
    in_place = how.rotary and parts.prefix is None
    if turn is not None and not in_place:
        q, k, turn = turned(q, turn), turned(k, turn), None
    elif turn is not None and parts.head_norms is None:  # what a hook was shown stays as it was
        q, k = (
            t.clone() if is_hooked(m) else t for t, m in zip((q, k), parts.inputs, strict=False)
        )
    if parts.prefix is not None:
        k, v = insert_prefix(parts.prefix, k, v, stream.layout)  # (N + M P, G, D)
    rate = parts.attention_dropout if training else 0.0
    out = attend_stream(
        q, k, v, stream.layout, False, parts.scale, rate, how.kernels, causal=True, turn=turn
    )
    return out.view(1, len(out), -1)


def run_layer(
    layer: nn.Module, x: Tensor, h: Tensor | None, stream: Stream
) -> tuple[Tensor, Tensor]:
    """One layer: x (1, N, C), and its norm where it is at hand -> the same of what it gives."""
    parts, kernels = parts_of(layer), stream.how.norm
    dtype = product_dtype(x)
    with NamedRows(stream.layout.ids):  # again: this may be a recomputation
        if h is None:
            x, h = pre_norm(None, x, parts.norm, None, dtype, kernels)
        y = parts.out(attend_back(parts, h, stream, layer.training))
        x, h = pre_norm(y, x, parts.second_norm, parts.out_dropout, dtype, kernels)
        inner, *up = stream.how.project(h, parts.ups)  # (1, N, I)
        gate = stream.how.gate
        y = gated_down(inner, up[0] if up else None, parts.activation, parts.down, gate)
        dtype = x.dtype if stream.last else dtype
        return pre_norm(y, x, stream.next_norm, parts.dropout, dtype, kernels)


def layer_forward(layer: Any, x: Tensor, *rest: Any, **others: Any) -> Any:
    """run_layer for a layer that is given a Stream; else the plain forward."""
    if len(rest) != 2 or not isinstance(rest[1], Stream):
        return type(layer).forward(layer, x, *rest, **others)
    if layer.gradient_checkpointing and layer.training:
        return layer._gradient_checkpointing_func(partial(run_layer, layer), x, *rest)
    return run_layer(layer, x, *rest)


def embed(
    backbone: Any, input_ids: Tensor, position_ids: Tensor, token_type_ids: Tensor | None
) -> tuple[Tensor, Turn | None]:
    """What the first layer is given, (1, N, C), and the turn of rotary positions."""
    if hasattr(backbone, "wpe"):  # GPT-2
        x = backbone.wte(input_ids) + backbone.wpe(position_ids)
        if token_type_ids is not None:
            x = x + backbone.wte(token_type_ids)
        return backbone.drop(x), None
    x = backbone.embed_tokens(input_ids)
    cos, sin = backbone.rotary_emb(x, position_ids)  # (1, N, D) each
    return x, Turn(cos[0].float().contiguous(), sin[0].float().contiguous())


def run_decoder(
    backbone: Any, input_ids: Tensor, position_ids: Tensor, layout: Layout,
    token_type_ids: Tensor | None = None, **others: Any,
) -> BaseModelOutputWithPastAndCrossAttentions:  # fmt: skip
    """All layers on a stream, input_ids (1, N), and the norm behind them."""
    how: Written = backbone.how
    x, turn = embed(backbone, input_ids, position_ids, token_type_ids)
    layers, h = list(layers_of(backbone)), None
    norms = [parts_of(layer).norm for layer in layers[1:]]
    norms.append(backbone.ln_f if hasattr(backbone, "ln_f") else backbone.norm)
    for layer, norm in zip(layers, norms, strict=True):
        x, h = layer(x, h, Stream(layout, turn, how, norm, layer is layers[-1]))
    # behind layers that others stand for (models/cut.py) there is no norm of theirs
    return BaseModelOutputWithPastAndCrossAttentions(
        last_hidden_state=norms[-1](x) if h is None else h
    )


def write_out(backbone: Any, how: Written) -> None:
    """Give a decoder and its layers the forwards above, in place. It must run as a stream."""
    backbone.how = how
    backbone.written = MethodType(run_decoder, backbone)
    for layer in layers_of(backbone):
        layer.forward = MethodType(layer_forward, layer)
