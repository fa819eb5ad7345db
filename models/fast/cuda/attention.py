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
from models.fast.masks import keys_or_pairs, pairs_of
from models.methods.prefixed import Prefix

NAME = "openloop_varlen"
FROM_THE_END = 2  # of the memory-efficient kernel: the last query sees all keys


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
    q: Tensor, k: Tensor, v: Tensor, layout: Layout, first_only: bool, scale: float, dropout: float,
    causal: bool = False,
) -> Tensor:  # fmt: skip
    """Attention within the texts of a stream, the filling being one: q (N, H, D), k, v (N, G, D),
    -> (N, H, D) in the dtype of v; H / G heads of queries share one of keys. With `first_only` q
    holds each text's first token alone, (M, H, D) -> (M, H, D). k and v may have a prefix,
    (N + M P, G, D). `causal`: the last query of a text sees all its keys, each before it one less.
    """
    q, k = q.to(v.dtype), k.to(v.dtype)  # under autocast rotary positions and norms give fp32
    kernel = kernel_of(q)
    if kernel == "padded":
        return attend_padded(q, k, v, layout, first_only, scale, dropout, causal)
    most, query_ends = (1, layout.counts) if first_only else (layout.longest, layout.ends)
    keys = layout if layout.keys is None else layout.keys
    longest, ends = keys.longest, keys.ends
    if kernel == "efficient":
        k, v = (share_heads(t, q.shape[1]) for t in (k, v))
        q, k, v = (t.unsqueeze(0) for t in (q, k, v))  # (1, N, H, D)
        back = FROM_THE_END if causal else 0
        out, *_ = torch.ops.aten._efficient_attention_forward(
            q, k, v, None, query_ends, ends, most, longest, dropout, back, True, scale=scale
        )
        return out.squeeze(0)
    if dropout == 0 and scale == q.shape[-1] ** -0.5:
        window = (-1, 0) if causal else (-1, -1)
        varlen = varlen_attn(
            q, k, v, query_ends, ends, most, longest, window_size=window,
            enable_gqa=k.shape[1] != q.shape[1],
        )  # fmt: skip
        assert isinstance(varlen, Tensor)  # no more is asked for
        return varlen
    out, *_ = torch.ops.aten._flash_attention_forward(
        q, k, v, query_ends, ends, most, longest, dropout, causal, False, scale=scale
    )
    return out


def share_heads(x: Tensor, heads: int) -> Tensor:
    """Keys or values (N, G, D) for a kernel that wants one head for each of the queries,
    (N, H, D)."""
    return x if x.shape[1] == heads else x.repeat_interleave(heads // x.shape[1], 1)


def attend_padded(
    q: Tensor, k: Tensor, v: Tensor, layout: Layout, first_only: bool, scale: float, dropout: float,
    causal: bool = False,
) -> Tensor:  # fmt: skip
    """The same by scaled_dot_product_attention: padded for it, and out of the padding again."""
    keys = layout if layout.keys is None else layout.keys
    place = torch.arange(keys.longest, device=q.device)
    lengths = keys.ends.diff().unsqueeze(1)  # (M, 1), the filling's at the end
    mask = (place < lengths)[:, None, None, :]  # (M, 1, 1, P + T)
    index = (keys.firsts.unsqueeze(1) + place).clamp(max=k.shape[0] - 1)  # (M, P + T)
    rows = layout.firsts.unsqueeze(1) + place[: layout.longest]
    queries = q.unsqueeze(1) if first_only else q[rows.clamp(max=q.shape[0] - 1)]  # (M, T, H, D)
    if causal:
        before = keys.longest - layout.longest  # of a prefix, which all see
        count = queries.shape[1]
        mask = mask & (place <= place[:count].unsqueeze(1) + before)  # (M, 1, T, P + T)
    out = F.scaled_dot_product_attention(
        queries.transpose(1, 2), k[index].transpose(1, 2), v[index].transpose(1, 2),
        mask, dropout, scale=scale, enable_gqa=k.shape[1] != q.shape[1],
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
        """query (B, H, M, D), key and value (B, G, T, D), B 1 with a layout; attention_mask as
        keys_or_pairs gives it -> (B, M, H, D)."""
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        causal = bool(getattr(module, "is_causal", False))
        prefix: Prefix | None = getattr(module, "prefix", None)
        if layout is None:  # a padded batch
            if prefix is not None:
                key, value = prefix.put_before(key, value)
                attention_mask = prefix.lengthen(attention_mask)
            mask, width = attention_mask, query.shape[2]
            if mask is not None and mask.dim() == 2:
                mask = pairs_of(mask, width, causal)
            # of fewer queries than keys torch thinks that they stand at the first ones
            elif mask is None and causal and width > 1 and width != key.shape[2]:
                mask = pairs_of(key.new_ones(1, key.shape[2]), width, causal)
            out = F.scaled_dot_product_attention(
                query, key, value, mask, dropout, mask is None and causal and width > 1,
                scale=scale, enable_gqa=key.shape[1] != query.shape[1],
            )  # fmt: skip
            return out.transpose(1, 2).contiguous(), None
        q, k, v = (t.squeeze(0).transpose(0, 1) for t in (query, key, value))  # (N, H, D)
        if prefix is not None:
            k, v = insert_prefix(prefix, k, v, layout)
        return attend_varlen(q, k, v, layout, False, scale, dropout, causal).unsqueeze(0), None

    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, keys_or_pairs)
    return NAME
