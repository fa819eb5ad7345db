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

from models.fast.cpu.kernels import Kernels, Spans, Texts, Turn
from models.fast.cpu.masks import PLACES, Draw, make_draw
from models.fast.layout import Layout, insert_prefix
from models.fast.masks import keys_or_pairs, pairs_of
from models.methods.prefixed import Prefix


class SpanAttention(torch.autograd.Function):
    """softmax(scale * Q K^T) V of each text; q (M, H, D), k and v (N, G, D) -> (M, H, D).

    Queries outside every span get zeros. With a `turn` q and k are turned first, in their memory,
    and so are their gradients: whoever made them must need them no more.
    """

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, texts: Texts, scale: float,
        draw: Draw | None, turn: Turn | None, kernels: Kernels,
    ) -> Tensor:  # fmt: skip
        with torch.autocast("cpu", enabled=False):
            out, lse = turn_and_attend(q, k, v, texts, scale, draw, turn, kernels)
        ctx.save_for_backward(q, k, v, lse)
        ctx.rest = (texts, scale, draw, turn, kernels)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple:
        q, k, v, lse = ctx.saved_tensors
        texts, scale, draw, turn, kernels = ctx.rest
        with torch.autocast("cpu", enabled=False):
            needs = ctx.needs_input_grad[:3]
            grads = kernels.attend_backward(q, k, v, grad, lse, texts, scale, draw, needs)
            if turn is not None:
                for g in grads[:2]:
                    if g is not None:
                        kernels.rotate(g, turn, True)
        return (*grads, None, None, None, None, None)


def turn_and_attend(
    q: Tensor, k: Tensor, v: Tensor, texts: Texts, scale: float, draw: Draw | None,
    turn: Turn | None, kernels: Kernels,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """As kernels.attend, after q and k are turned in their memory."""
    if turn is not None:
        kernels.rotate(q, turn, False)
        kernels.rotate(k, turn, False)
    return kernels.attend(q, k, v, texts, scale, draw)


def attend(
    q: Tensor, k: Tensor, v: Tensor, spans: Spans, scale: float, dropout: float, kernels: Kernels,
    queries: Spans | None = None, causal: bool = False, turn: Turn | None = None,
) -> Tensor:  # fmt: skip
    """Attention within each span, with dropout of the probabilities. q (M, H, D), k and v (N, G, D)
    -> (M, H, D); H / G heads of queries share one of keys. `queries`: where the first queries of
    each text lie in q; None: all of them, where its keys lie in k. `causal`: the last query sees
    all keys, each before it one less. `turn`: q and k, of the same tokens, are turned first, in
    their memory."""
    q, k = q.to(v.dtype), k.to(v.dtype)  # under autocast rotary positions and norms give fp32
    texts, draw = Texts(spans, spans if queries is None else queries, causal), None
    if round(dropout * 65536) > 0 and spans:
        longest = max(stop - start for start, stop in spans)
        draw = make_draw(dropout, row_ids(texts.queries, q.shape[0], q.shape[1]), longest)
    if not torch.is_grad_enabled():
        with torch.autocast("cpu", enabled=False):
            return turn_and_attend(q, k, v, texts, scale, draw, turn, kernels)[0]
    return SpanAttention.apply(q, k, v, texts, scale, draw, turn, kernels)


def attend_stream(
    q: Tensor, k: Tensor, v: Tensor, layout: Layout, first_only: bool, scale: float,
    dropout: float, kernels: Kernels, causal: bool = False, turn: Turn | None = None,
) -> Tensor:  # fmt: skip
    """Attention within the texts of a stream: q (N, H, D), k, v (N, G, D) -> (N, H, D); with
    `first_only` q holds the first token of each text alone, (M, H, D) -> (M, H, D). k and v may
    have a prefix, (N + M P, G, D). The filling gets zeros. `turn` as attend has it."""
    queries = layout.spans
    if first_only:
        counts = accumulate((int(end > start) for start, end in layout.spans), initial=0)
        queries = list(pairwise(counts))
    keys = layout.spans if layout.keys is None else layout.keys.spans
    return attend(q, k, v, keys, scale, dropout, kernels, queries, causal, turn)


def row_ids(spans: Spans, tokens: int, heads: int) -> Tensor:
    """int64 (H, N): text, head and position of each query, whatever the layout."""
    ids = torch.zeros(tokens, dtype=torch.int64)
    for row, (start, stop) in enumerate(spans):
        ids[start:stop] = torch.arange(row * PLACES, row * PLACES + stop - start)
    return torch.arange(heads).unsqueeze(1) * (PLACES << 20) + ids


def spans_of(mask: Tensor, width: int) -> tuple[Spans, Spans] | None:
    """mask (B, T) of keys, of which the last `width` columns ask too -> where each row's real keys
    lie in the flattened batch, and its real queries in theirs; None where the real keys of a row do
    not stand together. A row without a query has no keys."""
    longer, lengths = mask.shape[1], mask.sum(1).tolist()
    firsts = mask.int().argmax(1).tolist()
    keys, queries = Spans(), Spans()
    for row, (first, length) in enumerate(zip(firsts, lengths, strict=True)):
        if not bool(mask[row, first : first + length].all()):
            return None
        end = first + length
        start = max(first, longer - width)
        here, there = row * longer, (row + 1) * width - longer
        if end <= start:
            keys.append((here, here))
            queries.append((row * width, row * width))
        else:
            keys.append((here + first, here + end))
            queries.append((there + start, there + end))
    return keys, queries


def attend_padded(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, causal: bool, scale: float,
    dropout: float, kernels: Kernels,
) -> Tensor:  # fmt: skip
    """Attention of a padded batch: query (B, H, M, D), key and value (B, G, T, D), of which the
    last M are the queries' own; mask None, (B, T) of the keys or (B, 1, M, T), 1 or true where one
    is read -> (B, M, H, D)."""
    batch, heads, width, size = query.shape
    longer = key.shape[2]
    places: tuple[Spans, Spans] | None = None
    if causal and width == 1:
        pass  # one token after many: here its keys would be copied to be looked at once
    elif mask is None:
        spans, queries = ([(b * n, (b + 1) * n) for b in range(batch)] for n in (longer, width))
        places = spans, queries
    elif mask.dim() == 2:
        places = spans_of(mask, width)
    if places is None:  # stock: real tokens with gaps between them, or a mask of pairs
        if mask is not None and mask.dim() == 2:
            mask = pairs_of(mask, width, causal)
        out = F.scaled_dot_product_attention(
            query, key, value, mask, dropout, scale=scale, enable_gqa=key.shape[1] != heads
        )
        return out.transpose(1, 2).contiguous()
    q, k, v = (t.transpose(1, 2).flatten(0, 1) for t in (query, key, value))  # (N, H, D)
    out = attend(q, k, v, places[0], scale, dropout, kernels, places[1], causal)
    return out.view(batch, width, heads, size)


def register(kernels: Kernels) -> str:
    """Make transformers know attention with these kernels; returns its name there."""

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
        if layout is not None:  # a stream of texts: B is 1
            q, k, v = (t.squeeze(0).transpose(0, 1) for t in (query, key, value))  # (N, H, D)
            if prefix is not None:
                k, v = insert_prefix(prefix, k, v, layout)
            out = attend_stream(q, k, v, layout, False, scale, dropout, kernels, causal)
            return out.unsqueeze(0), None
        if prefix is not None:
            key, value = prefix.put_before(key, value)
            attention_mask = prefix.lengthen(attention_mask)
        out = attend_padded(query, key, value, attention_mask, causal, scale, dropout, kernels)
        return out, None

    name = f"openloop_{kernels.name}"
    AttentionInterface.register(name, attention)
    AttentionMaskInterface.register(name, keys_or_pairs)
    return name
