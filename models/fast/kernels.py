"""The element-wise work of the fast paths in plain torch: the default where nothing is compiled.

native.py has the same three functions compiled; a parity test ties each pair. Scores are fp32 in
either precision: rounded to bf16 they would lose more than scaled_dot_product_attention does.
"""

from typing import Protocol

import torch
from torch import Tensor

from models.fast.masks import Draw, keep_bits


class Kernels(Protocol):
    """What attention.py and dropout.py ask of PlainKernels and NativeKernels."""

    name: str
    version: str  # what "the same bits" depends on

    def drop(self, x: Tensor, draw: Draw) -> Tensor: ...

    def softmax_drop(
        self, scores: Tensor, lse: Tensor, scale: float, draw: Draw | None
    ) -> Tensor: ...

    def softmax_drop_backward(
        self, scores: Tensor, grad: Tensor, lse: Tensor, scale: float, draw: Draw | None,
        dtype: torch.dtype,
    ) -> tuple[Tensor, Tensor]: ...  # fmt: skip


def drop_(x: Tensor, draw: Draw) -> Tensor:
    """Dropout of fp32 x (..., C), in place; `draw.rows` has the leading shape of x."""
    x.view(torch.int32).bitwise_and_(keep_bits(draw, x.shape[-1]))
    return x.mul_(draw.scale)


class PlainKernels:
    """Plain torch."""

    name = version = "plain"

    def drop(self, x: Tensor, draw: Draw) -> Tensor:
        """Dropout of x (..., C), fp32 or bf16; `draw.rows` has the leading shape of x."""
        return drop_(x.to(torch.float32, copy=True), draw).to(x.dtype)

    def softmax_drop(self, scores: Tensor, lse: Tensor, scale: float, draw: Draw | None) -> Tensor:
        """Dropped softmax(scale * scores) over the last axis of fp32 scores (H, Q, K), which it
        may overwrite. lse (H, Q) is for what the backward needs (here nothing); draw.rows (H, Q).
        """
        p = torch.softmax(scores.mul_(scale), dim=-1)
        return p if draw is None else drop_(p, draw)

    def softmax_drop_backward(
        self, scores: Tensor, grad: Tensor, lse: Tensor, scale: float, draw: Draw | None,
        dtype: torch.dtype,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """(dropped probabilities, gradient of the raw scores), both (H, Q, K) in `dtype`.

        From the raw scores and the gradient of the dropped probabilities; overwrites both. With
        P = softmax and M the scaled mask: dS = scale * P * (M*G - sum(P*M*G)).
        """
        p = torch.softmax(scores.mul_(scale), dim=-1)
        kept = p
        if draw is not None:
            bits = keep_bits(draw, p.shape[-1])
            grad.view(torch.int32).bitwise_and_(bits)
            grad.mul_(draw.scale)  # M*G
            kept = (p.view(torch.int32) & bits).view(torch.float32).mul_(draw.scale)  # M*P
        total = torch.mul(p, grad, out=scores).sum(-1, keepdim=True)
        return kept.to(dtype), grad.sub_(total).mul_(p).mul_(scale).to(dtype)
