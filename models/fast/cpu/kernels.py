"""The work of the fast paths in plain torch: the default where nothing is compiled.

native.py has the same functions compiled; a parity test ties each pair. Scores are fp32 in either
precision: rounded to bf16 they would lose more than scaled_dot_product_attention does.
"""

from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from models.fast.cpu.masks import Draw, keep_bits

Spans = list[tuple[int, int]]  # first and end of each text
Needs = tuple[bool, bool, bool]  # whose gradient is queries for: q, k, v
SCRATCH = 1 << 20  # scores in one block of heads: 4 MiB of fp32
AHEAD = 128  # queries that are worked on together where each looks back only


@dataclass(frozen=True)
class Texts:
    """Where each text lies: its keys and values, and its queries, which may be fewer; where there
    are keys there is a query. Of a `causal` one the last query looks at all keys, each before it at
    one less."""

    spans: Spans
    queries: Spans
    causal: bool = False


class Turn(NamedTuple):
    """cos and sin (N, D), fp32, by which each token's queries and keys are turned."""

    cos: Tensor
    sin: Tensor


class Kernels(Protocol):
    """What attention.py and dropout.py ask of PlainKernels and NativeKernels."""

    name: str
    version: str  # what "the same bits" depends on

    def drop(self, x: Tensor, draw: Draw) -> Tensor: ...

    def rotate(self, x: Tensor, turn: Turn, back: bool) -> None: ...

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

    def rotate(self, x: Tensor, turn: Turn, back: bool) -> None:
        """Turn x (N, H, D) in place: each pair of elements half a head apart (Su et al. 2021,
        arXiv:2104.09864); `back`: by the transpose, as a gradient is."""
        cos, sin = (t.unsqueeze(1).chunk(2, -1) for t in turn)  # (N, 1, D / 2) twice each
        first, second = x.float().chunk(2, -1)
        if back:
            turned = first * cos[0] + second * sin[1], second * cos[1] - first * sin[0]
        else:
            turned = first * cos[0] - second * sin[0], second * cos[1] + first * sin[1]
        x.copy_(torch.cat(turned, -1))

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, texts: Texts, scale: float, draw: Draw | None
    ) -> tuple[Tensor, Tensor]:
        """Dropped softmax(scale * Q K^T) V of each text; q (M, H, D), k and v (N, G, D) for H / G
        heads of queries each, draw.rows (H, M).

        Returns out (M, H, D), with zeros outside every span, and lse (H, M): the log of the sum
        that each query's softmax divides by, for a backward pass that starts from it; this one
        makes the softmax again and leaves lse unwritten.
        """
        out, shared = q.new_zeros(q.shape), q.shape[1] // k.shape[1]
        lse = q.new_empty(q.shape[1], q.shape[0], dtype=torch.float32)
        for queries, tokens, heads in blocks(texts, q.shape[1], shared):
            K, V = (grouped(t, tokens, heads, shared) for t in (k, v))  # (g, T, D)
            for part, keys in steps(queries, tokens, texts.causal):
                Q = stacked(q, part, heads, len(K))  # (g, h M, D), of the h heads that share one
                p = probabilities(Q, K[:, :keys], scale, part, texts.causal)  # (g, h M, T)
                if draw is not None:
                    drop_(p.view(-1, part.stop - part.start, keys), draw_part(draw, heads, part))
                out[part, heads] = unstacked(torch.bmm(p, V[:, :keys]), part).to(out.dtype)
        return out, lse

    def attend_backward(
        self, q: Tensor, k: Tensor, v: Tensor, grad: Tensor, lse: Tensor, texts: Texts,
        scale: float, draw: Draw | None, needs: Needs,
    ) -> list[Tensor | None]:  # fmt: skip
        """Gradients of q, k and v, each in its shape, from that of out; None where `needs` says so.

        With P the probabilities and M the scaled mask:
        dS = scale * P * (M * dP - sum(P * M * dP)).
        """
        shared = q.shape[1] // k.shape[1]
        grads = dq, dk, dv = empty_grads([q, k, v], texts, needs)
        for queries, tokens, heads in blocks(texts, q.shape[1], shared):
            K, V = (grouped(t, tokens, heads, shared) for t in (k, v))  # (g, T, D)
            sum_k, sum_v = torch.zeros_like(K), torch.zeros_like(V)
            for part, keys in steps(queries, tokens, texts.causal):
                Q, G = (stacked(t, part, heads, len(K)) for t in (q, grad))  # (g, h M, D)
                # softmax again: exp alone takes plain torch four times as long
                p = probabilities(Q, K[:, :keys], scale, part, texts.causal)  # (g, h M, T)
                grad_p, kept = torch.bmm(G, V[:, :keys].mT), p
                if draw is not None:
                    mask, shape = draw_part(draw, heads, part), (-1, part.stop - part.start, keys)
                    kept = p.clone()
                    drop_(kept.view(shape), mask)
                    drop_(grad_p.view(shape), mask)
                total = (p * grad_p).sum(-1, keepdim=True)
                grad_scores = grad_p.sub_(total).mul_(p).mul_(scale)
                if dq is not None:
                    rows = torch.bmm(grad_scores, K[:, :keys])
                    dq[part, heads] = unstacked(rows, part).to(q.dtype)
                if dk is not None:
                    sum_k[:, :keys] += torch.bmm(grad_scores.mT, Q)
                if dv is not None:
                    sum_v[:, :keys] += torch.bmm(kept.mT, G)
            for to, total in ((dk, sum_k), (dv, sum_v)):
                if to is not None:
                    to[tokens, groups_of(heads, shared)] = total.transpose(0, 1).to(to.dtype)
        return grads


def groups_of(heads: slice, shared: int) -> slice:
    """The heads of keys and values that these heads of queries look at."""
    return slice(heads.start // shared, heads.stop // shared)


def grouped(x: Tensor, tokens: slice, heads: slice, shared: int) -> Tensor:
    """Keys or values (N, G, D) of a block, (g, T, D) in fp32."""
    return x[tokens, groups_of(heads, shared)].transpose(0, 1).float()


def stacked(x: Tensor, queries: slice, heads: slice, groups: int) -> Tensor:
    """Queries (M, H, D) of a block, (g, h M, D) in fp32: of heads that share keys one below the
    other."""
    part = x[queries, heads].transpose(0, 1).float()  # (g h, M, D)
    return part.reshape(groups, -1, part.shape[-1])


def unstacked(x: Tensor, queries: slice) -> Tensor:
    """(g, h M, D) -> (M, g h, D)."""
    return x.view(-1, queries.stop - queries.start, x.shape[-1]).transpose(0, 1)


def steps(queries: slice, tokens: slice, causal: bool) -> list[tuple[slice, int]]:
    """The queries of a block that are worked on at once, and how many of its keys they see."""
    keys = tokens.stop - tokens.start
    if not causal:
        return [(queries, keys)]
    firsts = range(queries.start, queries.stop, AHEAD)
    parts = [slice(first, min(queries.stop, first + AHEAD)) for first in firsts]
    return [(part, keys - queries.stop + part.stop) for part in parts]


def probabilities(Q: Tensor, K: Tensor, scale: float, queries: slice, causal: bool) -> Tensor:
    """softmax(scale * Q K^T), Q (g, h M, D) and K (g, T, D) -> (g, h M, T)."""
    scores = torch.bmm(Q, K.mT).mul_(scale)
    if causal:
        rows, keys = queries.stop - queries.start, K.shape[1]
        later = torch.ones(rows, keys, dtype=torch.bool).triu_(keys - rows + 1)
        scores.view(-1, rows, keys).masked_fill_(later, -torch.inf)
    return torch.softmax(scores, -1)


def empty_grads(inputs: list[Tensor], texts: Texts, needs: Needs) -> list[Tensor | None]:
    """What the gradients of q, k, v (., H, D) are written into: zero outside every text, anything
    inside. Those of one length lie side by side, (., 3 H, D), so that the layers which made q, k
    and v can take them as one matrix (linear.py)."""
    grads: list[Tensor | None] = [None, None, None]
    for length in {len(x) for x in inputs}:
        here = [i for i in range(3) if needs[i] and len(inputs[i]) == length]
        ends = [0, *accumulate(inputs[i].shape[1] for i in here)]  # heads
        wide = inputs[0].new_empty(length, ends[-1], inputs[0].shape[2])
        for i, start, stop in zip(here, ends, ends[1:], strict=False):
            grads[i] = part = wide[:, start:stop]
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


def blocks(texts: Texts, heads: int, shared: int = 1) -> list[tuple[slice, slice, slice]]:
    """(queries, tokens, heads) of each piece of work: a text, as many heads as stay in cache, and
    all that share a head of keys."""
    pieces = []
    for queries, span in zip(texts.queries, texts.spans, strict=True):
        size = (queries[1] - queries[0]) * (span[1] - span[0])
        step = max(1, min(heads, SCRATCH // max(1, size)) // shared) * shared
        for first in range(0, heads if size else 0, step):
            pieces.append((slice(*queries), slice(*span), slice(first, min(heads, first + step))))
    return pieces


def draw_part(draw: Draw, heads: slice, queries: slice) -> Draw:
    """The draw of one block: rows (h, M) of (H, queries)."""
    return Draw(draw.rows[heads, queries], draw.columns, draw.threshold, draw.scale)
