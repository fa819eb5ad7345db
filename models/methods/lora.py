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

The two paths become one weight, W + scaling · B A, only when models.methods.method.merge is called;
going into evaluation mode changes nothing.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.pytorch_utils import Conv1D

from files.read import read_json
from models.limits import check_bytes
from models.methods.linears import (
    beyond_linear,
    choose_layers,
    linear_size,
    linears_of,
    replace_layers,
)
from models.methods.method import Added, Method, added_modules
from models.methods.peft_files import read_adapter, read_targets, write_adapter
from models.names import named_seed


class LoRALinear(Added):
    """`base` (a Linear or GPT-2's Conv1D) plus scaling · B A x. A variant overrides `forward` and
    `merged_weight` and is a row of VARIANTS. In a run models/fast/linear.py:product_forward
    computes the same in its place, unless speed.lora is off."""

    peft_names: ClassVar[dict[str, str]] = {"lora_A": "lora_A.weight", "lora_B": "lora_B.weight"}

    def __init__(self, base: nn.Linear | Conv1D, rank: int, alpha: float, dropout: float) -> None:
        super().__init__()
        inputs, outputs = linear_size(base)
        self.base = base
        self.scaling = alpha / rank
        self.lora_A = nn.Parameter(base.weight.new_empty(rank, inputs))
        self.lora_B = nn.Parameter(base.weight.new_zeros(outputs, rank))
        self.dropout = nn.Dropout(dropout) if dropout > 0 else nn.Identity()

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


# What changes the arithmetic of an adapter in a way that LoRALinear does not compute.
UNSUPPORTED = ("use_dora", "rank_pattern", "alpha_pattern", "lora_bias", "layer_replication")
VARIANTS: dict[str, type[LoRALinear]] = {"lora": LoRALinear}


@dataclass(frozen=True)
class LoRA(Method):
    """`layers` is an inclusive range of layer numbers; `variant` is a row of VARIANTS."""

    kind: ClassVar[str] = "lora"
    small: ClassVar[dict[str, dict[str, Any]]] = {
        "LoRA": {"targets": "all-linear", "rank": 2, "alpha": 4.0}
    }

    targets: tuple[str, ...] | Literal["all-linear"]
    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    layers: tuple[int, int] | None = None
    variant: str = "lora"

    @property
    def peft(self) -> bool:
        return True

    def check(self) -> None:
        if self.rank < 1:
            raise ValueError(f"lora.rank is {self.rank}; expected 1 or more")
        if self.alpha <= 0:
            raise ValueError(f"lora.alpha is {self.alpha}; expected more than 0")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"lora.dropout is {self.dropout}; expected 0 <= dropout < 1")
        if self.variant not in VARIANTS:
            raise ValueError(f"lora.variant is {self.variant!r}; expected {', '.join(VARIANTS)}")
        targets = self.targets
        if not targets or (isinstance(targets, str) and targets != "all-linear"):
            raise ValueError(
                f"lora.targets is {targets!r}; expected a list of layer names, or 'all-linear'"
            )

    def inject(self, model: nn.Module, seed: int, exclude: Collection[str] = ()) -> list[str]:
        names = inject_lora(model, self, seed, exclude)
        return [f"lora: {len(names)} layers adapted{beyond_linear(model)}"]

    def write(self, model: nn.Module, base: str | None, revision: str | None, folder: Path) -> None:
        write_adapter(model, self.peft_config(), base, revision, folder)

    def read(self, model: nn.Module, folder: Path) -> set[str]:
        return load_adapter(model, folder)

    def as_written(self, folder: Path) -> "LoRA":
        return replace(self, targets=read_targets(folder), layers=None)

    def peft_config(self) -> dict[str, Any]:
        """What adapter_config.json says of these arguments."""
        return {
            "peft_type": "LORA",
            "r": self.rank,
            "lora_alpha": self.alpha,
            "lora_dropout": self.dropout,
            "bias": "none",
            "init_lora_weights": True,
        }


def inject_lora(
    model: nn.Module, args: LoRA, seed: int, exclude: Collection[str] = ()
) -> list[str]:
    """Wrap the targeted layers of a model whose weights are loaded; returns their names in order.

    `exclude` names modules to leave alone, with all below them: the head, and what trains whole.
    lora_A is drawn from (seed, parameter name) alone, so neither the order nor the choice of other
    targets moves it. requires_grad is not touched. Raises ValueError for a target that fits
    nothing and for arguments out of range.
    """
    args.check()
    linears = linears_of(model, exclude)
    chosen = choose_layers(list(linears), args.targets, args.layers, args.kind)
    numbers = args.rank * sum(sum(linear_size(linears[name])) for name in chosen)
    check_bytes(4 * numbers, f"lora.rank = {args.rank:,}")
    adapters: dict[nn.Module, nn.Module] = {}
    for name in chosen:
        adapter = VARIANTS[args.variant](linears[name], args.rank, args.alpha, args.dropout)
        draw = torch.Generator().manual_seed(named_seed(seed, f"{name}.lora_A"))
        # Kaiming-uniform with a = sqrt(5), as in the paper's code, is uniform in ±1/sqrt(in).
        values = torch.empty(adapter.lora_A.shape)
        nn.init.kaiming_uniform_(values, a=5**0.5, generator=draw)
        with torch.no_grad():
            adapter.lora_A.copy_(values)
        adapters[linears[name]] = adapter
    replace_layers(model, adapters)
    return chosen


def load_adapter(model: nn.Module, folder: str | Path) -> set[str]:
    """Copy an adapter in PEFT's layout (ours or one saved by PEFT) into a model with the same
    layers adapted; returns the names of the parameters and buffers that were filled.

    Raises ValueError when the adapter uses what this model's layers do not compute, was trained
    with another scaling, names a tensor the model has not, or leaves one of its adapters unfilled.
    """
    layers = [m for m in added_modules(model).values() if isinstance(m, LoRALinear)]
    config = read_json(Path(folder) / "adapter_config.json")
    _check_config(config, {layer.scaling for layer in layers}, folder)
    return read_adapter(model, Path(folder))


def _check_config(config: dict[str, Any], scalings: set[float], folder: str | Path) -> None:
    used = [name for name in UNSUPPORTED if config.get(name)]
    if config.get("bias", "none") != "none":
        used.append(f"bias={config['bias']}")
    if config.get("peft_type") != "LORA" or used:
        what = ", ".join(used) or f"peft_type {config.get('peft_type')!r}"
        raise ValueError(f"the adapter in {folder} uses {what}; only plain LoRA can be loaded")
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if not isinstance(rank, int) or rank < 1 or not isinstance(alpha, int | float):
        raise ValueError(f"the adapter in {folder} has r = {rank!r} and lora_alpha = {alpha!r}")
    scaling = alpha / (rank**0.5 if config.get("use_rslora") else rank)
    if scalings != {scaling}:
        raise ValueError(
            f"the adapter in {folder} has scaling alpha/rank = {scaling}; "
            f"this model has {sorted(scalings)}"
        )
