"""Linear layers, with their LoRA adapters, as one autograd function over one input (products.py).

Replaces LoRALinear.forward, which makes three passes over (N, out) to scale and add, and under
autocast rounds between them. Replaces nn.Linear.forward, and that of GPT-2's Conv1D, on the CPU,
where torch copies the bias over the whole output before a product: oneDNN's own linear layer adds
it as it writes. Several layers that read one input (query, key, value; gate and up) are one
function. DoRA's lengths multiply what comes out, in one pass more. Gain: benchmarks/ablation.md.
"""

from collections.abc import Iterable, Sequence
from types import MethodType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from models.fast.products import Product, add_up, takes_onednn
from models.methods.lora_layers import DoRALinear, LoRALinear
from models.methods.method import added_modules

if TYPE_CHECKING:
    from models.fast.cpu.native import NativeKernels

Part = tuple[Tensor, Tensor | None, Tensor | None, Tensor | None, float]  # W, b, A, B, scaling


def part_of(layer: Any) -> Part | None:
    """What Product needs of a layer; None where the layer has to run as it is."""
    if getattr(layer.forward, "__func__", None) is not product_forward:
        return None
    if not isinstance(layer, LoRALinear):
        return weight_of(layer), layer.bias, None, None, 1.0
    if layer.merged:
        return weight_of(layer.base), layer.base.bias, None, None, 1.0
    if layer.training and isinstance(layer.dropout, nn.Dropout):  # two inputs, not one
        return None
    bias = None if isinstance(layer, DoRALinear) else layer.base.bias
    return weight_of(layer.base), bias, *layer.pair(), layer.scaling


def weight_of(layer: Any) -> Tensor:
    """The weight (out, in) of a Linear, or of GPT-2's Conv1D, which keeps it as (in, out)."""
    return layer.weight.T if isinstance(layer, Conv1D) else layer.weight


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
    joined = iter(multiply_parts(x, [p for p in parts if p is not None], native_of(layers[0])))
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


def native_of(layer: nn.Module) -> "NativeKernels | None":
    """The kernels that lend_native gave a layer."""
    return getattr(layer, "native", None)


def lend_native(model: nn.Module, native: "NativeKernels") -> list[nn.Module]:
    """Let the layers with the forward below use these kernels where no gradient is asked for;
    returns which."""
    layers = [m for m in model.modules() if getattr(m.forward, "__func__", 0) is product_forward]
    for layer in layers:
        layer.native = native  # type: ignore[assignment]
    return layers


def multiply_parts(
    x: Tensor, parts: Sequence[Part], native: "NativeKernels | None" = None
) -> tuple[Tensor, ...]:
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
        outs = add_up(x, dtype, scalings, tensors, native)[0]
    return tuple(out.view(*x.shape[:-1], out.shape[1]) for out in outs)  # (..., out)


def product_forward(layer: Any, x: Tensor) -> Tensor:
    """The forward of a single layer; the plain one where an adapter's dropout asks for it."""
    part = part_of(layer)
    if part is None:
        return type(layer).forward(layer, x)
    return lengthen(layer, multiply_parts(x, [part], native_of(layer))[0])


def is_known(layer: nn.Module) -> bool:
    """Whether this is an adapter that computes what part_of and lengthen say."""
    ours = LoRALinear.forward, DoRALinear.forward
    return isinstance(layer, LoRALinear) and type(layer).forward in ours


def fuse(layers: Iterable[nn.Module]) -> list[nn.Module]:
    """Give these layers the forward above, in place; returns which. Only a plain Linear or Conv1D,
    and a LoRA layer of ours over one: what else computes is not known here."""
    fused = []
    for layer in layers:
        over = layer.base if is_known(layer) else layer
        if type(over) in (nn.Linear, Conv1D):
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
    kinds = (nn.Linear, Conv1D)
    return fuse(m for m in backbone.modules() if type(m) in kinds and id(m) not in bases)
