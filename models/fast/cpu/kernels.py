"""The work of the fast paths in plain torch: the default where nothing is compiled.

native.py has the same functions compiled; a parity test ties each pair. Scores are fp32 in either
precision: rounded to bf16 they would lose more than scaled_dot_product_attention does.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from models.fast.cpu.masks import Draw, keep_bits

Spans = list[tuple[int, int]]  # first and end of each text
Needs = tuple[bool, bool, bool]  # whose gradient is queries for: q, k, v
SCRATCH = 1 << 20  # scores in one block of heads: 4 MiB of fp32


@dataclass(frozen=True)
class Texts:
    """Where each text lies: its keys and values, and its queries, which may be fewer; where there
    are keys there is a query."""

    spans: Spans
    queries: Spans


class Kernels(Protocol):
    """What attention.py and dropout.py ask of PlainKernels and NativeKernels."""

    name: str
    version: str  # what "the same bits" depends on

    def drop(self, x: Tensor, draw: Draw) -> Tensor: ...

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, texts: Texts, scale: float, draw: Draw | None
    ) -> tuple[Tensor, Tensor]: ...

    def attend_backward(
        self, q: Tensor, k: Tensor, v: Tensor, grad: Tensor, lse: Tensor, texts: Texts,
        scale: float, draw: Draw | None, needs: Needs,
    ) -> list[Tensor | None]: ...  # fmt: skip


class PlainKernels:
    """Plain torch."""

    name = version = "plain"

    def drop(self, x: Tensor, draw: Draw) -> Tensor:
        """Dropout of x (..., C), fp32 or bf16; `draw.rows` has the leading shape of x."""
        return drop_(x.to(torch.float32, copy=True), draw).to(x.dtype)

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, texts: Texts, scale: float, draw: Draw | None
    ) -> tuple[Tensor, Tensor]:
        """Dropped softmax(scale * Q K^T) V of each text; q (M, H, D), k and v (N, H, D), draw.rows
        (H, M).

        Returns out (M, H, D), with zeros outside every span, and lse (H, M): the log of the sum
        that each query's softmax divides by, for a backward pass that starts from it; this one
        makes the softmax again and leaves lse unwritten.
        """
        out = q.new_zeros(q.shape)
        lse = q.new_empty(q.shape[1], q.shape[0], dtype=torch.float32)
        for queries, tokens, heads in blocks(texts, q.shape[1]):
            Q = q[queries, heads].transpose(0, 1).float()  # (h, M, D)
            K, V = (t[tokens, heads].transpose(0, 1).float() for t in (k, v))  # (h, T, D)
            scores = torch.bmm(Q, K.mT).mul_(scale)  # (h, M, T)
            p = torch.softmax(scores, -1)
            kept = p if draw is None else drop_(p, draw_part(draw, heads, queries))
            out[queries, heads] = torch.bmm(kept, V).transpose(0, 1).to(out.dtype)
        return out, lse

    def attend_backward(
        self, q: Tensor, k: Tensor, v: Tensor, grad: Tensor, lse: Tensor, texts: Texts,
        scale: float, draw: Draw | None, needs: Needs,
    ) -> list[Tensor | None]:  # fmt: skip
        """Gradients of q, k and v, each in its shape, from that of out; None where `needs` says so.

        With P the probabilities and M the scaled mask:
        dS = scale * P * (M * dP - sum(P * M * dP)).
        """
        grads = dq, dk, dv = empty_grads([q, k, v], texts, needs)
        for queries, tokens, heads in blocks(texts, q.shape[1]):
            Q, G = (t[queries, heads].transpose(0, 1).float() for t in (q, grad))  # (h, M, D)
            K, V = (t[tokens, heads].transpose(0, 1).float() for t in (k, v))  # (h, T, D)
            # softmax again: exp alone takes plain torch four times as long
            p = torch.softmax(torch.bmm(Q, K.mT).mul_(scale), -1)  # (h, M, T)
            grad_p, kept = torch.bmm(G, V.mT), p
            if draw is not None:
                part = draw_part(draw, heads, queries)
                kept, grad_p = drop_(p.clone(), part), drop_(grad_p, part)
            total = (p * grad_p).sum(-1, keepdim=True)
            grad_scores = grad_p.sub_(total).mul_(p).mul_(scale)
            if dq is not None:
                dq[queries, heads] = torch.bmm(grad_scores, K).transpose(0, 1).to(q.dtype)
            if dk is not None:
                dk[tokens, heads] = torch.bmm(grad_scores.mT, Q).transpose(0, 1).to(q.dtype)
            if dv is not None:
                dv[tokens, heads] = torch.bmm(kept.mT, G).transpose(0, 1).to(q.dtype)
        return grads


def empty_grads(inputs: list[Tensor], texts: Texts, needs: Needs) -> list[Tensor | None]:
    """What the gradients of q, k, v (., H, D) are written into: zero outside every text, anything
    inside. Those of one length lie side by side, (., 3, H, D), so that the layers which made q, k
    and v can take them as one matrix (linear.py)."""
    grads: list[Tensor | None] = [None, None, None]
    for length in {len(x) for x in inputs}:
        here = [i for i in range(3) if needs[i] and len(inputs[i]) == length]
        wide = inputs[0].new_empty(length, len(here), *inputs[0].shape[1:])
        for place, i in enumerate(here):
            grads[i] = part = wide[:, place]
            zero_outside(part, texts.spans if i else texts.queries)
    return grads


def zero_outside(x: Tensor, spans: Spans) -> None:
    """Zeros in the rows of x (N, ...) that belong to no span; spans are in order."""
    last = 0
    for start, stop in [*spans, (len(x), len(x))]:
        if start > last:  # in a stream nothing but the filling at its end
            x[last:start] = 0
        last = stop


def drop_(x: Tensor, draw: Draw) -> Tensor:
    """Dropout of fp32 x (..., C), in place; `draw.rows` has the leading shape of x."""
    x.view(torch.int32).bitwise_and_(keep_bits(draw, x.shape[-1]))
    return x.mul_(draw.scale)


def blocks(texts: Texts, heads: int) -> list[tuple[slice, slice, slice]]:
    """(queries, tokens, heads) of each piece of work: a text, as many heads as stay in cache."""
    pieces = []
    for queries, span in zip(texts.queries, texts.spans, strict=True):
        size = (queries[1] - queries[0]) * (span[1] - span[0])
        step = max(1, min(heads, SCRATCH // max(1, size)))
        for first in range(0, heads, step):
            pieces.append((slice(*queries), slice(*span), slice(first, min(heads, first + step))))
    return pieces


def draw_part(draw: Draw, heads: slice, queries: slice) -> Draw:
    """The draw of one block: rows (h, M) of (H, queries)."""
    return Draw(draw.rows[heads, queries], draw.columns, draw.threshold, draw.scale)
