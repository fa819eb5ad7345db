"""GELU whose backward pass writes into the memory of its input.

Replaces the activation between the two linear layers of a feed-forward block. The forward is
torch's own; the backward is native, shares one exponential between probability and density, and
needs no fresh memory: nobody but the activation keeps the first layer's output. That holds inside
the blocks listed here, and is why no other GELU is replaced. Gain: see benchmarks/ablation.md.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from transformers.activations import GELUActivation

from models.fast.cpu.native import NAMES, NativeKernels

# class of transformers -> the name of its activation, whose input is a linear layer's fresh output
BLOCKS = {
    "AlbertLayer": "activation",
    "BertIntermediate": "intermediate_act_fn",
    "ElectraIntermediate": "intermediate_act_fn",
    "FFN": "activation",  # DistilBERT
    "RobertaIntermediate": "intermediate_act_fn",
    "XLMRobertaIntermediate": "intermediate_act_fn",
}


class Gelu(torch.autograd.Function):
    """gelu(x) for x that nobody else needs; the backward pass can be taken once."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernels: NativeKernels) -> Tensor:
        ctx.save_for_backward(x)
        ctx.kernels = kernels
        return F.gelu(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple:
        take_once(ctx)
        (x,) = ctx.saved_tensors
        return ctx.kernels.gelu_backward(grad, x.detach()), None


def take_once(ctx: Any) -> None:
    """Raise RuntimeError at a second backward pass: the first one overwrote what it was given."""
    if getattr(ctx, "taken", False):
        raise RuntimeError(
            "a second backward pass through a fast path that overwrites its saved input: run the "
            "forward pass again, or switch off speed.gelu, speed.gate and speed.norm"
        )
    ctx.taken = True


class FastGELU(nn.Module):
    """GELU by Gelu; plain torch where it has nothing to save, or for another dtype."""

    def __init__(self, kernels: NativeKernels) -> None:
        super().__init__()
        self.kernels = kernels

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype not in NAMES or not x.is_contiguous() or not x.requires_grad:
            return F.gelu(x)
        return Gelu.apply(x, self.kernels)


def replace_gelu(backbone: nn.Module, kernels: NativeKernels) -> list[nn.Module]:
    """Put a FastGELU into each feed-forward block of BLOCKS, in place; returns what it replaced."""
    replaced = []
    for module in backbone.modules():
        name = BLOCKS.get(type(module).__name__)
        if name is not None and type(getattr(module, name)) is GELUActivation:
            replaced.append(getattr(module, name))
            setattr(module, name, FastGELU(kernels).train(module.training))
    return replaced
