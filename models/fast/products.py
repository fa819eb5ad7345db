"""Products of one input with several weights, and with their adapters, as one autograd function.

The low-rank product of an adapter adds into the base's own output, forward and backward, with the
scaling folded in. Layers that read one input (query, key, value) share its cast, their low-rank
products read it once, and its gradient is one product, summed in fp32, to which adapters add
theirs. linear.py makes layers of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

if TYPE_CHECKING:
    from models.fast.cpu.native import NativeKernels

FEW = 64  # rows up to which, in fp32, oneDNN takes longer to begin than a product takes


@cache
def takes_onednn(dtype: torch.dtype) -> bool:
    """Whether oneDNN's linear layer is built into torch, and fast in this dtype here."""
    onednn = torch.ops.mkldnn
    if not torch.backends.mkldnn.is_available() or not hasattr(onednn, "_linear_pointwise"):
        return False
    bf16 = dtype == torch.bfloat16 and onednn._is_mkldnn_bf16_supported()
    return dtype == torch.float32 or bf16


@cache
def prefers_onednn(dtype: torch.dtype) -> bool:
    """Whether oneDNN's linear layer is also the faster one: in fp32 on eight floats at a time
    torch's own product (MKL) is, by a tenth to a fifth (benchmarks/LOG.md 44)."""
    return takes_onednn(dtype) and not (is_narrow() and dtype == torch.float32)


def is_narrow() -> bool:
    """Whether this processor takes eight floats at a time, and not sixteen."""
    return torch.backends.cpu.get_cpu_capability() in ("AVX2", "DEFAULT")


@cache
def native_rows() -> range:
    """The rows of which a kernel of our own has the product sooner (benchmarks/LOG.md 45): of one
    row on eight floats at a time MKL is as fast, of many on sixteen oneDNN is faster."""
    return range(2, 129) if is_narrow() else range(1, FEW + 1)


def multiply(
    x: Tensor, weight: Tensor, bias: Tensor | None, native: "NativeKernels | None" = None
) -> Tensor:
    """x W^T + b: x (N, in), W (out, in), b (out,), all of one dtype -> (N, out). Of a few rows by
    the `native` kernels, where they are given: they know nothing of gradients."""
    compiles = torch.compiler.is_compiling()  # then torch's own, which inductor knows
    rows, fp32 = len(x), x.dtype == torch.float32
    fits = x.device.type == "cpu" and x.numel() and weight.is_contiguous()
    if fits and fp32 and native is not None and rows in native_rows() and not compiles:
        return native.multiply_few(x, weight, bias)
    if fits and not (fp32 and rows <= FEW) and not compiles and prefers_onednn(x.dtype):
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return F.linear(x, weight, bias)


def by_row(x: Tensor) -> Tensor:
    """x (..., C) as (N, C), also where N is 0."""
    return x.reshape(x.shape[:-1].numel(), x.shape[-1])


def cast(tensor: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """The tensor in another dtype, where there is one."""
    return tensor if tensor is None or tensor.dtype == dtype else tensor.to(dtype)


def add_up(
    x: Tensor, dtype: torch.dtype, scalings: Sequence[float], tensors: Sequence[Tensor | None],
    native: "NativeKernels | None" = None,
) -> tuple[list[Tensor], Tensor, list[Tensor | None]]:  # fmt: skip
    """The outputs (N, out) of Product; and in `dtype`, which is autocast's where it is on, what a
    backward pass needs: x as (N, in), and W, x A^T (N, R), A, B of each part. The `native` kernels
    are for where none will follow."""
    saved, flat = list[Tensor | None](), by_row(x).to(dtype)  # (N, in)
    cast_ones = [cast(t, dtype) for t in tensors]
    pairs = [A for A in cast_ones[2::4] if A is not None]
    lows = iter(low_ranks(flat, pairs))
    outs = []
    for i, scaling in enumerate(scalings):
        W, b, A, B = cast_ones[4 * i : 4 * i + 4]
        assert W is not None
        out, low = multiply(flat, W, b, native), None  # (N, out)
        if A is not None and B is not None:
            low = next(lows)
            out.addmm_(low, B.T, alpha=scaling)
        outs.append(out)
        saved += [W, low, A, B]
    return outs, flat, saved


def low_ranks(flat: Tensor, pairs: Sequence[Tensor]) -> Sequence[Tensor]:
    """x A^T (N, R) for each A (R, in), as one product: it reads x (N, in) once."""
    if len(pairs) < 2:
        return [flat @ A.T for A in pairs]
    return (flat @ torch.cat(list(pairs)).T).split([len(A) for A in pairs], 1)


class Product(torch.autograd.Function):
    """x W^T + b + scaling * (x A^T) B^T for each part; x (..., in) -> one (N, out) a part: a view
    that is made in here could not be written to, as Longformer does with its queries.

    `tensors`: W (out, in), b (out,), A (R, in), B (out, R) of each part; b, and A with B, may be
    None. Whatever requires a gradient gets one.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, dtype: torch.dtype, scalings: tuple[float, ...],
        *tensors: Tensor | None,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        ctx.set_materialize_grads(False)
        outs, flat, saved = add_up(x, dtype, scalings, tensors)
        needs = ctx.needs_input_grad
        ctx.save_for_backward(flat if any(needs[3:]) else None, *saved)
        idle = [not needs[0] and not any(needs[4 * i + 3 : 4 * i + 7]) for i in range(len(outs))]
        ctx.mark_non_differentiable(*(out for out, rests in zip(outs, idle, strict=True) if rests))
        dtypes = [None if t is None else t.dtype for t in tensors]
        ctx.rest = (x.shape, x.dtype, Rest(scalings, dtypes, needs[3:]))
        return tuple(outs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple:
        flat, *saved = ctx.saved_tensors
        shape, x_dtype, rest = ctx.rest
        flats = [None if g is None else by_row(g) for g in grads]  # (N, out)
        with torch.autocast(saved[0].device.type, enabled=False):
            lows = low_gradients(flats, saved, rest)
            grad_x = None
            if ctx.needs_input_grad[0] and any(g is not None for g in flats):
                grad_x = input_gradient(flats, lows, saved).to(x_dtype).view(shape)
            results = parameter_gradients(flats, lows, flat, saved, rest)
        return grad_x, None, None, *results


@dataclass(frozen=True)
class Rest:
    """What a backward pass of parts must know beside their tensors: four of each part."""

    scalings: tuple[float, ...]
    dtypes: list[torch.dtype | None]
    needs: tuple[bool, ...]


def low_gradients(
    flats: Sequence[Tensor | None], saved: Sequence[Tensor | None], rest: Rest
) -> list[Tensor | None]:
    """The gradient of x A^T, (N, R), of each part from that of its output, (N, out); None where
    there is none."""
    lows = list[Tensor | None]()
    for g, B, scaling in zip(flats, saved[3::4], rest.scalings, strict=True):
        # thin products as MKL is fast in them: R rows of an operand, not R columns
        low = None if g is None or B is None else F.linear(g, B.T.contiguous()).mul_(scaling)
        lows.append(low)
    return lows


def parameter_gradients(
    flats: Sequence[Tensor | None], lows: Sequence[Tensor | None], flat: Tensor | None,
    saved: Sequence[Tensor | None], rest: Rest,
) -> list[Tensor | None]:  # fmt: skip
    """Gradients of W, b, A and B of each part, where they are needed; flat (N, in) is x."""
    results, needs, dtypes = list[Any]([None] * len(rest.dtypes)), rest.needs, rest.dtypes
    learning = [i for i, low in enumerate(lows) if low is not None and needs[4 * i + 2]]
    stacked = [low for i in learning if (low := lows[i]) is not None]
    if stacked and flat is not None:  # x is read once
        of_A = (torch.cat(stacked, 1).T @ flat).split([low.shape[1] for low in stacked])
        for i, gradient in zip(learning, of_A, strict=True):
            results[4 * i + 2] = gradient.to(dtypes[4 * i + 2])
    for part, (g, scaling) in enumerate(zip(flats, rest.scalings, strict=True)):
        if g is None:
            continue
        W, b, _, B = range(4 * part, 4 * part + 4)
        if needs[W] and flat is not None:
            weight = saved[W]
            assert weight is not None
            # laid out as the weight is: a Conv1D keeps (in, out)
            whole = g.T @ flat if weight.is_contiguous() else (flat.T @ g).T
            results[W] = whole.to(dtypes[W])
        if needs[b]:
            results[b] = g.sum(0).to(dtypes[b])
        low = saved[4 * part + 1]
        if needs[B] and low is not None:
            results[B] = (low.T @ g).T.to(dtypes[B]).mul_(scaling)
    return results


def input_gradient(
    flats: Sequence[Tensor | None], lows: Sequence[Tensor | None], saved: Sequence[Tensor | None]
) -> Tensor:
    """The gradient of x (N, in): the sum of g (N, out) W (out, in) over the parts with a gradient,
    as one product unless their weights would take longer to lie side by side, and what their
    adapters add."""
    pairs = [(g, W) for g, W in zip(flats, saved[::4], strict=True) if g is not None]
    grads, weights = zip(*pairs, strict=True)
    if weights[0].dtype == torch.float32 and all(len(W) > W.shape[1] for W in weights):
        grad_x = grads[0] @ weights[0]
        for g, W in pairs[1:]:
            grad_x.addmm_(g, W)
    else:
        grad_x = side_by_side(grads) @ (weights[0] if len(weights) == 1 else torch.cat(weights))
    adapted = [(low, A) for low, A in zip(lows, saved[2::4], strict=True) if low is not None]
    if adapted:
        thin, down = zip(*adapted, strict=True)
        grad_x.addmm_(torch.cat(thin, 1), torch.cat(down))
    return grad_x


def side_by_side(grads: Sequence[Tensor]) -> Tensor:
    """(N, out) each as one (N, sum of out): without a copy where they lie so in memory."""
    first, width = grads[0], sum(g.shape[1] for g in grads)
    if len(grads) == 1:
        return first
    ends = accumulate((g.shape[1] for g in grads), initial=first.storage_offset())
    if all(
        g.untyped_storage().data_ptr() == first.untyped_storage().data_ptr()
        and (g.storage_offset(), g.stride()) == (start, (width, 1))
        for g, start in zip(grads, ends, strict=False)
    ):
        return first.as_strided((first.shape[0], width), (width, 1))
    return torch.cat(grads, 1)  # type: ignore[arg-type]
