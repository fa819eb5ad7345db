"""Linear layers of a model: which modules are some, and which of them a recipe means."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.pytorch_utils import Conv1D

from files.errors import meets_limit
from models.architectures import sees
from models.names import is_below, is_suffix, layer_number


@torch.no_grad()
def is_linear(module: nn.Module) -> bool:
    """Whether a module multiplies by its weight and does no more. What inherits from Linear may do
    anything (a router answers with two tensors), and an adapter beside it would be wrong: it is
    tried on two rows."""
    if type(module).forward in (nn.Linear.forward, Conv1D.forward):
        return True
    if not isinstance(module, nn.Linear):
        return False
    x = torch.linspace(-1, 1, 2 * module.in_features, dtype=module.weight.dtype)
    x = x.view(2, -1).to(module.weight.device)  # (2, in)
    try:
        out = module(x)
    except Exception as error:  # it wants other arguments
        if meets_limit(error):
            raise
        return False
    plain = F.linear(x, module.weight, module.bias)  # (2, out)
    return isinstance(out, Tensor) and out.shape == plain.shape and torch.allclose(out, plain, 1e-3)


def beyond_linear(model: nn.Module) -> str:
    """What no adapter can reach: weights of more than two dimensions, as experts that lie in one
    tensor; "" where there are none."""
    stacked = [p.numel() for p in model.parameters() if p.dim() > 2]
    return f"; {sum(stacked):,} weights of experts or convolutions get none" if stacked else ""


def linear_size(layer: nn.Linear | Conv1D) -> tuple[int, int]:
    """(in, out) of a layer; GPT-2's Conv1D keeps its weight as (in, out), a Linear as (out, in)."""
    rows, columns = layer.weight.shape
    return (rows, columns) if isinstance(layer, Conv1D) else (columns, rows)


def linears_of(model: nn.Module, exclude: Collection[str]) -> dict[str, nn.Linear | Conv1D]:
    """The linear layers of a model by name, but for what lies in `exclude` or sees pictures."""
    return {
        name: module
        for name, module in model.named_modules()
        if is_linear(module) and not is_below(name, exclude) and not sees(name)
    }


def choose_layers(
    names: Sequence[str], targets: Sequence[str] | Literal["all-linear"],
    layers: tuple[int, int] | None, section: str,
) -> list[str]:  # fmt: skip
    """The names that the targets fit, each target by suffix on a dot boundary, within `layers`, an
    inclusive range. Raises ValueError, with the section of a recipe, for a target that fits none.
    """
    inside = [name for name in names if _in_layers(name, layers)]
    numbers = sorted({n for name in names if (n := layer_number(name)) is not None})
    if layers and numbers and inside and layers[1] > numbers[-1]:
        raise ValueError(
            f"{section}.layers is {list(layers)}; the layers are {numbers[0]} to {numbers[-1]}"
        )
    if targets == "all-linear":
        unmatched = [] if inside else ["all-linear"]
        chosen = inside
    else:
        unmatched = [t for t in targets if not any(is_suffix(t, name) for name in inside)]
        chosen = [name for name in inside if any(is_suffix(t, name) for t in targets)]
    if unmatched:
        counts = Counter(name.rpartition(".")[2] for name in inside)
        known = ", ".join(f"{suffix} (x{count})" for suffix, count in counts.items())
        within = f" in {section}.layers {list(layers)}" if layers else ""
        span = f"; the layers are {numbers[0]} to {numbers[-1]}" if numbers and within else ""
        raise ValueError(
            f"{section}.targets: {', '.join(map(repr, unmatched))} fits no layer{within}; "
            f"expected names out of: {known or 'none'}{span}"
        )
    return chosen


def _in_layers(name: str, layers: tuple[int, int] | None) -> bool:
    number = layer_number(name)
    return layers is None or (number is not None and layers[0] <= number <= layers[1])


def replace_layers(model: nn.Module, others: Mapping[nn.Module, nn.Module]) -> None:
    """Put each of these modules in the place of the one it is listed under; a layer that stands in
    two places stays one."""
    for name, module in list(model.named_modules(remove_duplicate=False)):
        if module in others:
            model.set_submodule(name, others[module])
