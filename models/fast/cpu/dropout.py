"""Dropout on the CPU with masks from masks.py, in place of torch's serial random numbers.

Replaces every nn.Dropout; on CUDA the native one stays. Nothing is kept for the backward pass but
one hash a row. Gain: see benchmarks/ablation.md.
"""

from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
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


class NamedRows:
    """While entered, the rows that a dropout of a backbone sees are called `ids` (1, N): a text is
    dropped alike padded or in a stream. None: they are called by their place."""

    def __init__(self, ids: Tensor | None) -> None:
        self.ids = ids

    def __enter__(self) -> None:
        self.token = IDS.set(self.ids)

    def __exit__(self, *error: object) -> None:
        IDS.reset(self.token)


OUTSIDE = torch.empty(0, dtype=torch.int64)  # of any backbone on streams
IDS: ContextVar[Tensor | None] = ContextVar("ids of the rows", default=OUTSIDE)


def carry_rows() -> tuple[AbstractContextManager, AbstractContextManager]:
    """`context_fn` of torch.utils.checkpoint: what is recomputed in the backward pass calls its
    rows as its own forward did, whichever forwards came in between."""
    return nullcontext(), NamedRows(IDS.get())


class FastDropout(nn.Dropout):
    """nn.Dropout for x (..., C), with the masks of the rows that NamedRows names."""

    in_stream = False  # set by streams.py for the dropouts of a backbone

    def __init__(self, p: float, kernels: Kernels) -> None:
        super().__init__(p)
        self.kernels = kernels

    def drops(self) -> bool:
        """Whether a forward would drop anything."""
        return self.training and round(self.p * 65536) > 0

    def draw(self, shape: torch.Size) -> Draw:
        """The mask of one forward for x of this shape."""
        ids = IDS.get()
        if ids is OUTSIDE and self.in_stream and torch._C._current_graph_task_id() != -1:
            raise RuntimeError(
                "a layer on a stream is recomputed in the backward pass without the names of its "
                "rows, so its dropout would differ: set model.activation_checkpointing, or give "
                "torch.utils.checkpoint context_fn=models.fast.cpu.dropout.carry_rows"
            )
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
