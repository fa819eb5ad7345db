"""What trains, decided in one place: a method's own parameters, the head, and by model.train the
whole model or its last layers. requires_grad is the one record of the choice."""

import re
from collections.abc import Collection
from typing import Any

from torch import nn

from models.architectures import sees
from models.heads import backbone_name, head_modules, is_language_model
from models.layers import layer_lists
from models.methods.lora_files import biases_of
from models.methods.method import added_modules, plain_name
from models.names import is_below
from models.ngrams.bag import NgramBag

NOTHING = "nothing"  # what model.train comes to beside a method of a language model


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """(trainable, total) numbers of values, each parameter counted once."""
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    return sum(n for n, trains in sizes if trains), sum(n for n, _ in sizes)


def head_parameters(model: nn.Module) -> set[str]:
    """Names of the head's parameters."""
    heads = head_modules(model)
    return {name for name, _ in model.named_parameters() if is_below(name, heads)}


def last_layers(train: str | None) -> int:
    """The N of "last:N", 0 for the other forms. Raises ValueError for what is no form at all."""
    if train in (None, "all", "head", "bias"):
        return 0
    match = re.fullmatch(r"last:([1-9]\d*)", str(train))
    if not match:
        raise ValueError(
            f"model.train is {train!r}; expected 'all', 'head', 'bias' or 'last:N' (N >= 1)"
        )
    return int(match.group(1))


def modules_of_last(model: nn.Module, count: int) -> list[str]:
    """Names of the modules that "last:N" trains: the backbone's last N layers, then whatever holds
    parameters after them (a final norm, a pooler), but no embedding table.

    Raises ValueError when the backbone has no list of layers, or fewer than N.
    """
    prefix = backbone_name(model)
    backbone: Any = model.get_submodule(prefix)
    lists, depth = layer_lists(backbone)
    if not lists or count > depth:
        held = f"{depth} layers" if lists else "no list with a module for each of its layers"
        raise ValueError(f"model.train is 'last:{count}', but this backbone has {held}")
    names = [f"{name}.{number}" for name in lists for number in range(depth - count, depth)]
    passed = False
    for name, module in backbone.named_modules():
        inside = is_below(name, lists)
        passed = passed or inside
        owns = next(module.parameters(recurse=False), None) is not None
        after = passed and not inside and "embed" not in name and not sees(name)
        if after and owns and not isinstance(module, nn.Embedding):
            names.append(name)
    return [f"{prefix}.{name}" for name in names]


def trains_whole(model: nn.Module, train: str) -> list[str]:
    """Names of the modules and parameters that model.train makes learn, where not all of them do:
    the last N layers, or with "bias" every bias (BitFit: Zaken et al. 2022, arXiv:2106.10199), and
    of a language model its head, which never trains by itself. Raises ValueError where there are
    none."""
    if train == NOTHING:
        return []
    if train == "head" and is_language_model(model):
        return _own_head(model)
    if train == "bias":
        if not (biases := biases_of(model, "all")):
            raise ValueError(
                "model.train is 'bias', but no layer of this backbone has one: take [lora], or "
                "'last:N'"
            )
        return biases
    count = last_layers(train)
    return modules_of_last(model, count) if count else []


def _own_head(model: Any) -> list[str]:
    """The output layer of a language model, where it has weights of its own."""
    head, table = model.get_output_embeddings(), model.get_input_embeddings()
    if head.weight is table.weight:
        raise ValueError(
            "model.train is 'head', but words go out of this model by the table that they come in "
            "by, which does not train alone: take 'last:N', 'all' or [lora]"
        )
    return head_modules(model)


def layers_above(model: nn.Module) -> tuple[dict[str, int], int]:
    """How far each parameter is from the answer, in layers of the backbone: 0 for the head and what
    follows the last layer, 1 in the last layer, one more than there are layers for embeddings; and
    that largest distance. Raises ValueError where the backbone has no list of layers."""
    if isinstance(model, NgramBag):
        raise ValueError("a bag of n-grams has no layers")
    prefix = backbone_name(model)
    lists, depth = layer_lists(model.get_submodule(prefix))
    if not lists:
        raise ValueError("this backbone has no list with a module for each of its layers")
    lists, heads = [f"{prefix}.{name}" for name in lists], head_modules(model)
    above, passed = {}, False
    for name, _ in model.named_parameters():
        owner = next((one for one in lists if is_below(name, [one])), None)
        passed = passed or owner is not None
        if owner is not None:
            above[name] = depth - int(name.removeprefix(owner + ".").partition(".")[0])
        else:
            after = is_below(name, heads) or (passed and "embed" not in name)
            above[name] = 0 if after else depth + 1
    return above, depth + 1


def choose_trainable(model: nn.Module, everything: bool, whole: Collection[str]) -> None:
    """Set requires_grad on all, or else on what a method added, the head (not a language model's),
    and the modules and parameters named in `whole`. What the architecture itself keeps as it is (a
    table of sines) stays so."""
    added = added_modules(model)
    heads = [] if is_language_model(model) else head_modules(model)
    for name, parameter in model.named_parameters():
        own = plain_name(name, added) is None
        chosen = everything or own or is_below(name, [*heads, *whole])
        parameter.requires_grad = chosen and parameter.requires_grad
