"""LoRA as a method: which layers get one, of which rank and kind, and how they begin. The layers
themselves, with the picture and the papers, stand in lora_layers.py; their files in lora_files.py.

Beside the variants: LoRA+ (Hayou et al. 2024, arXiv:2402.12354), where lora_B learns `plus_ratio`
times as fast as lora_A; ranks and alphas of single layers; and biases that learn too.
"""

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import nn

from models.code import METHOD_CODE, code_file, code_that_ran, load_class, telling_place
from models.heads import peft_root
from models.limits import check_bytes
from models.methods.linears import (
    beyond_linear,
    choose_layers,
    linear_size,
    linears_of,
    replace_layers,
)
from models.methods.lora_files import (
    BIASES,
    OWN_TYPE,
    biases_of,
    check_patterns,
    load_adapter,
    pattern_of,
)
from models.methods.lora_layers import VARIANTS, LoRALinear, peft_keys_of, principal_pair
from models.methods.method import Method, added_modules, draw_uniform
from models.methods.peft_files import read_targets, write_adapter

__all__ = ["VARIANTS", "LoRA", "LoRALinear", "inject_lora", "load_adapter"]

INITS = ("kaiming", "pissa")


@dataclass(frozen=True)
class LoRA(Method):
    """`layers` is an inclusive range of layer numbers; `variant` is a row of VARIANTS, or a user's
    own class. The patterns give single layers a rank or an alpha: the end of a name, or a regular
    expression for it, and the first that fits counts, as in PEFT."""

    kind: ClassVar[str] = "lora"
    small: ClassVar[dict[str, dict[str, Any]]] = {
        "LoRA": {"targets": "all-linear", "rank": 2, "alpha": 4.0},
        "DoRA": {"targets": "all-linear", "rank": 2, "variant": "dora"},
        "PiSSA": {"targets": "all-linear", "rank": 2, "variant": "dora", "init": "pissa"},
    }

    targets: tuple[str, ...] | Literal["all-linear"]
    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    layers: tuple[int, int] | None = None
    variant: str = "lora"
    init: str = "kaiming"
    plus_ratio: float = 1.0
    rank_pattern: dict[str, int] = field(default_factory=dict)
    alpha_pattern: dict[str, float] = field(default_factory=dict)
    bias: str = "none"

    @property
    def peft(self) -> bool:
        layer = VARIANTS.get(self.variant)
        return layer is not None and peft_keys_of(layer) is not None

    @property
    def code(self) -> str | None:
        return self.variant if code_file(self.variant) else None

    def check(self) -> None:
        ranks = {"lora.rank": self.rank, **_of_pattern("rank", self.rank_pattern)}
        alphas = {"lora.alpha": self.alpha, **_of_pattern("alpha", self.alpha_pattern)}
        for name, value in ranks.items():
            if type(value) is not int or value < 1:
                raise ValueError(f"{name} is {value!r}; expected an integer from 1")
        for name, value in alphas.items():
            if type(value) not in (int, float) or not 0 < value < float("inf"):
                raise ValueError(f"{name} is {value!r}; expected a number above 0")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"lora.dropout is {self.dropout}; expected 0 <= dropout < 1")
        if not 0 < self.plus_ratio < float("inf"):
            raise ValueError(f"lora.plus_ratio is {self.plus_ratio}; expected a number above 0")
        if self.variant not in VARIANTS and self.code is None:
            known = ", ".join(VARIANTS)
            raise ValueError(
                f"lora.variant is {self.variant!r}; expected {known} or 'my_file.py:MyLoRA'"
            )
        for name, word, words in (("init", self.init, INITS), ("bias", self.bias, BIASES)):
            if word not in words:
                raise ValueError(f"lora.{name} is {word!r}; expected {', '.join(words)}")
        if self.code and self.init == "pissa":
            raise ValueError(
                f'lora.init = "pissa" beside {self.code!r}: a class of your own may not take the '
                'start off again; use lora.init = "kaiming"'
            )
        check_patterns("lora.rank_pattern", self.rank_pattern)
        check_patterns("lora.alpha_pattern", self.alpha_pattern)
        targets = self.targets
        if not targets or (isinstance(targets, str) and targets != "all-linear"):
            raise ValueError(
                f"lora.targets is {targets!r}; expected a list of layer names, or 'all-linear'"
            )

    def inject(self, model: nn.Module, seed: int, exclude: Collection[str] = ()) -> list[str]:
        names = inject_lora(model, self, seed, exclude)
        if self.bias != "none" and not biases_of(model, self.bias):
            raise ValueError(f'lora.bias = "{self.bias}", but there is no such bias; unset it')
        return [f"lora: {len(names)} layers adapted{beyond_linear(model)}"]

    def also_trains(self, model: nn.Module) -> list[str]:
        return biases_of(model, self.bias)

    def rates(self, model: nn.Module) -> dict[str, float]:
        if self.plus_ratio == 1:
            return {}
        return {f"{name}.lora_B": self.plus_ratio for name in added_modules(model)}

    def write(self, model: nn.Module, base: str | None, revision: str | None, folder: Path) -> None:
        layer = type(next(iter(added_modules(model).values())))
        assert issubclass(layer, LoRALinear)
        config = self.peft_config(layer)
        write_adapter(model, config, base, revision, folder, self.also_trains(model))
        if self.code:
            (folder / METHOD_CODE).write_bytes(code_that_ran(layer))

    def read(self, model: nn.Module, folder: Path) -> set[str]:
        return load_adapter(model, folder)

    def as_written(self, folder: Path) -> "LoRA":
        variant = self.variant
        if self.code:
            variant = f"{folder / METHOD_CODE}:{variant.rpartition(':')[2]}"
        here = replace(self, targets=read_targets(folder), layers=None, variant=variant)
        return WrittenLoRA(**{f: getattr(here, f) for f in asdict(here)})

    def peft_config(self, layer: type[LoRALinear]) -> dict[str, Any]:
        """What adapter_config.json says of these arguments, for layers of this class. With PiSSA
        the file holds twice the rank, and an alpha that leaves the scaling as it is."""
        twice = 2 if self.init == "pissa" else 1
        more = layer.scale(1.0, self.rank) / layer.scale(1.0, twice * self.rank)
        keys = peft_keys_of(layer)
        return {
            "peft_type": OWN_TYPE if keys is None else "LORA",
            "r": twice * self.rank,
            "lora_alpha": more * self.alpha,
            "rank_pattern": {name: twice * rank for name, rank in self.rank_pattern.items()},
            "alpha_pattern": {name: more * alpha for name, alpha in self.alpha_pattern.items()},
            "lora_dropout": self.dropout,
            "bias": self.bias,
            "init_lora_weights": True,
            **({"openloop_variant": layer.__name__} if keys is None else keys),
        }

    def layer_class(self) -> type[LoRALinear]:
        """The class of its layers; a user's own file is run."""
        if self.code is None:
            return VARIANTS[self.variant]
        layer = load_class("lora.variant", self.code, LoRALinear)
        assert issubclass(layer, LoRALinear)
        return layer

    def begin(self, layer: LoRALinear, name: str, seed: int) -> None:
        """The first values of an adapter: of (seed, name) alone, or of its base's weight."""
        if self.init == "pissa":
            layer.start_from(*principal_pair(layer))
            return
        draw_uniform(layer.lora_A, seed, f"{name}.lora_A")


class WrittenLoRA(LoRA):
    """The same where all values are read from a file next: none are worked out. They are numbers
    all the same, for a model is tried before."""

    def begin(self, layer: LoRALinear, name: str, seed: int) -> None:
        nn.init.zeros_(layer.lora_A)
        if self.init == "pissa":
            layer.start_from(torch.zeros_like(layer.lora_A), torch.zeros_like(layer.lora_B))


def _of_pattern(what: str, pattern: Mapping[str, Any]) -> dict[str, Any]:
    return {f"lora.{what}_pattern.{name}": value for name, value in pattern.items()}


def inject_lora(
    model: nn.Module, args: LoRA, seed: int, exclude: Collection[str] = ()
) -> list[str]:
    """Wrap the targeted layers of a model whose weights are loaded; returns their names in order.

    `exclude` names modules to leave alone, with all below them: the head, and what trains whole.
    lora_A is drawn from (seed, parameter name) alone, so neither the order nor the choice of other
    targets moves it. requires_grad is not touched. Raises ValueError for a target or a pattern that
    fits nothing and for arguments out of range.
    """
    args.check()
    linears = linears_of(model, exclude)
    chosen = choose_layers(list(linears), args.targets, args.layers, args.kind)
    root = peft_root(model)
    ranks, alphas = (
        _by_layer(chosen, root, pattern, default, f"lora.{what}_pattern")
        for what, pattern, default in (
            ("rank", args.rank_pattern, args.rank), ("alpha", args.alpha_pattern, args.alpha),
        )
    )  # fmt: skip
    numbers = sum(ranks[name] * sum(linear_size(linears[name])) for name in chosen)
    check_bytes(4 * numbers, f"lora.rank = {args.rank:,}")
    layer_class = args.layer_class()
    adapters: dict[nn.Module, nn.Module] = {}
    for name in chosen:
        values = linears[name], ranks[name], alphas[name], args.dropout
        adapter = _build(layer_class, args, values)
        args.begin(adapter, name, seed)
        adapters[linears[name]] = adapter
    replace_layers(model, adapters)
    return chosen


def _build(layer_class: type[LoRALinear], args: LoRA, values: tuple[Any, ...]) -> LoRALinear:
    """A layer; what a user's own class raises becomes a ValueError with the place."""
    file = code_file(args.variant)
    if file is None:
        return layer_class(*values)
    with telling_place(f"{args.variant!r} cannot be built", file):
        return layer_class(*values)


def _by_layer(
    names: Collection[str], root: str, pattern: Mapping[str, Any], default: Any, setting: str
) -> dict[str, Any]:
    """The value of each layer. ValueError for a pattern that counts for none of them."""
    matched = {name: pattern_of(pattern, name.removeprefix(root)) for name in names}
    if idle := [key for key in pattern if key not in matched.values()]:
        raise ValueError(
            f"{setting}: {', '.join(map(repr, idle))} counts for none of the {len(names)} adapted "
            f"layers, which are {', '.join(list(names)[:6])}{' ...' if len(names) > 6 else ''}"
        )
    return {name: default if key is None else pattern[key] for name, key in matched.items()}
