"""Dropout on the CPU with masks from masks.py, in place of torch's serial random numbers.

Replaces every nn.Dropout; on CUDA the native one stays. Nothing is kept for the backward pass but
one hash a row. Gain: see benchmarks/ablation.md.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from models.fast.cpu.kernels import Kernels
from models.fast.cpu.masks import PLACES, Draw, make_draw


class Drop(torch.autograd.Function):
    """x * mask forward, grad * mask backward; the mask is drawn twice and kept never."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, draw: Draw, kernels: Kernels) -> Tensor:
        ctx.rest = (draw, kernels)
        return kernels.drop(x, draw)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple:
        draw, kernels = ctx.rest
        return kernels.drop(grad, draw), None, None


class FastDropout(nn.Dropout):
    """nn.Dropout for x (..., C). `ids`: what to call the rows of a stream, set before each forward
    by streams.py, so that a text is dropped alike padded or not; None: by their place in x. With
    activation checkpointing a backward must come before the next forward, as in the engine's loop.
    """

    ids: Tensor | None = None

    def __init__(self, p: float, kernels: Kernels) -> None:
        super().__init__(p)
        self.kernels = kernels

    def drops(self) -> bool:
        """Whether a forward would drop anything."""
        return self.training and round(self.p * 65536) > 0

    def draw(self, shape: torch.Size) -> Draw:
        """The mask of one forward for x of this shape."""
        ids = self.ids
        if ids is None or ids.shape != shape[:-1]:
            ids = places(shape[:-1])
        return make_draw(self.p, ids, shape[-1])

    def forward(self, x: Tensor) -> Tensor:
        if not self.drops() or x.numel() == 0:
            return x
        if self.p == 1.0:
            return x * 0
        return Drop.apply(x, self.draw(x.shape), self.kernels)


def places(shape: torch.Size) -> Tensor:
    """int64 ids of the rows of x (B, ..., C): row of the batch, then place within it."""
    within = shape[1:].numel() if len(shape) else 1
    first = torch.arange(shape[0] if len(shape) else 1).unsqueeze(1) * PLACES
    return (first + torch.arange(within)).view(shape)


def replace_dropout(model: nn.Module, kernels: Kernels) -> list[nn.Module]:
    """Put a FastDropout for each nn.Dropout below `model`; returns what it replaced."""
    fast: dict[nn.Module, FastDropout] = {}
    for name, module in list(model.named_modules(remove_duplicate=False)):
        if type(module) is nn.Dropout:
            if module not in fast:  # one that stands in two places stays one
                fast[module] = FastDropout(module.p, kernels)
                fast[module].train(module.training)
            model.set_submodule(name, fast[module])
    return list(fast)
