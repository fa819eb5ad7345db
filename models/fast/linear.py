"""Linear layers, with their LoRA adapters, as one autograd function over one input.

Replaces LoRALinear.forward, which makes three passes over (N, out) to scale and add, and under
autocast rounds between them: here the low-rank product adds into the base's own output, forward
and backward, with the scaling folded in. Replaces nn.Linear.forward on the CPU, where torch copies
the bias over the whole output before a product: oneDNN's own linear layer adds it as it writes.
Several layers that read one input (query, key, value) share its cast, and its gradient is one
product, summed in fp32, to which adapters add theirs. DoRA's lengths multiply what comes out, in
one pass more. Gain: see benchmarks/ablation.md.
"""

from collections.abc import Iterable, Sequence
from functools import cache
from itertools import accumulate
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from models.methods.lora_layers import DoRALinear, LoRALinear
from models.methods.method import added_modules

FEW = 64  # rows up to which, in fp32, oneDNN takes longer to begin than a product takes

Part = tuple[Tensor, Tensor | None, Tensor | None, Tensor | None, float]  # W, b, A, B, scaling


@cache
def takes_onednn(dtype: torch.dtype) -> bool:
    """Whether oneDNN's linear layer is built into torch, and fast in this dtype here."""
    onednn = torch.ops.mkldnn
    if not torch.backends.mkldnn.is_available() or not hasattr(onednn, "_linear_pointwise"):
        return False
    bf16 = dtype == torch.bfloat16 and onednn._is_mkldnn_bf16_supported()
    return dtype == torch.float32 or bf16


def multiply(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x W^T + b: x (N, in), W (out, in), b (out,), all of one dtype -> (N, out)."""
    compiles = torch.compiler.is_compiling()  # then torch's own, which inductor knows
    few = len(x) <= FEW and x.dtype == torch.float32
    if x.device.type == "cpu" and x.numel() and not (few or compiles) and takes_onednn(x.dtype):
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return F.linear(x, weight, bias)


def by_row(x: Tensor) -> Tensor:
    """x (..., C) as (N, C), also where N is 0."""
    return x.reshape(x.shape[:-1].numel(), x.shape[-1])


def cast(tensor: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """The tensor in another dtype, where there is one."""
    return tensor if tensor is None or tensor.dtype == dtype else tensor.to(dtype)


def add_up(
    x: Tensor, dtype: torch.dtype, scalings: Sequence[float], tensors: Sequence[Tensor | None]
) -> tuple[list[Tensor], Tensor, list[Tensor | None]]:
    """The outputs (N, out) of Product; and in `dtype`, which is autocast's where it is on, what a
    backward pass needs: x as (N, in), and W, x A^T (N, R), A, B of each part."""
    outs, saved, flat = [], list[Tensor | None](), by_row(x).to(dtype)  # (N, in)
    for i, scaling in enumerate(scalings):
        W, b, A, B = (cast(t, dtype) for t in tensors[4 * i : 4 * i + 4])
        assert W is not None
        out, low = multiply(flat, W, b), None  # (N, out)
        if A is not None and B is not None:
            low = flat @ A.T  # (N, R)
            out.addmm_(low, B.T, alpha=scaling)
        outs.append(out)
        saved += [W, low, A, B]
    return outs, flat, saved


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
        ctx.rest = (x.shape, x.dtype, scalings, [None if t is None else t.dtype for t in tensors])
        return tuple(outs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple:
        flat, *saved = ctx.saved_tensors
        shape, x_dtype, scalings, dtypes = ctx.rest
        needs, results = ctx.needs_input_grad[3:], list[Any]([None] * len(dtypes))
        flats = [None if g is None else by_row(g) for g in grads]  # (N, out)
        grad_x = None
        with torch.autocast(saved[0].device.type, enabled=False):
            if ctx.needs_input_grad[0] and any(g is not None for g in flats):
                grad_x = input_gradient([(g, W) for g, W in zip(flats, saved[::4], strict=True)])
            for part, (g, scaling) in enumerate(zip(flats, scalings, strict=True)):
                if g is None:
                    continue
                W, b, A, B = range(4 * part, 4 * part + 4)
                if needs[W]:
                    results[W] = (g.T @ flat).to(dtypes[W])
                if needs[b]:
                    results[b] = g.sum(0).to(dtypes[b])
                if dtypes[A] is None:
                    continue
                # thin products as MKL is fast in them: R rows of an operand, not R columns
                grad_low = F.linear(g, saved[B].T.contiguous()).mul_(scaling)  # (N, R)
                if needs[A]:
                    results[A] = (grad_low.T @ flat).to(dtypes[A])
                if needs[B]:
                    results[B] = (saved[4 * part + 1].T @ g).T.to(dtypes[B]).mul_(scaling)
                if grad_x is not None:
                    grad_x.addmm_(grad_low, saved[A])
        if grad_x is not None:
            grad_x = grad_x.to(x_dtype).view(shape)
        return grad_x, None, None, *results


def input_gradient(pairs: list[tuple[Tensor | None, Tensor]]) -> Tensor:
    """The sum of g (N, out) W (out, in) over the parts with a gradient, as one product."""
    grads, weights = zip(*[(g, W) for g, W in pairs if g is not None], strict=True)
    return side_by_side(grads) @ (weights[0] if len(weights) == 1 else torch.cat(weights))


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


def part_of(layer: nn.Module) -> Part | None:
    """What Product needs of a layer; None where the layer has to run as it is."""
    if getattr(layer.forward, "__func__", None) is not product_forward:
        return None
    if isinstance(layer, nn.Linear):
        return layer.weight, layer.bias, None, None, 1.0
    assert isinstance(layer, LoRALinear)
    if layer.merged:
        return layer.base.weight, layer.base.bias, None, None, 1.0
    if layer.training and isinstance(layer.dropout, nn.Dropout):  # two inputs, not one
        return None
    bias = None if isinstance(layer, DoRALinear) else layer.base.bias
    return layer.base.weight, bias, *layer.pair(), layer.scaling


def lengthen(layer: nn.Module, out: Tensor) -> Tensor:
    """What a layer gives, (..., out), from what Product gives of its part: DoRA's rows have lengths
    of their own, and its bias comes after them."""
    if not isinstance(layer, DoRALinear) or layer.merged:
        return out
    long = out * layer.gain()  # in fp32: bf16 would round away what the lengths learn
    return (long if layer.base.bias is None else long + layer.base.bias).to(out.dtype)


def project(x: Tensor, layers: Sequence[nn.Module]) -> tuple[Tensor, ...]:
    """The outputs (..., out) of several layers for one x (..., in)."""
    parts = [None if is_hooked(layer) else part_of(layer) for layer in layers]
    joined = iter(multiply_parts(x, [part for part in parts if part is not None]))
    pairs = zip(layers, parts, strict=True)
    return tuple(
        layer(x) if part is None else lengthen(layer, next(joined)) for layer, part in pairs
    )


def is_hooked(layer: nn.Module) -> bool:
    """Whether a hook waits for this layer to be called."""
    hooks = (
        layer._forward_hooks, layer._forward_pre_hooks, layer._backward_hooks,
        layer._backward_pre_hooks,
    )  # fmt: skip
    return any(hooks)


def multiply_parts(x: Tensor, parts: Sequence[Part]) -> tuple[Tensor, ...]:
    """Product of x with these parts, in autocast's dtype where it is on."""
    if not parts:
        return ()
    kind = x.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
    tensors = [t for *four, _ in parts for t in four]
    scalings = tuple(scaling for *_, scaling in parts)
    if torch.is_grad_enabled():
        outs = Product.apply(x, dtype, scalings, *tensors)
    else:  # a short text would wait for autograd longer than for products
        outs = add_up(x, dtype, scalings, tensors)[0]
    return tuple(out.view(*x.shape[:-1], out.shape[1]) for out in outs)  # (..., out)


def product_forward(layer: Any, x: Tensor) -> Tensor:
    """The forward of a single layer; the plain one where an adapter's dropout asks for it."""
    part = part_of(layer)
    if part is None:
        return type(layer).forward(layer, x)
    return lengthen(layer, multiply_parts(x, [part])[0])


def is_known(layer: nn.Module) -> bool:
    """Whether this is an adapter that computes what part_of and lengthen say."""
    ours = LoRALinear.forward, DoRALinear.forward
    return isinstance(layer, LoRALinear) and type(layer).forward in ours


def fuse(layers: Iterable[nn.Module]) -> list[nn.Module]:
    """Give these layers the forward above, in place; returns which. Only a plain Linear, and a
    LoRA layer of ours over one: what else computes is not known here."""
    fused = []
    for layer in layers:
        over = layer.base if is_known(layer) else layer
        if type(over) is nn.Linear:
            layer.forward = MethodType(product_forward, layer)
            fused.append(layer)
    return fused


def fuse_lora(model: nn.Module) -> list[nn.Module]:
    """Adapters as one function with their base; returns which."""
    return fuse(added_modules(model).values())


def fuse_linear(backbone: nn.Module, dtype: torch.dtype) -> list[nn.Module]:
    """The linear layers without an adapter, on the CPU; returns which."""
    if not takes_onednn(dtype):
        return []
    adapted = [m for m in added_modules(backbone).values() if is_known(m)]
    bases = {id(layer.base) for layer in adapted}
    return fuse(m for m in backbone.modules() if type(m) is nn.Linear and id(m) not in bases)
