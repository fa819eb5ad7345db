"""A LoRA layer as one autograd function: two skinny products beside the base's.

Replaces LoRALinear.forward, which makes three passes over (N, out) to scale and add, and under
autocast rounds between them. Here the low-rank product adds into the base's own output, forward
and backward, with the scaling folded in; x and the adapters are cast once. Gain: see
benchmarks/ablation.md.
"""

from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from models.lora import LoRALinear, adapters_of


class LoRAProduct(torch.autograd.Function):
    """x W^T + b + scaling * (x A^T) B^T for frozen W (out, in), b. x (..., in) -> (..., out)."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, A: Tensor, B: Tensor,
        scaling: float, dtype: torch.dtype,
    ) -> Tensor:  # fmt: skip
        with torch.autocast(x.device.type, enabled=False):
            flat = x.reshape(-1, x.shape[-1]).to(dtype)  # (N, in)
            W, low_A, low_B = weight.to(dtype), A.to(dtype), B.to(dtype)
            out = F.linear(flat, W, None if bias is None else bias.to(dtype))  # (N, out)
            low = flat @ low_A.T  # (N, R)
            out.addmm_(low, low_B.T, alpha=scaling)
        ctx.save_for_backward(flat, low, W, low_A, low_B)
        ctx.rest = (x.shape, x.dtype, A.dtype, scaling)
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple:
        flat, low, W, low_A, low_B = ctx.saved_tensors
        shape, x_dtype, dtype, scaling = ctx.rest
        with torch.autocast(grad.device.type, enabled=False):
            g = grad.reshape(-1, grad.shape[-1])  # (N, out)
            grad_low = (g @ low_B).mul_(scaling)  # (N, R)
            grad_A = (grad_low.T @ flat).to(dtype)
            grad_B = (g.T @ low).to(dtype).mul_(scaling)
            grad_x = None
            if ctx.needs_input_grad[0]:
                grad_x = (g @ W).addmm_(grad_low, low_A).to(x_dtype).view(shape)
        return grad_x, None, None, grad_A, grad_B, None, None


def fused_forward(adapter: LoRALinear, x: Tensor) -> Tensor:
    """LoRALinear.forward in one function; the plain one where a dropout or a merge asks for it."""
    base = adapter.base
    drops = isinstance(adapter.dropout, nn.Dropout) and adapter.training
    if adapter.merged or drops or any(p.requires_grad for p in base.parameters()):
        return LoRALinear.forward(adapter, x)
    kind = x.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
    return LoRAProduct.apply(
        x, base.weight, base.bias, adapter.lora_A, adapter.lora_B, adapter.scaling, dtype
    )


def fuse_lora(model: nn.Module) -> int:
    """Give the plain LoRA layers over a Linear the fused forward, in place; returns how many."""
    found = [
        adapter
        for adapter in adapters_of(model).values()
        if type(adapter) is LoRALinear and isinstance(adapter.base, nn.Linear)
    ]
    for adapter in found:
        adapter.forward = MethodType(fused_forward, adapter)  # type: ignore[method-assign]
    return len(found)
