"""Parts of a layer as a few kernels each, by torch.compile: for GPUs, where a small encoder waits
for launches more than for arithmetic.

Replaces the modules before and after attention by compiled ones: bias, GELU, dropout, residual and
norm run in the kernels that write the products' outputs or read their inputs, and the host makes a
fifth of the calls. Attention stays outside, with the layout it reads: what is compiled depends on
nothing but the number of tokens, which is declared to vary. Every layer of a model is the same
code, so it is compiled once for each way of calling it (training or not, all tokens or first ones,
weights and inputs with a gradient or without).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from models.fast.encoder import Finish, Parts, Project, finish_layer, project_each


@dataclass
class Compilations:
    """What was compiled: `graphs` in all, `again` for a way of calling that had been met before.
    `lower` makes code of a graph."""

    lower: Callable[[Any, list[Any]], Any] | None = None  # None: inductor
    graphs: int = 0
    again: int = 0
    met: set[tuple] = field(default_factory=set)

    def backend(self, graph: Any, inputs: list[Any]) -> Any:
        """The graph's code, counted."""
        from torch._inductor.compile_fx import compile_fx  # takes a second: only where it is used

        self.graphs += 1
        return (self.lower or compile_fx)(graph, inputs)

    def call(self, function: Callable[..., Any], way: Callable[[], tuple], *inputs: Any) -> Any:
        """function(*inputs); where that compiled something, `way` says in which way it was called:
        not at every call, for that takes longer than one of its kernels."""
        before = self.graphs
        output = function(*inputs)
        if self.graphs > before:
            if (name := way()) in self.met:
                self.again += self.graphs - before
            self.met.add(name)
        return output

    def line(self) -> str:
        """For the end of a run."""
        return f"layers: {self.graphs} graphs compiled, {self.again} of them again"


def compile_parts(seen: Compilations) -> tuple[Project, Finish]:
    """(project, finish) of encoder.Written, compiled at their first calls and counted in `seen`."""
    # one graph for each way of calling: three, two or one layer, trained or not, adapted or not …
    torch._dynamo.config.recompile_limit = max(64, torch._dynamo.config.recompile_limit)
    fast_project = torch.compile(project_each, backend=seen.backend)
    fast_finish = torch.compile(finish_layer, backend=seen.backend)

    def project(x: Tensor, layers: Sequence[nn.Module]) -> tuple[Tensor, ...]:
        """x (1, N, D) -> the output (1, N, out) of each layer."""
        vary(x)
        way = partial(way_of, "project", layers, x)
        return seen.call(fast_project, way, x, tuple(layers))

    def finish(parts: Parts, attended: Tensor, residual: Tensor) -> tuple[Tensor, Tensor | None]:
        """(1, M, D) each -> (1, M, D); no copy."""
        vary(attended, residual)
        way = partial(way_of, "finish", (parts.out, parts.up, parts.down), attended, residual)
        return seen.call(fast_finish, way, parts, attended, residual)

    return project, finish


def vary(*inputs: Tensor) -> None:
    """Say that their number of tokens, (1, N, D), is another at each step."""
    for x in inputs:
        torch._dynamo.maybe_mark_dynamic(x, 1)


def way_of(part: str, layers: Sequence[nn.Module], *inputs: Tensor) -> tuple:
    """What the compiled graph of a part of a layer depends on besides lengths."""
    kinds = tuple((type(layer), *(p.requires_grad for p in layer.parameters())) for layer in layers)
    dtypes = tuple((x.dtype, x.requires_grad) for x in inputs)
    return (part, kinds, layers[0].training, torch.is_grad_enabled(), dtypes)


def why_not(device: torch.device) -> str | None:
    """Why nothing can be compiled for this device; None where a first small graph was."""
    try:
        compiled = torch.compile(torch.nn.functional.gelu, backend="inductor")
        compiled(torch.ones(8, device=device))
    except Exception as error:  # of a compiler, of Triton, of a driver: whatever it is
        return f"{type(error).__name__}: {str(error).strip().splitlines()[0]:.200}"
    return None
