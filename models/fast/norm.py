"""Dropout, residual and layer norm as one function.

Replaces what BERT and its kin do after attention and after the feed-forward block: three passes
over (N, D), with a rounding to bf16 after the dropout that is left out here. The backward pass
writes the residual's gradient into the memory of the sum it saved. Gain: see
benchmarks/ablation.md.
"""

from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from models.fast.dropout import FastDropout
from models.fast.gelu import take_once
from models.fast.masks import Draw
from models.fast.native import NAMES, NativeKernels

# classes of transformers whose forward is LayerNorm(dropout(dense(hidden)) + input)
BLOCKS = {
    f"{family}{part}"
    for family in ("Bert", "Electra", "Roberta", "XLMRoberta")
    for part in ("SelfOutput", "Output")
}


class AddNorm(torch.autograd.Function):
    """layer_norm(dropout(y) + residual), (..., D) each; the backward pass can be taken once."""

    @staticmethod
    def forward(
        ctx: Any, y: Tensor, residual: Tensor, weight: Tensor, bias: Tensor, norm: nn.LayerNorm,
        draw: Draw | None, kernels: NativeKernels, spare: bool,
    ) -> Tensor:  # fmt: skip
        out, s, stats = kernels.add_norm(y, residual, norm, draw, spare)
        if not spare:
            ctx.save_for_backward(s, stats, weight)  # the weight only to see that it stays
            ctx.rest = (norm, draw, kernels, y.dtype)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple:
        take_once(ctx)
        s, stats, _ = ctx.saved_tensors
        norm, draw, kernels, dtype = ctx.rest
        trains = any(ctx.needs_input_grad[2:4])
        found = kernels.add_norm_backward(grad, s, stats, norm, draw, dtype, trains)
        return (*found, None, None, None, None)


def add_norm_forward(block: Any, hidden_states: Tensor, input_tensor: Tensor) -> Tensor:
    """The forward of a class in BLOCKS; the plain one for what the kernel does not take."""
    drops = block.dropout.training and block.dropout.p > 0
    hashed = isinstance(block.dropout, FastDropout)
    if input_tensor.dtype != torch.float32 or (drops and not hashed) or block.dropout.p == 1.0:
        return type(block).forward(block, hidden_states, input_tensor)
    y, norm = block.dense(hidden_states), block.LayerNorm  # y (..., D)
    if y.dtype not in NAMES or y.numel() == 0:
        return norm(block.dropout(y) + input_tensor)
    draw = block.dropout.draw(y.shape) if hashed and block.dropout.drops() else None
    given = (y, input_tensor, norm.weight, norm.bias)
    spare = not (torch.is_grad_enabled() and any(t.requires_grad for t in given))
    return AddNorm.apply(*given, norm, draw, block.kernels, spare)


def fuse_norm(backbone: nn.Module, kernels: NativeKernels) -> int:
    """Give each block of BLOCKS the fused forward, in place; returns how many."""
    found: list[Any] = [
        module
        for module in backbone.modules()
        if type(module).__name__ in BLOCKS and type(module.LayerNorm) is nn.LayerNorm
    ]
    for block in found:
        block.kernels = kernels
        block.forward = MethodType(add_norm_forward, block)
    return len(found)
