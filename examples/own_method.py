"""A method of your own: (IA)3, which learns one factor for each output of a layer
(Liu et al. 2022, arXiv:2205.05638).

    python train.py --config configs/imdb_quick.toml --unset lora run.name=ia3 train.lr=0.02 \\
        method.kind=examples/own_method.py:IA3 --allow-code
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from models.methods.linears import choose_layers, linear_size, linears_of, replace_layers
from models.methods.method import Added, Method


class Scaled(Added):
    def __init__(self, base: Any) -> None:
        super().__init__()
        self.base = base  # the layer that stood there, frozen
        self.scale = nn.Parameter(torch.ones(linear_size(base)[1]))

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) * self.scale  # (..., out)


@dataclass(frozen=True)
class IA3(Method):
    targets: Any = "all-linear"

    def inject(self, model: nn.Module, seed: int, exclude: Any = ()) -> list[str]:
        layers = linears_of(model, exclude)
        chosen = choose_layers(list(layers), self.targets, None, "method.args")
        replace_layers(model, {layers[name]: Scaled(layers[name]) for name in chosen})
        return [f"IA3: {len(chosen)} layers scaled"]
