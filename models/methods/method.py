"""What every method of fine-tuning answers, each question in one function.

    check       are its arguments in range?
    positions   how many of the model's positions does it take from each text?
    inject      what does it put where? From (seed, parameter name) alone
    also_trains which parameters of the model itself learn beside it?
    start       what of it starts from words?
    rates       which parameters learn at another rate?
    write       what is saved, and in whose layout?
    read        how is that read back?
    as_written  which layers did an exported folder adapt?

The rest follows from the modules that it puts in, which are all of class Added: what trains, what
the model is without them, and how they merge. One file a method, one row of METHODS in
models/methods/__init__.py; the code around it asks these questions and never names a method.
"""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.pytorch_utils import Conv1D

from models.names import named_seed

MOST_DRIFT = 1e-3  # of a merge; rounding leaves a ten-thousandth of it


class Added(nn.Module):
    """A module that a method puts into a model. `base`, where it has one, is what stood there; all
    other parameters below it are the method's own and train."""

    peft_names: ClassVar[dict[str, str]] = {}  # of its own tensors, in PEFT's files
    base: Any
    in_front = 0  # virtual tokens that it puts before each text
    merged = False  # whether the base does the work of both
    unmerged: Tensor  # the base's own weight meanwhile

    def __getattr__(self, name: str) -> Any:
        """What model code asks of the layer that stood here, such as the dtype of its weight."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if "base" not in self._modules:
                raise
            return getattr(self._modules["base"], name)

    def to_file(self) -> dict[str, Tensor]:
        """Its own tensors as a file of an adapter holds them: by PEFT's names where it has some."""
        return {self.peft_names.get(n, n): t for n, t in own_tensors(self).items()}

    def from_file(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """What to_file made, by the names that it has here."""
        names = {self.peft_names.get(name, name): name for name in own_tensors(self)}
        return {names[key]: tensor for key, tensor in tensors.items()}

    def merged_weight(self) -> Tensor:
        """The one weight of `base` that does the work of both. ValueError where there is none."""
        raise ValueError(
            f"{type(self).__name__} cannot be merged: it names no one weight that does its work"
        )


@dataclass(frozen=True)
class Method:
    """The arguments of a method, and its answers. `kind` is its row in METHODS and its section of a
    recipe."""

    kind: ClassVar[str]
    identity: ClassVar[bool] = True  # whether the model answers at first as without it
    beside_biases: ClassVar[bool] = False  # whether its file takes single biases of the model too
    small: ClassVar[dict[str, dict[str, Any]]] = {}  # settings to try it with, by a name for each

    drops_types: ClassVar[bool] = False  # whether PEFT drops token types below a head of ours

    @property
    def peft(self) -> bool:
        """Whether what it writes opens in PEFT."""
        return False

    @property
    def in_front(self) -> int:
        """How many virtual tokens it puts before each text."""
        return 0

    @property
    def code(self) -> str | None:
        """The user's own class that it runs, as "my_file.py:MyClass"; that needs --allow-code."""
        return None

    def check(self) -> None:
        """Raises ValueError for arguments that are out of range."""

    def inject(self, model: nn.Module, seed: int, exclude: Collection[str] = ()) -> list[str]:
        """Put it into a model whose weights are loaded; returns notes. `exclude` names modules to
        leave alone, with all below them: the head, and what trains whole. requires_grad is not
        touched. Raises ValueError where it fits nothing."""
        raise NotImplementedError

    def also_trains(self, model: nn.Module) -> list[str]:
        """Names of parameters of the model itself that learn beside what `inject` put in."""
        return []

    def positions(self, model: nn.Module) -> int:
        """How many of the model's positions it takes from each text; the model is as it was."""
        return 0

    def start(self, model: nn.Module, tokenizer: Any) -> None:
        """Fill what starts from words, which the tokenizer knows, after `inject`."""

    def rates(self, model: nn.Module) -> dict[str, float]:
        """Factor of the learning rate by parameter, where it is not 1."""
        return {}

    def write(self, model: nn.Module, base: str | None, revision: str | None, folder: Path) -> None:
        """Write its own parameters, and what trains whole beside them. `base` is where others find
        the base model: a hub name or a folder, None when it is neither."""
        raise NotImplementedError

    def read(self, model: nn.Module, folder: Path) -> set[str]:
        """Fill a model from what was written; returns the names of what was filled. Raises
        ValueError for what does not fit this model."""
        raise NotImplementedError

    def as_written(self, folder: Path) -> "Method":
        """This method on the very layers of an exported folder."""
        raise NotImplementedError


def added_modules(model: nn.Module) -> dict[str, Added]:
    """What a method put in, by name, in the model's order."""
    return {name: m for name, m in model.named_modules() if isinstance(m, Added)}


def tokens_in_front(model: nn.Module) -> int:
    """How many virtual tokens a method puts before each text."""
    return sum(module.in_front for module in added_modules(model).values())


def own_parameters(module: Added) -> dict[str, nn.Parameter]:
    """What a method's module holds beside its base, by name within it."""
    return {n: p for n, p in module.named_parameters() if not n.startswith("base.")}


def own_tensors(module: Added) -> dict[str, Tensor]:
    """The same, and what it keeps without training it: all that its file must hold."""
    return {n: t for n, t in module.state_dict(keep_vars=True).items() if not n.startswith("base.")}


def added_parameters(model: nn.Module) -> dict[str, list[str]]:
    """Names of what a method added, by the module that holds it."""
    return {
        owner: [f"{owner}.{name}" for name in own_parameters(module)]
        for owner, module in added_modules(model).items()
    }


def plain_name(name: str, added: Collection[str]) -> str | None:
    """A parameter's name in the model without what a method put in (`added` names those modules);
    None for a parameter of the method's own."""
    parts = name.split(".")
    for end in range(1, len(parts)):
        if ".".join(parts[:end]) in added:
            return ".".join([*parts[:end], *parts[end + 1 :]]) if parts[end] == "base" else None
    return name


def plain_state(model: nn.Module) -> dict[str, Tensor]:
    """The state of the model without what a method put in; what is merged stays in the weights."""
    everywhere = model.named_modules(remove_duplicate=False)
    added = {name for name, module in everywhere if isinstance(module, Added)}
    named = ((plain_name(name, added), tensor) for name, tensor in model.state_dict().items())
    return {name: tensor for name, tensor in named if name is not None}


@torch.no_grad()
def draw_uniform(parameter: Tensor, seed: int, name: str) -> None:
    """Fill a matrix (out, in) with what (seed, name) alone decide, uniform in ±1/sqrt(in):
    Kaiming-uniform with a = sqrt(5), as in LoRA's code and in torch's Linear."""
    draw = torch.Generator().manual_seed(named_seed(seed, name))
    values = torch.empty(parameter.shape)  # drawn on the CPU, whatever the device
    nn.init.kaiming_uniform_(values, a=5**0.5, generator=draw)
    parameter.copy_(values)


@torch.no_grad()
def merge(model: nn.Module) -> float:
    """Fold what a method added into the base weights, in place; its own path then rests.

    Returns the drift: the largest difference, relative to the largest output, that a layer shows on
    two rows between both paths and the one weight (fp32: near 1e-7). Raises ValueError, with
    nothing changed, for what cannot be merged, a `merged_weight` that does not do what `forward`
    does included.
    """
    shared = Counter(id(p) for m in model.modules() for p in m._parameters.values())
    merged, drift = {}, 0.0
    for name, module in added_modules(model).items():
        if module.merged:
            continue
        weight = module.merged_weight()
        base: Any = module.base
        if shared[id(base.weight)] > 1:
            raise ValueError(f"{name} cannot be merged: the layer shares its weight with another")
        if base.weight.dtype != weight.dtype:
            raise ValueError(
                f"a frozen weight is kept in {base.weight.dtype}, which would round the merged "
                "one: put the exact weights back first (models.fast.frozen.restore_exact)"
            )
        merged[module] = weight
        off = difference(module, weight)
        if not off < MOST_DRIFT:
            raise ValueError(
                f"{name} cannot be merged: merged_weight of {type(module).__name__} is off from "
                f"its forward by {off:.1e} of the output, so it is no merge of it"
            )
        drift = max(drift, off)
    for module, weight in merged.items():
        module.unmerged = module.base.weight.clone()
        module.base.weight.copy_(weight)
        module.merged = True
    for module, weight in merged.items():
        if not difference(module, weight) < MOST_DRIFT:
            unmerge(model)
            raise ValueError(
                f"{type(module).__name__} cannot be merged: its forward goes on adding where "
                "self.merged says that self.base does the work of both"
            )
    return drift


def can_merge(model: nn.Module) -> bool:
    """Whether each module that a method put in names the one weight that does its work."""
    try:
        for module in added_modules(model).values():
            module.merged_weight()
    except ValueError:
        return False
    return True


def merge_source(model: nn.Module, source: str) -> None:
    """Merge the model that another run starts from. Raises ValueError where that cannot be."""
    try:
        merge(model)
    except ValueError as error:
        raise ValueError(
            f"model.source is {source!r}, and a run goes on from one weight a layer: {error}. "
            "Train that run for longer, or start from the model that it started from"
        ) from None


def difference(module: Any, weight: Tensor) -> float:
    """How far a layer that multiplied by `weight` alone would be from `module` on two rows,
    relative to the largest output; dropout rests."""
    base, training = module.base, module.training
    inputs = weight.shape[0] if isinstance(base, Conv1D) else weight.shape[1]
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(2, inputs, generator=draw).to(weight)  # (2, in)
    try:
        both = module.eval()(x)  # (2, out)
    finally:
        module.train(training)
    one = F.linear(x, weight.T if isinstance(base, Conv1D) else weight, base.bias)  # (2, out)
    return ((both - one).abs().max() / both.abs().max().clamp(min=1e-30)).item()


@torch.no_grad()
def unmerge(model: nn.Module) -> None:
    """Put back, to the bit, the base weights that `merge` changed."""
    for module in added_modules(model).values():
        if module.merged:
            weights: Any = module.base
            weights.weight.copy_(module.unmerged)
            del module.unmerged
            module.merged = False
