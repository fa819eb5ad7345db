"""LoRA by hand (Hu et al. 2021, arXiv:2106.09685): a frozen layer and a low-rank path beside it.

              x (..., in)
        ┌─────────┴─────────┐
        │                dropout
        │                   │
    base (frozen)     lora_A (R, in)     Kaiming-uniform: within ±1/sqrt(in)
     W x + b                │
        │             lora_B (out, R)    zero: the first forward is the base's own
        │                   │
        │           · scaling = alpha/R
        └─────────(+)───────┘
              y (..., out)

The two paths become one weight, W + scaling · B A, only when merge_lora is called; going into
evaluation mode changes nothing.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.pytorch_utils import Conv1D

from files.errors import meets_limit
from models.architectures import sees
from models.limits import check_bytes


@dataclass(frozen=True)
class LoRAArgs:
    """`layers` is an inclusive range of layer numbers; `variant` is a row of ADAPTERS."""

    targets: tuple[str, ...] | Literal["all-linear"]
    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    layers: tuple[int, int] | None = None
    variant: str = "lora"


class LoRALinear(nn.Module):
    """`base` (a Linear or GPT-2's Conv1D) plus scaling · B A x. A variant overrides `forward` and
    `merged_weight` and is a row of ADAPTERS. In a run models/fast/linear.py:product_forward
    computes the same in its place, unless speed.lora is off."""

    def __init__(self, base: nn.Linear | Conv1D, rank: int, alpha: float, dropout: float) -> None:
        super().__init__()
        inputs, outputs = linear_size(base)
        self.base = base
        self.scaling = alpha / rank
        self.lora_A = nn.Parameter(base.weight.new_empty(rank, inputs))
        self.lora_B = nn.Parameter(base.weight.new_zeros(outputs, rank))
        self.dropout = nn.Dropout(dropout) if dropout > 0 else nn.Identity()
        self.merged = False

    def forward(self, x: Tensor) -> Tensor:
        out = self.base(x)  # (..., out)
        if self.merged:
            return out
        low = F.linear(self.dropout(x), self.lora_A)  # (..., R)
        return out + F.linear(low, self.lora_B) * self.scaling

    # What model code asks of the layer that this one stands for.

    @property
    def weight(self) -> Tensor:
        """What a Linear here would multiply by, in its dtype: code that multiplies by `weight`
        itself (DeBERTa does) sees the adapter too, though not its dropout."""
        if self.merged:
            return self.base.weight
        return self.merged_weight().to(self.base.weight.dtype)

    @property
    def bias(self) -> Tensor | None:
        return self.base.bias

    @property
    def in_features(self) -> int:
        return self.lora_A.shape[1]

    @property
    def out_features(self) -> int:
        return self.lora_B.shape[0]

    def change(self) -> Tensor:
        """scaling · B A, laid out as base.weight is: (out, in), for a Conv1D (in, out)."""
        change = (self.lora_B @ self.lora_A) * self.scaling
        return change.T if isinstance(self.base, Conv1D) else change

    def merged_weight(self) -> Tensor:
        """The one weight that does the work of both paths, laid out as base.weight is."""
        return self.base.weight + self.change()


ADAPTERS: dict[str, type[LoRALinear]] = {"lora": LoRALinear}


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


def adapters_of(model: nn.Module) -> dict[str, LoRALinear]:
    """The adapted layers of a model by name, in the model's order."""
    return {name: m for name, m in model.named_modules() if isinstance(m, LoRALinear)}


def inject_lora(
    model: nn.Module, args: LoRAArgs, seed: int, exclude: Collection[str] = ()
) -> list[str]:
    """Wrap the targeted layers of a model whose weights are loaded; returns their names in order.

    `exclude` names modules to leave alone, with all below them: the head, and what trains whole.
    lora_A is drawn from (seed, parameter name) alone, so neither the order nor the choice of other
    targets moves it. requires_grad is not touched. Raises ValueError for a target that fits
    nothing and for arguments out of range.
    """
    _check_args(args)
    linears = {
        name: module
        for name, module in model.named_modules()
        if is_linear(module) and not is_below(name, exclude) and not sees(name)
    }
    chosen = _choose_targets(list(linears), args)
    places: dict[nn.Module, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        places.setdefault(module, []).append(name)
    numbers = args.rank * sum(sum(linear_size(linears[name])) for name in chosen)
    check_bytes(4 * numbers, f"lora.rank = {args.rank:,}")
    for name in chosen:
        adapter = ADAPTERS[args.variant](linears[name], args.rank, args.alpha, args.dropout)
        draw = torch.Generator().manual_seed(named_seed(seed, f"{name}.lora_A"))
        # Kaiming-uniform with a = sqrt(5), as in the paper's code, is uniform in ±1/sqrt(in).
        values = torch.empty(adapter.lora_A.shape)
        nn.init.kaiming_uniform_(values, a=5**0.5, generator=draw)
        with torch.no_grad():
            adapter.lora_A.copy_(values)
        for place in places[linears[name]]:  # a layer that stands in two places stays one
            model.set_submodule(place, adapter)
    return chosen


def _check_args(args: LoRAArgs) -> None:
    if args.rank < 1:
        raise ValueError(f"lora.rank is {args.rank}; expected 1 or more")
    if args.alpha <= 0:
        raise ValueError(f"lora.alpha is {args.alpha}; expected more than 0")
    if not 0 <= args.dropout < 1:
        raise ValueError(f"lora.dropout is {args.dropout}; expected 0 <= dropout < 1")
    if args.variant not in ADAPTERS:
        raise ValueError(f"adapter {args.variant!r} is unknown; expected {', '.join(ADAPTERS)}")
    if not args.targets or (isinstance(args.targets, str) and args.targets != "all-linear"):
        raise ValueError(
            f"lora.targets is {args.targets!r}; expected a list of layer names, or 'all-linear'"
        )


def _choose_targets(names: list[str], args: LoRAArgs) -> list[str]:
    """The names that the targets fit, each target by suffix on a dot boundary, within `layers`."""
    inside = [name for name in names if _in_layers(name, args.layers)]
    targets = args.targets
    if targets == "all-linear":
        unmatched = [] if inside else ["all-linear"]
        chosen = inside
    else:
        unmatched = [t for t in targets if not any(_is_suffix(t, name) for name in inside)]
        chosen = [name for name in inside if any(_is_suffix(t, name) for t in targets)]
    if unmatched:
        counts = Counter(name.rpartition(".")[2] for name in inside)
        known = ", ".join(f"{suffix} (x{count})" for suffix, count in counts.items())
        numbers = sorted({n for name in names if (n := layer_number(name)) is not None})
        within = f" in lora.layers {list(args.layers)}" if args.layers else ""
        span = f"; the layers are {numbers[0]} to {numbers[-1]}" if numbers and within else ""
        raise ValueError(
            f"lora.targets: {', '.join(map(repr, unmatched))} fits no layer{within}; "
            f"expected names out of: {known or 'none'}{span}"
        )
    return chosen


def _is_suffix(target: str, name: str) -> bool:
    return name == target or name.endswith("." + target)


def is_below(name: str, modules: Collection[str]) -> bool:
    """Whether a dotted name is one of these modules, or lies inside one."""
    return any(name == module or name.startswith(module + ".") for module in modules)


def layer_number(name: str) -> int | None:
    """The layer a name belongs to: its first part that is a number."""
    match = re.search(r"(?:^|\.)(\d+)(?:\.|$)", name)
    return int(match.group(1)) if match else None


def _in_layers(name: str, layers: tuple[int, int] | None) -> bool:
    number = layer_number(name)
    return layers is None or (number is not None and layers[0] <= number <= layers[1])


def named_seed(seed: int, name: str) -> int:
    """A generator's seed for one named thing: what else is drawn, and when, cannot move it."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1  # 63 bits: what a generator takes


@torch.no_grad()
def merge_lora(model: nn.Module) -> float:
    """Fold every adapter into its base weight, in place; the adapter's own path then rests.

    Returns the drift: the largest absolute difference that rounding will leave in a weight once
    unmerge_lora has taken the change out again (fp32 weights of about 0.1: near 1e-8).
    """
    drift, shared = 0.0, Counter(id(p) for m in model.modules() for p in m._parameters.values())
    for name, adapter in adapters_of(model).items():
        if adapter.merged:
            continue
        weight, merged = adapter.base.weight, adapter.merged_weight()
        if shared[id(weight)] > 1:
            raise ValueError(
                f"the adapter of {name} cannot be merged: the layer shares its weight with another"
            )
        if weight.dtype != merged.dtype:
            raise ValueError(
                f"a frozen weight is kept in {weight.dtype}, which would round the merged one: "
                "put the exact weights back first (models.fast.frozen.restore_exact)"
            )
        drift = max(drift, (merged - adapter.change() - weight).abs().max().item())
        weight.copy_(merged)
        adapter.merged = True
    return drift


@torch.no_grad()
def unmerge_lora(model: nn.Module) -> None:
    """Take every merged adapter out of its base weight again, to the drift merge_lora returned."""
    for adapter in adapters_of(model).values():
        if adapter.merged:
            adapter.base.weight.sub_(adapter.change())
            adapter.merged = False


def plain_name(name: str, adapters: Collection[str]) -> str | None:
    """A parameter's name in the model without adapters; None for a parameter of an adapter."""
    owner, _, rest = name.rpartition(".base.")
    if owner in adapters:
        return f"{owner}.{rest}"
    return None if name.rpartition(".")[0] in adapters else name


def plain_state(model: nn.Module) -> dict[str, Tensor]:
    """The state of the model without its adapters; merged adapters stay in the weights."""
    everywhere = model.named_modules(remove_duplicate=False)
    adapters = {name for name, module in everywhere if isinstance(module, LoRALinear)}
    named = ((plain_name(name, adapters), tensor) for name, tensor in model.state_dict().items())
    return {name: tensor for name, tensor in named if name is not None}
