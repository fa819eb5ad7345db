"""Dropout, residual and layer norm as one function.

Replaces what BERT and its kin do after attention and after the feed-forward block: three passes
over (N, D), with a rounding to bf16 after the dropout that is left out here. Beside its fp32 output
comes a copy in bf16 for the products that read it; the gradients of both are summed where they are
used, so nothing is cast in a pass of its own. The backward pass writes the residual's gradient into
the memory of the sum it saved. Gain: see benchmarks/ablation.md.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from models.fast.cpu.dropout import FastDropout
from models.fast.cpu.gelu import take_once
from models.fast.cpu.masks import Draw
from models.fast.cpu.native import NAMES, NativeKernels


class AddNorm(torch.autograd.Function):
    """layer_norm(dropout(y) + residual), (..., D) each, and where y is bf16 the same once more in
    bf16; the backward pass can be taken once."""

    @staticmethod
    def forward(
        ctx: Any, y: Tensor, residual: Tensor, weight: Tensor, bias: Tensor, norm: nn.LayerNorm,
        draw: Draw | None, kernels: NativeKernels,
    ) -> tuple[Tensor, Tensor | None]:  # fmt: skip
        out, cast, s, stats = kernels.add_norm(y, residual, norm, draw, for_backward=True)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(s, stats, weight)  # the weight only to see that it stays
        ctx.rest = (norm, draw, kernels, y.dtype)
        return out, cast

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor | None, grad_cast: Tensor | None) -> tuple:
        take_once(ctx)
        s, stats, _ = ctx.saved_tensors
        norm, draw, kernels, dtype = ctx.rest
        trains = any(ctx.needs_input_grad[2:4])
        grad = torch.zeros_like(s) if grad is None else grad
        grads = kernels.add_norm_backward(grad, grad_cast, s, stats, norm, draw, dtype, trains)
        return (*grads, None, None, None)


def add_norm(
    y: Tensor, residual: Tensor, norm: nn.Module, dropout: nn.Dropout | None,
    kernels: NativeKernels | None,
) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    """norm(dropout(y) + residual), (..., D) each, and its copy in bf16. Plain torch, and no
    copy, for what the kernel does not take."""
    drops = dropout is not None and dropout.training and dropout.p > 0
    known = not drops or (isinstance(dropout, FastDropout) and dropout.p < 1)
    takes = residual.dtype == torch.float32 and y.dtype in NAMES and y.numel() > 0
    if kernels is None or not known or not takes or type(norm) is not nn.LayerNorm:
        return norm((y if dropout is None else dropout(y)) + residual), None
    draw = None
    if isinstance(dropout, FastDropout) and dropout.drops():
        draw = dropout.draw(y.shape)
    inputs = (y, residual, norm.weight, norm.bias)
    if not torch.is_grad_enabled() or not any(t.requires_grad for t in inputs):
        return kernels.add_norm(y, residual, norm, draw, for_backward=False)[:2]
    return AddNorm.apply(*inputs, norm, draw, kernels)
