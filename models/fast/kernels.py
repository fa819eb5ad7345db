"""The work of the fast paths in plain torch: the default where nothing is compiled.

native.py has the same functions compiled; a parity test ties each pair. Scores are fp32 in either
precision: rounded to bf16 they would lose more than scaled_dot_product_attention does.
"""

from typing import Protocol

import torch
from torch import Tensor

from models.fast.masks import Draw, keep_bits

Spans = list[tuple[int, int]]  # first token and end of each text
Needs = tuple[bool, bool, bool]  # whose gradient is asked for: q, k, v
SCRATCH = 1 << 20  # scores in one block of heads: 4 MiB of fp32


class Kernels(Protocol):
    """What attention.py and dropout.py ask of PlainKernels and NativeKernels."""

    name: str
    version: str  # what "the same bits" depends on

    def drop(self, x: Tensor, draw: Draw) -> Tensor: ...

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, spans: Spans, scale: float, draw: Draw | None
    ) -> tuple[Tensor, Tensor]: ...

    def attend_backward(
        self, q: Tensor, k: Tensor, v: Tensor, grad: Tensor, lse: Tensor, spans: Spans,
        scale: float, draw: Draw | None, needs: Needs,
    ) -> list[Tensor | None]: ...  # fmt: skip


class PlainKernels:
    """Plain torch."""

    name = version = "plain"

    def drop(self, x: Tensor, draw: Draw) -> Tensor:
        """Dropout of x (..., C), fp32 or bf16; `draw.rows` has the leading shape of x."""
        return drop_(x.to(torch.float32, copy=True), draw).to(x.dtype)

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, spans: Spans, scale: float, draw: Draw | None
    ) -> tuple[Tensor, Tensor]:
        """Dropped softmax(scale * Q K^T) V over each span; q, k, v (N, H, D), draw.rows (H, N).

        Returns out (N, H, D), with zeros outside every span, and lse (H, N): the log of the sum
        that each query's softmax divides by, for a backward pass that starts from it; this one
        makes the softmax again and leaves lse unwritten.
        """
        out = q.new_zeros(q.shape)
        lse = q.new_empty(q.shape[1], q.shape[0], dtype=torch.float32)
        for tokens, heads in blocks(spans, q.shape[1]):
            Q, K, V = (t[tokens, heads].transpose(0, 1).float() for t in (q, k, v))  # (h, T, D)
            scores = torch.bmm(Q, K.mT).mul_(scale)  # (h, T, T)
            p = torch.softmax(scores, -1)
            kept = p if draw is None else drop_(p, draw_part(draw, heads, tokens))
            out[tokens, heads] = torch.bmm(kept, V).transpose(0, 1).to(out.dtype)
        return out, lse

    def attend_backward(
        self, q: Tensor, k: Tensor, v: Tensor, grad: Tensor, lse: Tensor, spans: Spans,
        scale: float, draw: Draw | None, needs: Needs,
    ) -> list[Tensor | None]:  # fmt: skip
        """Gradients of q, k and v, (N, H, D) each, from that of out; None where `needs` says so.

        With P the probabilities and M the scaled mask:
        dS = scale * P * (M * dP - sum(P * M * dP)).
        """
        found = [q.new_zeros(q.shape) if need else None for need in needs]
        dq, dk, dv = found
        for tokens, heads in blocks(spans, q.shape[1]):
            Q, K, V, G = (t[tokens, heads].transpose(0, 1).float() for t in (q, k, v, grad))
            # softmax again: exp alone takes plain torch four times as long
            p = torch.softmax(torch.bmm(Q, K.mT).mul_(scale), -1)  # (h, T, T)
            grad_p, kept = torch.bmm(G, V.mT), p
            if draw is not None:
                part = draw_part(draw, heads, tokens)
                kept, grad_p = drop_(p.clone(), part), drop_(grad_p, part)
            total = (p * grad_p).sum(-1, keepdim=True)
            grad_scores = grad_p.sub_(total).mul_(p).mul_(scale)
            if dq is not None:
                dq[tokens, heads] = torch.bmm(grad_scores, K).transpose(0, 1).to(q.dtype)
            if dk is not None:
                dk[tokens, heads] = torch.bmm(grad_scores.mT, Q).transpose(0, 1).to(q.dtype)
            if dv is not None:
                dv[tokens, heads] = torch.bmm(kept.mT, G).transpose(0, 1).to(q.dtype)
        return found


def drop_(x: Tensor, draw: Draw) -> Tensor:
    """Dropout of fp32 x (..., C), in place; `draw.rows` has the leading shape of x."""
    x.view(torch.int32).bitwise_and_(keep_bits(draw, x.shape[-1]))
    return x.mul_(draw.scale)


def blocks(spans: Spans, heads: int) -> list[tuple[slice, slice]]:
    """(tokens, heads) of each piece of work: one text, and as many heads as stay in cache."""
    found = []
    for start, stop in spans:
        step = max(1, min(heads, SCRATCH // max(1, (stop - start) ** 2)))
        for first in range(0, heads, step):
            found.append((slice(start, stop), slice(first, min(heads, first + step))))
    return found


def draw_part(draw: Draw, heads: slice, tokens: slice) -> Draw:
    """The draw of one block: rows (h, T) of (H, N)."""
    return Draw(draw.rows[heads, tokens], draw.columns, draw.threshold, draw.scale)
