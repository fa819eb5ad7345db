"""Attention within the texts of a stream on a GPU: no arithmetic on padding, nothing asked of it.

Replaces scaled_dot_product_attention over a padded batch with its mask. What computes it:

    bf16, fp16, no dropout   torch.nn.attention.varlen.varlen_attn
    bf16, fp16               the same kernel as torch has it beneath, which also drops probabilities
                             (FlashAttention-2, Dao 2023, arXiv:2307.08691)
    fp32, older GPUs         the memory-efficient kernel (Rabe and Staats 2021, arXiv:2112.05682)
    anything else            scaled_dot_product_attention, padded for the attention alone

Where texts begin and how long the longest is comes from the layout, which the host made. The
dropout is that of the kernels: drawn from torch's generator for the device, seeded by the engine.
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface, AttentionMaskInterface

from models.fast.layout import Layout, insert_prefix
from models.methods.prefixed import Prefix

NAME = "openloop_varlen"


@cache
def has_flash(index: int | None) -> bool:
    """Whether the GPU has the matrix units that FlashAttention-2 needs: from Ampere on."""
    return torch.version.hip is None and torch.cuda.get_device_capability(index) >= (8, 0)


def kernel_of(q: Tensor) -> str:
    """The kernel for q (N, H, D): "flash", "efficient" or "padded"."""
    if q.device.type != "cuda" or q.shape[-1] % 8 or q.shape[-1] > 256:
        return "padded"
    return "flash" if q.dtype != torch.float32 and has_flash(q.device.index) else "efficient"


def attend_varlen(
    q: Tensor, k: Tensor, v: Tensor, layout: Layout, first_only: bool, scale: float, dropout: float
) -> Tensor:
    """Attention within the texts of a stream, the filling being one: q, k, v (N, H, D), of any one
    dtype, -> (N, H, D). With `first_only` q holds each text's first token alone, (M, H, D) ->
    (M, H, D). k and v may have a prefix, (N + M P, H, D)."""
    kernel = kernel_of(q)
    if kernel == "padded":
        return attend_padded(q, k, v, layout, first_only, scale, dropout)
    most, query_ends = (1, layout.counts) if first_only else (layout.longest, layout.ends)
    keys = layout if layout.keys is None else layout.keys
    longest, ends = keys.longest, keys.ends
    if kernel == "efficient":
        q, k, v = (t.unsqueeze(0) for t in (q, k, v))  # (1, N, H, D)
        out, *_ = torch.ops.aten._efficient_attention_forward(
            q, k, v, None, query_ends, ends, most, longest, dropout, 0, True, scale=scale
        )
        return out.squeeze(0)
    if dropout == 0 and scale == q.shape[-1] ** -0.5:
        varlen = varlen_attn(q, k, v, query_ends, ends, most, longest)
        assert isinstance(varlen, Tensor)  # no more is asked for
        return varlen
    out, *_ = torch.ops.aten._flash_attention_forward(
        q, k, v, query_ends, ends, most, longest, dropout, False, False, scale=scale
    )
    return out


def attend_padded(
    q: Tensor, k: Tensor, v: Tensor, layout: Layout, first_only: bool, scale: float, dropout: float
) -> Tensor:
    """The same by scaled_dot_product_attention: padded for it, and out of the padding again."""
    keys = layout if layout.keys is None else layout.keys
    place = torch.arange(keys.longest, device=q.device)
    lengths = keys.ends.diff().unsqueeze(1)  # (M, 1), the filling's at the end
    mask = (place < lengths)[:, None, None, :]  # (M, 1, 1, P + T)
    index = (keys.firsts.unsqueeze(1) + place).clamp(max=k.shape[0] - 1)  # (M, P + T)
    rows = layout.firsts.unsqueeze(1) + place[: layout.longest]
    queries = q.unsqueeze(1) if first_only else q[rows.clamp(max=q.shape[0] - 1)]  # (M, T, H, D)
    out = F.scaled_dot_product_attention(
        queries.transpose(1, 2), k[index].transpose(1, 2), v[index].transpose(1, 2),
        mask, dropout, scale=scale,
    ).transpose(1, 2)  # (M, T, H, D)  # fmt: skip
    if first_only:
        return out.squeeze(1)
    text = torch.searchsorted(layout.ends[1:].contiguous(), place_of(q), right=True)  # (N,)
    return out[text, place_of(q) - layout.firsts[text]]


def place_of(q: Tensor) -> Tensor:
    """(N,) int32: the place of each token in its stream."""
    return torch.arange(q.shape[0], dtype=torch.int32, device=q.device)


def register() -> str:
    """Make transformers know this attention; returns its name there."""

    def attention(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor,
        attention_mask: Tensor | None, scaling: float | None = None, dropout: float = 0.0,
        layout: Layout | None = None, **others: Any,
    ) -> tuple[Tensor, None]:  # fmt: skip
        """query, key, value (B, H, T, D), B 1 with a layout; attention_mask (B, T) or None
        -> (B, T, H, D)."""
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        prefix: Prefix | None = getattr(module, "prefix", None)
        if layout is None:  # a padded batch
            if prefix is not None:
                key, value = prefix.put_before(key, value)
                attention_mask = prefix.lengthen(attention_mask)
            mask = None if attention_mask is None else attention_mask[:, None, None, :].bool()
            out = F.scaled_dot_product_attention(query, key, value, mask, dropout, scale=scale)
            return out.transpose(1, 2).contiguous(), None
        q, k, v = (t.squeeze(0).transpose(0, 1) for t in (query, key, value))  # (N, H, D)
        if prefix is not None:
            k, v = insert_prefix(prefix, k, v, layout)
        return attend_varlen(q, k, v, layout, False, scale, dropout).unsqueeze(0), None

    def mask(attention_mask: Tensor | None = None, **others: Any) -> Tensor | None:
        """The (B, T) mask as it is: without a question to the device."""
        return attention_mask

    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, mask)
    return NAME
