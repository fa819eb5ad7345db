"""The loss of a language model, which never holds the whole logits (n, V).

    hidden (n, D) ── a chunk of rows ── logits (c, V) ── loss, and the gradient of the logits
                                                            │
               gradients to hidden (n, D) and, where it learns, to weight (V, D)

All of that happens in the forward pass, a chunk at a time: the gradient needs the same logits, and
to work them out again in the backward pass is one more product of three (of two where the weight is
frozen). The backward pass only multiplies by the gradient of the sum. Nothing here knows what the
tokens say, nor whose model it is.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from engine.losses import IGNORE

CELLS = 2**25  # logits that are held at once: 128 MiB of fp32


def token_losses(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    softcap: float | None = None,
    scale: float = 1.0,
    chunk: int | None = None,
    smoothing: float = 0.0,
) -> Tensor:
    """Sum of cross-entropies, () in fp32 or float64, of the logits (n, V)

        softcap * tanh(scale * (hidden @ weight.T + bias) / softcap), or without softcap
        scale * (hidden @ weight.T + bias)

    against targets (n,) int64, each below V. hidden (n, D), weight (V, D), bias (V,). Rows that are
    not learned are no rows of it: choose_learned leaves them out. Products run in autocast's dtype
    where it is on; sums over the vocabulary and over chunks in fp32 or more. `smoothing` as
    F.cross_entropy has it. `chunk` rows are worked on at once, by default as many as CELLS allow.
    """
    if torch.is_grad_enabled() and any(
        t is not None and t.requires_grad for t in (hidden, weight, bias)
    ):
        arguments = (hidden, weight, bias, targets, softcap, scale, chunk, smoothing)
        return _TokenLosses.apply(*arguments)
    return score_tokens(hidden, weight, bias, targets, softcap, scale, chunk, smoothing)[0].sum()


@torch.no_grad()
def score_tokens(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    softcap: float | None = None,
    scale: float = 1.0,
    chunk: int | None = None,
    smoothing: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """(losses (n,), right (n,) bool): of each row its loss, as token_losses adds them up, and
    whether the target is the likeliest token. No gradients."""
    head = _Head(hidden, weight, bias, softcap, scale)
    losses = hidden.new_empty(len(targets), dtype=head.exact)
    right = torch.empty_like(targets, dtype=torch.bool)
    for part in even_chunks(len(targets), len(weight), chunk):
        logits = head.logits(hidden[part])  # (c, V)
        right[part] = logits.argmax(1) == targets[part]
        losses[part] = _exponentiate(logits, targets[part], smoothing)[0]
    return losses, right


def even_chunks(rows: int, vocabulary: int, chunk: int | None = None) -> Iterator[slice]:
    """Slices of so many rows, as even as they come: at most `chunk`, else what CELLS allow."""
    most = chunk or max(1, CELLS // vocabulary)
    pieces = -(-rows // most)
    for piece in range(pieces):
        yield slice(rows * piece // pieces, rows * (piece + 1) // pieces)


def choose_learned(
    hidden: Tensor, labels: Tensor, places: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """(hidden (n, D), targets (n,)) at the labels that are learned, in the order of the rows.
    hidden (B, T, D), labels (B, T) int64, IGNORE where nothing is learned.

    `places` (n,) int64 are their numbers in the flattened labels, on the same device, for who knows
    them from the host: a device that is asked how many they are has to be waited for.
    """
    flat = labels.flatten()
    if places is None:
        places = (flat != IGNORE).nonzero().squeeze(1)
    return hidden.flatten(0, 1).index_select(0, places), flat.index_select(0, places)


class _Head:
    """The output layer with its weight in the dtype of the products."""

    def __init__(
        self, hidden: Tensor, weight: Tensor, bias: Tensor | None, softcap: float | None,
        scale: float,
    ) -> None:  # fmt: skip
        kind = hidden.device.type
        low = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype
        # as autocast has it, float64 stays what it is
        self.dtype = hidden.dtype if hidden.dtype == torch.float64 else low
        self.exact = torch.promote_types(self.dtype, torch.float32)
        self.kind, self.softcap, self.scale = kind, softcap, scale
        self.weight = weight.to(self.dtype)
        self.bias = None if bias is None else bias.to(self.exact)

    def multiply(self, left: Tensor, right: Tensor) -> Tensor:
        """left @ right as `dtype` has it, in at least fp32."""
        with torch.autocast(self.kind, enabled=False):
            return torch.mm(left.to(self.dtype), right.to(self.dtype)).to(self.exact)

    def add_product(self, total: Tensor, left: Tensor, right: Tensor) -> None:
        """total += left @ right; without a tensor between where the dtypes are one."""
        if total.dtype == self.dtype:
            with torch.autocast(self.kind, enabled=False):
                total.addmm_(left, right)
        else:
            total += self.multiply(left, right)

    def logits(self, hidden: Tensor) -> Tensor:
        """(c, D) -> (c, V), a tensor that nobody else has."""
        logits = self.multiply(hidden, self.weight.T)
        if self.bias is not None:
            logits += self.bias
        if self.softcap is not None:
            return logits.mul_(self.scale / self.softcap).tanh_().mul_(self.softcap)
        return logits.mul_(self.scale) if self.scale != 1 else logits


def _exponentiate(logits: Tensor, targets: Tensor, smoothing: float) -> tuple[Tensor, Tensor]:
    """(losses (c,), sums (c, 1)) of logits (c, V), which become exp(logits - their maximum): over
    `sums` they are probabilities."""
    own = logits.gather(1, targets.unsqueeze(1))  # (c, 1)
    if smoothing:
        own = (1 - smoothing) * own + smoothing * logits.mean(1, keepdim=True)
    top = logits.amax(1, keepdim=True)
    sums = logits.sub_(top).exp_().sum(1, keepdim=True)
    return (sums.log() + (top - own)).squeeze(1), sums


class _TokenLosses(torch.autograd.Function):
    """token_losses with gradients, which are ready when the sum is."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor,
        softcap: float | None, scale: float, chunk: int | None, smoothing: float,
    ) -> Tensor:  # fmt: skip
        head = _Head(hidden, weight, bias, softcap, scale)
        to_hidden, to_weight, to_bias = ctx.needs_input_grad[:3]
        for_hidden = torch.empty_like(hidden, dtype=head.exact) if to_hidden else None
        for_weight = hidden.new_zeros(weight.shape, dtype=head.exact) if to_weight else None
        for_bias = hidden.new_zeros(len(weight), dtype=head.exact) if to_bias else None
        total = hidden.new_zeros((), dtype=head.exact)
        for part in even_chunks(len(targets), len(weight), chunk):
            rows = hidden[part]
            slopes = head.logits(rows)  # (c, V)
            # d/dx of softcap * tanh(x / softcap) is 1 - tanh^2
            bends = None if softcap is None else 1 - (slopes / softcap).square_()
            losses, sums = _exponentiate(slopes, targets[part], smoothing)
            total += losses.sum()
            slopes.mul_(scale / sums)
            if smoothing:
                slopes -= smoothing * scale / len(weight)
            owns = slopes.new_full((len(losses), 1), (smoothing - 1) * scale)
            slopes.scatter_add_(1, targets[part].unsqueeze(1), owns)
            if bends is not None:
                slopes *= bends
            if for_bias is not None:
                for_bias += slopes.sum(0)
            slopes = slopes.to(head.dtype)
            if for_hidden is not None:
                for_hidden[part] = head.multiply(slopes, head.weight)
            if for_weight is not None:
                head.add_product(for_weight, slopes.T, rows)
        ctx.save_for_backward(for_hidden, for_weight, for_bias)
        ctx.dtypes = (hidden.dtype, weight.dtype, None if bias is None else bias.dtype)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        pairs = zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        grads = [None if t is None else (t * grad).to(dtype) for t, dtype in pairs]
        return (*grads, None, None, None, None, None)
