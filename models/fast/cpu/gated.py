"""What stands between the products of a feed-forward block, as one function with the last of them.

Replaces down(act(gate) * up), of the Llama family, and down(act(up)), of GPT-2: an activation and a
product over (N, I), each of which keeps its inputs and its output for the backward pass. Kept here
are the outputs of the first products alone: what the last one needs of its input is worked out
again, in the pass that makes their gradients in the same memory. Gain: see benchmarks/ablation.md.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers.activations import GELUTanh, NewGELUActivation, SiLUActivation

from models.fast.cpu.gelu import take_once
from models.fast.cpu.native import NAMES, NativeKernels
from models.fast.cpu.pre_norm import product_dtype
from models.fast.linear import is_hooked, lengthen, part_of
from models.fast.products import (
    Rest,
    add_up,
    by_row,
    input_gradient,
    low_gradients,
    parameter_gradients,
)

ACTIVATIONS: dict[type, bool] = {  # whether it is GELU's tanh form
    SiLUActivation: False, nn.SiLU: False, NewGELUActivation: True, GELUTanh: True,
}  # fmt: skip


class GatedDown(torch.autograd.Function):
    """W (act(x) * up) + b + scaling * B (A (act(x) * up)); x and up (N, I) that nobody else needs
    -> (N, out); the backward pass can be taken once. up, b, and A with B, may be None."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, up: Tensor | None, tanh_gelu: bool, scaling: float,
        kernels: NativeKernels, *tensors: Tensor | None,
    ) -> Tensor:  # fmt: skip
        (out,), _, saved = add_up(kernels.gated(x, up, tanh_gelu), x.dtype, (scaling,), tensors)
        ctx.save_for_backward(x, up, *saved)
        dtypes = [None if t is None else t.dtype for t in tensors]
        ctx.rest = (tanh_gelu, kernels, Rest((scaling,), dtypes, ctx.needs_input_grad[5:]))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple:
        take_once(ctx)
        x, up, *saved = ctx.saved_tensors
        tanh_gelu, kernels, rest = ctx.rest
        flats = [by_row(grad)]
        with torch.autocast("cpu", enabled=False):
            lows = low_gradients(flats, saved, rest)
            inner = input_gradient(flats, lows, saved)
            x, up = x.detach(), None if up is None else up.detach()
            kernels.gated_backward(inner, x, up, tanh_gelu)
            results = parameter_gradients(flats, lows, inner, saved, rest)
        return x, up, None, None, None, *results


def gated_down(
    x: Tensor, up: Tensor | None, activation: Callable[[Tensor], Tensor], down: Any,
    kernels: NativeKernels | None,
) -> Tensor:  # fmt: skip
    """down(activation(x) * up), or down(activation(x)): x and up (..., I), fresh outputs of layers.
    Plain torch for what the kernel does not take."""
    part = None if is_hooked(down) else part_of(down)
    fits = x.dtype in NAMES and x.dtype == product_dtype(x) and x.is_contiguous() and x.numel() > 0
    fits = fits and (up is None or (up.is_contiguous() and up.dtype == x.dtype))
    kind = ACTIVATIONS.get(type(activation))
    hooked = isinstance(activation, nn.Module) and is_hooked(activation)
    if kernels is None or part is None or not fits or kind is None or hooked:
        inner = activation(x)
        return down(inner if up is None else inner * up)
    *tensors, scaling = part
    flat, wide = by_row(x), None if up is None else by_row(up)
    if torch.is_grad_enabled():
        out = GatedDown.apply(flat, wide, kind, scaling, kernels, *tensors)
    else:
        inner = kernels.gated(flat, wide, kind)
        out = add_up(inner, x.dtype, (scaling,), tensors, kernels)[0][0]
    return lengthen(down, out.view(*x.shape[:-1], out.shape[1]))
