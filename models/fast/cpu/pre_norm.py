"""Residual and norm as one function where the norm stands before a layer, as in decoders.

Replaces an addition and an RMS or layer norm, which transformers writes in six passes over (N, D)
with as many copies for the backward pass: here s = x + dropout(y) and norm(s) come from one, and
what is kept is s, which the backward pass overwrites with its gradient. Gain: see
benchmarks/ablation.md.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from models.fast.cpu.c_types import knows_norm
from models.fast.cpu.dropout import FastDropout
from models.fast.cpu.gelu import take_once
from models.fast.cpu.masks import Draw
from models.fast.cpu.native import NAMES, NativeKernels


class PreNorm(torch.autograd.Function):
    """s = dropout(y) + x and norm(s), (..., D) each, the latter in `dtype`; the backward pass can
    be taken once, and whoever is given s must not keep it for its own."""

    @staticmethod
    def forward(
        ctx: Any, y: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, norm: nn.Module,
        draw: Draw | None, dtype: torch.dtype, kernels: NativeKernels,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        s, out, stats = kernels.pre_norm(y, x, norm, draw, dtype)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(s, stats, weight)  # the weight only to see that it stays
        ctx.rest = (norm, draw, kernels, y.dtype)
        return s, out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_s: Tensor | None, grad: Tensor | None) -> tuple:
        take_once(ctx)
        s, stats, _ = ctx.saved_tensors
        norm, draw, kernels, dtype = ctx.rest
        trains = any(ctx.needs_input_grad[2:4])
        whole = (grad, grad_s, s.detach(), stats, norm, draw, dtype, trains)
        dy, dx, dweight, dbias = kernels.pre_norm_backward(*whole)
        return dy, dx, dweight, dbias if ctx.needs_input_grad[3] else None, None, None, None, None


class Norm(torch.autograd.Function):
    """norm(x) in `dtype` for x (..., D) that its backward pass may overwrite, once."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, norm: nn.Module,
        dtype: torch.dtype, kernels: NativeKernels,
    ) -> Tensor:  # fmt: skip
        x, out, stats = kernels.pre_norm(None, x, norm, None, dtype)
        ctx.save_for_backward(x, stats, weight)
        ctx.rest = (norm, kernels)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple:
        take_once(ctx)
        x, stats, _ = ctx.saved_tensors
        norm, kernels = ctx.rest
        trains = any(ctx.needs_input_grad[1:3])
        whole = (grad, None, x.detach(), stats, norm, None, x.dtype, trains)
        _, dx, dweight, dbias = kernels.pre_norm_backward(*whole)
        return dx, dweight, dbias if ctx.needs_input_grad[2] else None, None, None, None


def product_dtype(x: Tensor) -> torch.dtype:
    """The dtype that a product of x takes it in."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def pre_norm(
    y: Tensor | None, x: Tensor, norm: Any, dropout: nn.Module | None, dtype: torch.dtype,
    kernels: NativeKernels | None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """s = dropout(y) + x, or x where there is no y yet, and norm(s): (..., D) each. norm(s) is in
    `dtype` where the kernel takes it, else plain torch's."""
    drops = isinstance(dropout, nn.Dropout) and dropout.training and dropout.p > 0
    known = not drops or (isinstance(dropout, FastDropout) and dropout.p < 1)
    fits = x.dtype == torch.float32 and dtype in NAMES and x.numel() > 0
    fits = fits and (y is None or y.dtype in NAMES)
    if kernels is None or not known or not fits or not knows_norm(norm):
        if y is not None:
            x = x + (y if dropout is None else dropout(y))
        return x, norm(x)
    draw = None
    if y is not None and isinstance(dropout, FastDropout) and dropout.drops():
        draw = dropout.draw(y.shape)
    weights = (norm.weight, getattr(norm, "bias", None))
    tensors = (y, x, *weights)
    if not torch.is_grad_enabled() or not any(t is not None and t.requires_grad for t in tensors):
        return kernels.pre_norm(y, x, norm, draw, dtype)[:2]
    if y is None:
        return x, Norm.apply(x, *weights, norm, dtype, kernels)
    return PreNorm.apply(y, x, *weights, norm, draw, dtype, kernels)


def norm_heads(x: Tensor, norm: Any, kernels: NativeKernels | None) -> Tensor:
    """norm of each head of x (N, H, D), a layer's fresh output, in its dtype."""
    if kernels is None or x.dtype != torch.float32 or not knows_norm(norm) or not x.numel():
        return norm(x)
    if not torch.is_grad_enabled() or not (x.requires_grad or norm.weight.requires_grad):
        return kernels.pre_norm(None, x, norm, None, x.dtype)[1]
    return Norm.apply(x, norm.weight, None, norm, x.dtype, kernels)
