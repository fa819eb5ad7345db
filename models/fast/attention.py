"""Attention over each text of a batch on its own: no arithmetic on padding, no T x T left behind.

Replaces scaled_dot_product_attention on the CPU, whose dropout draws serial random numbers and
whose bf16 backward takes half of a dropout-free step. A text's scores (H, T, T) stay in cache
between two matrix products; only the log of each row's sum is kept, and the backward pass works
the probabilities out again from it (Dao et al. 2022, arXiv:2205.14135, Algorithm 4). Dropout masks
come from masks.py. Gain: see benchmarks/ablation.md.

Registered with transformers under "openloop_plain" and "openloop_native", each with a mask
function of the same name: without one, transformers passes no mask, and padding is attended.
"""

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from transformers import AttentionInterface, AttentionMaskInterface

from models.fast.kernels import Kernels
from models.fast.masks import PLACES, Draw, make_draw

Spans = list[tuple[int, int]]
SCRATCH = 1 << 20  # scores in one block of heads: 4 MiB of fp32


class SpanAttention(torch.autograd.Function):
    """softmax(scale * Q K^T) V over each span of tokens; q, k, v (N, H, D) -> (N, H, D).

    Tokens outside every span get zeros.
    """

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, spans: Spans, scale: float,
        draw: Draw | None, kernels: Kernels,
    ) -> Tensor:  # fmt: skip
        out = q.new_zeros(q.shape)  # (N, H, D)
        lse = q.new_empty(q.shape[1], q.shape[0], dtype=torch.float32)  # (H, N)
        with torch.autocast("cpu", enabled=False):
            for tokens, heads in blocks(spans, q.shape[1]):
                Q, K, V = (wide(t[tokens, heads]) for t in (q, k, v))  # (h, T, D) fp32
                scores = torch.bmm(Q, K.mT)  # (h, T, T)
                part = draw_part(draw, heads, tokens)
                kept = kernels.softmax_drop(scores, lse[heads, tokens], scale, part)
                out[tokens, heads] = torch.bmm(kept, V).transpose(0, 1)
        ctx.save_for_backward(q, k, v, lse)
        ctx.rest = (spans, scale, draw, kernels)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple:
        q, k, v, lse = ctx.saved_tensors
        spans, scale, draw, kernels = ctx.rest
        needs = ctx.needs_input_grad[:3]
        dq, dk, dv = (
            t.new_zeros(t.shape) if n else None for t, n in zip((q, k, v), needs, strict=True)
        )
        with torch.autocast("cpu", enabled=False):
            for tokens, heads in blocks(spans, q.shape[1]):
                Q, K, V, G = (t[tokens, heads].transpose(0, 1) for t in (q, k, v, grad))
                scores = torch.bmm(Q.float(), K.float().mT)  # (h, T, T)
                grad_kept = torch.bmm(G.float(), V.float().mT)
                kept, grad_scores = kernels.softmax_drop_backward(
                    scores, grad_kept, lse[heads, tokens], scale,
                    draw_part(draw, heads, tokens), q.dtype,
                )  # fmt: skip
                if dq is not None:
                    dq[tokens, heads] = torch.bmm(grad_scores, K).transpose(0, 1)
                if dk is not None:
                    dk[tokens, heads] = torch.bmm(grad_scores.mT, Q).transpose(0, 1)
                if dv is not None:
                    dv[tokens, heads] = torch.bmm(kept.mT, G).transpose(0, 1)
        return dq, dk, dv, None, None, None, None


def wide(x: Tensor) -> Tensor:
    """(T, h, D) -> (h, T, D) in fp32."""
    return x.transpose(0, 1).float()


def blocks(spans: Spans, heads: int) -> list[tuple[slice, slice]]:
    """(tokens, heads) of each piece of work: one text, and as many heads as stay in cache."""
    found = []
    for start, stop in spans:
        step = max(1, min(heads, SCRATCH // max(1, (stop - start) ** 2)))
        for first in range(0, heads, step):
            found.append((slice(start, stop), slice(first, min(heads, first + step))))
    return found


def draw_part(draw: Draw | None, heads: slice, tokens: slice) -> Draw | None:
    """The draw of one block: rows (h, T) of (H, N)."""
    if draw is None:
        return None
    return Draw(draw.rows[heads, tokens], draw.columns, draw.threshold, draw.scale)


def attend(
    q: Tensor, k: Tensor, v: Tensor, spans: Spans, scale: float, dropout: float, kernels: Kernels
) -> Tensor:
    """Attention within each span, with dropout of the probabilities. (N, H, D) -> (N, H, D)."""
    draw = None
    if round(dropout * 65536) > 0 and spans:
        longest = max(stop - start for start, stop in spans)
        draw = make_draw(dropout, row_ids(spans, q.shape[0], q.shape[1]), longest)
    return SpanAttention.apply(q, k, v, spans, scale, draw, kernels)


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
        cu_seq_lens_q: Tensor | None = None, **others: Any,
    ) -> tuple[Tensor, None]:  # fmt: skip
        """query, key, value (B, H, T, D); attention_mask (B, T) or None -> (B, T, H, D)."""
        batch, heads, width, size = query.shape
        scale = size**-0.5 if scaling is None else scaling
        if cu_seq_lens_q is not None:  # a stream of texts: B is 1
            ends = cu_seq_lens_q.tolist()
            spans: Spans | None = list(pairwise(ends))
        elif attention_mask is None:
            spans = [(b * width, (b + 1) * width) for b in range(batch)]
        else:
            spans = spans_of(attention_mask)
        if spans is None:  # real tokens with gaps between them: the stock function, masked
            assert attention_mask is not None
            out = F.scaled_dot_product_attention(
                query, key, value, attention_mask[:, None, None, :], dropout, scale=scale
            )
            return out.transpose(1, 2).contiguous(), None
        q, k, v = (t.transpose(1, 2).flatten(0, 1) for t in (query, key, value))  # (N, H, D)
        out = attend(q, k, v, spans, scale, dropout, kernels)
        return out.view(batch, width, heads, size), None

    def mask(attention_mask: Tensor | None = None, **others: Any) -> Tensor | None:
        """The (B, T) mask as it is: the attention above reads each row's length from it."""
        return attention_mask

    name = f"openloop_{kernels.name}"
    AttentionInterface.register(name, attention)
    AttentionMaskInterface.register(name, mask)
    return name
