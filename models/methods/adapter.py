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
("feed_forward"). Where these parts end is seen in a forward pass, whatever they are called. The
activation bends the path, so no one weight does the work of both: nothing is merged.
"""

from collections.abc import Collection
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from files.errors import meets_limit, one_line
from models.heads import ACTIVATIONS, backbone_name, transformers_model
from models.layers import layer_lists
from models.limits import check_bytes
from models.methods.linears import is_linear, linear_size, replace_layers
from models.methods.method import Added, Method
from models.methods.own_files import read_own, write_own
from models.names import is_below, named_seed

PLACEMENTS = ("both", "feed_forward")


class Bottleneck(Added):
    """`base` (a Linear or GPT-2's Conv1D), then y + up(act(down(y))) on what it gives."""

    def __init__(self, base: nn.Linear | Conv1D, size: int, activation: str) -> None:
        super().__init__()
        width = linear_size(base)[1]
        like: Any = {"device": base.weight.device, "dtype": torch.float32}
        self.base = base
        self.down = nn.Linear(width, size, **like)
        self.activation = ACTIVATIONS[activation]()
        self.up = nn.Linear(size, width, **like)

    def forward(self, x: Tensor) -> Tensor:
        y = self.base(x)  # (..., D)
        inner = self.activation(self.down(y))  # (..., S)
        return y + self.up(inner)

    # What model code asks of the layer that this one stands for.

    @property
    def weight(self) -> Tensor:
        return self.base.weight

    @property
    def bias(self) -> Tensor | None:
        return self.base.bias

    def merged_weight(self) -> Tensor:
        raise ValueError(
            "an adapter cannot be merged: its activation makes it no product, so no one weight "
            "does the work of its layer and itself"
        )


@dataclass(frozen=True)
class Adapter(Method):
    """`size` is the width of the bottleneck; `placement` is one of PLACEMENTS."""

    kind: ClassVar[str] = "adapter"

    size: int = 32
    placement: str = "both"
    activation: str = "gelu"

    def check(self) -> None:
        if self.size < 1:
            raise ValueError(f"adapter.size is {self.size}; expected 1 or more")
        for name, known in (("placement", PLACEMENTS), ("activation", ACTIVATIONS)):
            if (value := getattr(self, name)) not in known:
                raise ValueError(f"adapter.{name} is {value!r}; expected {', '.join(known)}")

    def inject(self, model: nn.Module, seed: int, exclude: Collection[str] = ()) -> list[str]:
        self.check()
        names = [name for name in self.places(model) if not is_below(name, exclude)]
        if not names:
            raise ValueError(
                "adapter: every layer trains whole already, so none is left for an adapter: "
                "lower the N of model.train, or remove [adapter]"
            )
        layers: dict[str, Any] = {name: model.get_submodule(name) for name in names}
        numbers = 2 * self.size * sum(linear_size(layer)[1] for layer in layers.values())
        check_bytes(4 * numbers, f"adapter.size = {self.size:,}")
        put = {layer: self._make(layer, name, seed) for name, layer in layers.items()}
        replace_layers(model, put)
        return [f"adapter: {len(put)} of {self.size} wide, after {', '.join(_endings(names))}"]

    def _make(self, layer: Any, name: str, seed: int) -> Bottleneck:
        with torch.random.fork_rng(devices=[]):  # nn.Linear draws a beginning of its own
            adapter = Bottleneck(layer, self.size, self.activation)
        draw = torch.Generator().manual_seed(named_seed(seed, f"{name}.down.weight"))
        values = torch.empty(adapter.down.weight.shape)
        nn.init.kaiming_uniform_(values, a=5**0.5, generator=draw)
        with torch.no_grad():
            adapter.down.weight.copy_(values)
            for zero in (adapter.down.bias, adapter.up.weight, adapter.up.bias):
                zero.zero_()
        return adapter.train(layer.training)

    def places(self, model: nn.Module) -> list[str]:
        """Names of the layers that end attention and feed-forward. ValueError where there are
        none."""
        root = backbone_name(model)
        lists, depth = layer_lists(model.get_submodule(root))
        if not lists:
            raise ValueError(
                "adapter: this backbone has no list with a module for each of its layers, so where "
                "one ends is not known; take [lora]"
            )
        called, found = linears_called(model), []
        for number in range(depth):
            inside = [f"{root}.{name}.{number}" for name in lists]
            own = [name for name in called if is_below(name, inside)]
            attention = [name for name in own if _attends(name, root)]
            if self.placement == "both":
                found.append(_last(attention, number, "attention", "feed_forward"))
            after = own if not attention else own[own.index(attention[-1]) + 1 :]
            found.append(_last(after, number, "feed-forward", None))
        return list(dict.fromkeys(found))

    def write(self, model: nn.Module, base: str | None, revision: str | None, folder: Path) -> None:
        write_own(model, folder)

    def read(self, model: nn.Module, folder: Path) -> set[str]:
        return read_own(model, folder)

    def as_written(self, folder: Path) -> "Adapter":
        return self  # where they stand follows from the model alone


def linears_called(model: nn.Module) -> list[str]:
    """Names of the linear layers that answer every token with a vector as wide as the hidden
    states, in the order in which a forward pass calls them last."""
    inner = transformers_model(model)
    hidden_size = getattr(inner.config.get_text_config(), "hidden_size", None)
    ids = torch.full((1, 16), 5)  # (1, T)
    end = getattr(inner.config, "eos_token_id", None)
    if isinstance(end, int):
        ids[0, -1] = end  # some heads look for it
    called: dict[str, None] = {}

    def note(name: str, out: Tensor) -> None:
        called.pop(name, None)
        if out.numel() == ids.numel() * out.shape[-1]:
            called[name] = None

    with ExitStack() as stack:
        for name, module in model.named_modules():
            if is_linear(module) and linear_size(module)[1] == hidden_size:
                hook = module.register_forward_hook(lambda _, __, out, name=name: note(name, out))
                stack.callback(hook.remove)
        training = model.training
        stack.callback(model.train, training)
        stack.enter_context(torch.random.fork_rng(devices=[]))
        try:
            with torch.no_grad():
                model.eval()(input_ids=ids, attention_mask=torch.ones_like(ids))
        except Exception as error:  # whatever the model's code raises
            if meets_limit(error):
                raise
            raise ValueError(
                f"adapter: the model cannot be tried: {one_line(error, 300)}"
            ) from error
    return list(called)


def _attends(name: str, root: str) -> bool:
    """Whether a part of a dotted name says attention, as every library spells it."""
    return any("att" in part.lower() for part in name.removeprefix(root).split("."))


def _last(names: list[str], number: int, part: str, instead: str | None) -> str:
    if not names:
        advice = (
            f'set adapter.placement = "{instead}", or take [lora]' if instead else "take [lora]"
        )
        raise ValueError(
            f"adapter: no linear layer ends the {part} of layer {number} of this model; {advice}"
        )
    return names[-1]


def _endings(names: list[str]) -> list[str]:
    """The distinct names behind the number of a layer: attention.output.dense, ..."""
    cut = [name.split(".") for name in names]
    behind = [
        ".".join(parts[next((i for i, p in enumerate(parts) if p.isdigit()), -1) + 1 :])
        for parts in cut
    ]
    return list(dict.fromkeys(behind))
