"""Attention over each text of a batch on its own: no arithmetic on padding, no T x T left behind.

Replaces scaled_dot_product_attention on the CPU, whose dropout draws serial random numbers and
whose bf16 backward takes half of a dropout-free step. The scores of a text stay in cache between
two matrix products; only the log of each row's sum is kept, and the backward pass works the
probabilities out again from it (Dao et al. 2022, arXiv:2205.14135, Algorithm 4). Dropout masks
come from masks.py, the work itself is kernels.py's or attention.cpp's. Gain: see
benchmarks/ablation.md.

Registered with transformers under "openloop_plain" and "openloop_native", each with a mask
function of the same name: without one, transformers passes no mask, and padding is attended.
"""

from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from transformers import AttentionInterface, AttentionMaskInterface

from models.fast.cpu.kernels import Kernels, Spans, Texts
from models.fast.cpu.masks import PLACES, Draw, make_draw
from models.fast.layout import Layout, insert_prefix
from models.methods.prefixed import Prefix


class SpanAttention(torch.autograd.Function):
    """softmax(scale * Q K^T) V of each text; q (M, H, D), k and v (N, H, D) -> (M, H, D).

    Queries outside every span get zeros.
    """

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, texts: Texts, scale: float,
        draw: Draw | None, kernels: Kernels,
    ) -> Tensor:  # fmt: skip
        with torch.autocast("cpu", enabled=False):
            out, lse = kernels.attend(q, k, v, texts, scale, draw)
        ctx.save_for_backward(q, k, v, lse)
        ctx.rest = (texts, scale, draw, kernels)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple:
        q, k, v, lse = ctx.saved_tensors
        texts, scale, draw, kernels = ctx.rest
        with torch.autocast("cpu", enabled=False):
            needs = ctx.needs_input_grad[:3]
            grads = kernels.attend_backward(q, k, v, grad, lse, texts, scale, draw, needs)
        return (*grads, None, None, None, None)


def attend(
    q: Tensor, k: Tensor, v: Tensor, spans: Spans, scale: float, dropout: float, kernels: Kernels,
    queries: Spans | None = None,
) -> Tensor:  # fmt: skip
    """Attention within each span, with dropout of the probabilities. q (M, H, D), k and v (N, H, D)
    -> (M, H, D). `queries`: where the first queries of each text lie in q; None: all of them, where
    its keys lie in k."""
    texts, draw = Texts(spans, spans if queries is None else queries), None
    if round(dropout * 65536) > 0 and spans:
        longest = max(stop - start for start, stop in spans)
        draw = make_draw(dropout, row_ids(texts.queries, q.shape[0], q.shape[1]), longest)
    if not torch.is_grad_enabled():
        with torch.autocast("cpu", enabled=False):
            return kernels.attend(q, k, v, texts, scale, draw)[0]
    return SpanAttention.apply(q, k, v, texts, scale, draw, kernels)


def attend_stream(
    q: Tensor, k: Tensor, v: Tensor, layout: Layout, first_only: bool, scale: float,
    dropout: float, kernels: Kernels,
) -> Tensor:  # fmt: skip
    """Attention within the texts of a stream: q, k, v (N, H, D) -> (N, H, D); with `first_only` q
    holds the first token of each text alone, (M, H, D) -> (M, H, D). k and v may have a prefix,
    (N + M P, H, D). The filling gets zeros."""
    queries = layout.spans
    if first_only:
        counts = accumulate((int(end > start) for start, end in layout.spans), initial=0)
        queries = list(pairwise(counts))
    keys = layout.spans if layout.keys is None else layout.keys.spans
    return attend(q, k, v, keys, scale, dropout, kernels, queries)


def row_ids(spans: Spans, tokens: int, heads: int) -> Tensor:
    """int64 (H, N): text, head and position of each query, whatever the layout."""
    ids = torch.zeros(tokens, dtype=torch.int64)
    for row, (start, stop) in enumerate(spans):
        ids[start:stop] = torch.arange(row * PLACES, row * PLACES + stop - start)
    return torch.arange(heads).unsqueeze(1) * (PLACES << 20) + ids


def spans_of(mask: Tensor) -> Spans | None:
    """mask (B, T) -> where each row's real tokens lie in the flattened batch; None where the real
    tokens of a row do not stand together."""
    rows, width = mask.shape
    lengths = mask.sum(1).tolist()
    firsts = mask.int().argmax(1).tolist()
    places = list(zip(range(rows), firsts, lengths, strict=True))
    if not all(bool(mask[b, f : f + n].all()) for b, f, n in places):
        return None
    return [(b * width + f, b * width + f + n) for b, f, n in places]


def register(kernels: Kernels) -> str:
    """Make transformers know attention with these kernels; returns its name there."""

    def attention(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor,
        attention_mask: Tensor | None, scaling: float | None = None, dropout: float = 0.0,
        layout: Layout | None = None, **others: Any,
    ) -> tuple[Tensor, None]:  # fmt: skip
        """query, key, value (B, H, T, D); attention_mask (B, T) or None -> (B, T, H, D)."""
        batch, heads, width, size = query.shape
        scale = size**-0.5 if scaling is None else scaling
        prefix: Prefix | None = getattr(module, "prefix", None)
        if layout is not None:  # a stream of texts: B is 1
            q, k, v = (t.squeeze(0).transpose(0, 1) for t in (query, key, value))  # (N, H, D)
            if prefix is not None:
                k, v = insert_prefix(prefix, k, v, layout)
            return attend_stream(q, k, v, layout, False, scale, dropout, kernels).unsqueeze(0), None
        whole = attention_mask
        if prefix is not None:
            key, value = prefix.put_before(key, value)
            whole = prefix.lengthen(attention_mask)
        longer = key.shape[2]  # P + T
        if attention_mask is None:
            spans: Spans | None = [(b * longer, (b + 1) * longer) for b in range(batch)]
            queries: Spans | None = [(b * width, (b + 1) * width) for b in range(batch)]
        else:
            assert whole is not None
            spans, queries = spans_of(whole), spans_of(attention_mask)
        if spans is None or queries is None:  # real tokens with gaps between them: stock, masked
            assert whole is not None
            out = F.scaled_dot_product_attention(
                query, key, value, whole[:, None, None, :], dropout, scale=scale
            )
            return out.transpose(1, 2).contiguous(), None
        q, k, v = (t.transpose(1, 2).flatten(0, 1) for t in (query, key, value))  # (N, H, D)
        out = attend(q, k, v, spans, scale, dropout, kernels, queries)
        return out.view(batch, width, heads, size), None

    def mask(attention_mask: Tensor | None = None, **others: Any) -> Tensor | None:
        """The (B, T) mask as it is: the attention above reads each row's length from it."""
        return attention_mask

    name = f"openloop_{kernels.name}"
    AttentionInterface.register(name, attention)
    AttentionMaskInterface.register(name, mask)
    return name
