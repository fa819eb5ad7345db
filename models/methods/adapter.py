"""Bottleneck adapters (Houlsby et al. 2019, arXiv:1902.00751; Pfeiffer et al. 2021,
arXiv:2005.00247): a small network that bends what a part of each layer adds to the residual.

         attention, or feed-forward
                   │
      its last linear layer (frozen)
                   │ y (..., D)
          ┌────────┤
          │   down (S, D)      within ±1/sqrt(D), bias zero
          │   activation
          │   up (D, S)        zero: the first forward is the base's own
          └───────(+)
                   │ y + up(act(down(y)))
     dropout, residual, norm, as they were

Houlsby puts one after attention and one after the feed-forward ("both"), Pfeiffer the second alone
("feed_forward"). Where these parts end is seen in a forward pass, whatever they are called. It
stands after the sublayer's projection and before the residual is added, as the paper has it, and
before the sublayer's dropout, which the authors' code has before it. The activation bends the path,
so no one weight does the work of both: nothing is merged.
"""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from models.heads import ACTIVATIONS
from models.limits import check_bytes
from models.methods.linears import replace_layers
from models.methods.method import Added, Method, draw_uniform
from models.methods.own_files import read_own, write_own
from models.methods.sublayers import layer_norms, output_width, sublayer_ends
from models.names import is_below

PLACEMENTS = ("both", "feed_forward")


class Bottleneck(Added):
    """`base` (a Linear, GPT-2's Conv1D, or a convolution one token wide, which gives columns), then
    y + up(act(down(y))) on what it gives."""

    def __init__(self, base: nn.Linear | Conv1D | nn.Conv1d, size: int, activation: str) -> None:
        super().__init__()
        width = output_width(base)
        like: Any = {"device": base.weight.device, "dtype": torch.float32}
        self.base = base
        self.down = nn.Linear(width, size, **like)
        self.activation = ACTIVATIONS[activation]()
        self.up = nn.Linear(size, width, **like)

    def forward(self, x: Tensor) -> Tensor:
        y = self.base(x)  # (..., D), or (B, D, T) of columns
        columns = isinstance(self.base, nn.Conv1d)
        inner = self.activation(self.down(y.mT if columns else y))  # (..., S)
        change = self.up(inner)  # (..., D)
        return y + (change.mT if columns else change)

    def merged_weight(self) -> Tensor:
        raise ValueError(
            "an adapter cannot be merged: its activation makes it no product, so no one weight "
            "does the work of its layer and itself"
        )


@dataclass(frozen=True)
class Adapter(Method):
    """`size` is the width of the bottleneck; `placement` is one of PLACEMENTS; with `norms` those
    of the adapted layers learn too."""

    kind: ClassVar[str] = "adapter"
    beside_biases: ClassVar[bool] = True
    small: ClassVar[dict[str, dict[str, Any]]] = {
        "adapter": {"size": 2},
        "adapter, feed-forward": {"size": 2, "placement": "feed_forward", "activation": "tanh"},
        "adapter, norms": {"size": 2, "norms": True},
    }

    size: int = 32
    placement: str = "both"
    activation: str = "gelu"
    norms: bool = False

    def check(self) -> None:
        if self.size < 1:
            raise ValueError(f"adapter.size is {self.size}; expected 1 or more")
        for name, known in (("placement", PLACEMENTS), ("activation", ACTIVATIONS)):
            if (value := getattr(self, name)) not in known:
                raise ValueError(f"adapter.{name} is {value!r}; expected {', '.join(known)}")

    def inject(self, model: nn.Module, seed: int, exclude: Collection[str] = ()) -> list[str]:
        self.check()
        ends = sublayer_ends(model, attention=self.placement == "both")
        names = [name for name in ends if not is_below(name, exclude)]
        if not names:
            raise ValueError(
                "adapter: every layer trains whole already, so none is left for an adapter: "
                "lower the N of model.train, or remove [adapter]"
            )
        layers: dict[str, Any] = {name: model.get_submodule(name) for name in names}
        numbers = 2 * self.size * sum(output_width(layer) for layer in layers.values())
        check_bytes(4 * numbers, f"adapter.size = {self.size:,}")
        put = {layer: self._make(layer, name, seed) for name, layer in layers.items()}
        replace_layers(model, put)
        return [f"adapter: {len(put)} of {self.size} wide, after {', '.join(_endings(names))}"]

    def _make(self, layer: Any, name: str, seed: int) -> Bottleneck:
        with torch.random.fork_rng(devices=[]):  # nn.Linear draws a beginning of its own
            adapter = Bottleneck(layer, self.size, self.activation)
        draw_uniform(adapter.down.weight, seed, f"{name}.down.weight")
        with torch.no_grad():
            for zero in (adapter.down.bias, adapter.up.weight, adapter.up.bias):
                zero.zero_()
        return adapter.train(layer.training)

    def also_trains(self, model: nn.Module) -> list[str]:
        if not self.norms:
            return []
        if not (norms := layer_norms(model)):
            raise ValueError(
                "adapter.norms is true, but no norm in the layers of this model has "
                "weights to train: leave it out"
            )
        return norms

    def write(self, model: nn.Module, base: str | None, revision: str | None, folder: Path) -> None:
        write_own(model, folder)

    def read(self, model: nn.Module, folder: Path) -> set[str]:
        return read_own(model, folder)

    def as_written(self, folder: Path) -> "Adapter":
        return self  # where they stand follows from the model alone


def _endings(names: list[str]) -> list[str]:
    """The distinct names behind the number of a layer: attention.output.dense, ..."""
    cut = [name.split(".") for name in names]
    behind = [
        ".".join(parts[next((i for i, p in enumerate(parts) if p.isdigit()), -1) + 1 :])
        for parts in cut
    ]
    return list(dict.fromkeys(behind))
