"""Every Nth layer of a model, as the start of a shallower one (DistilBERT: Sanh et al. 2019,
arXiv:1910.01108, section 3).

    teacher   1  2  3  4  5  6          every 2nd: the last of each pair, so that a student's layer
    student      1     2     3          ends where the teacher's does, and the head finds its input

Embeddings, what follows the layers, and the head are taken over whole.
"""

import copy
import re
from typing import Any

import torch
from torch import Tensor, nn

from models.layers import layer_lists
from models.load import model_class


def kept_layers(depth: int, every: int) -> list[int]:
    """Numbers, from 0, of the layers that are taken. Raises ValueError where `depth` of them do not
    come in groups of `every`."""
    if depth % every:
        fits = [n for n in range(2, depth + 1) if depth % n == 0]
        words = " or ".join(f'"layers:{n}"' for n in fits) or "none"
        raise ValueError(
            f'distill.student is "layers:{every}", and the teacher has {depth} layers; '
            f"what divides them: {words}"
        )
    return list(range(every - 1, depth, every))


def thin(config: Any, state: dict[str, Tensor], every: int) -> tuple[Any, dict[str, Tensor], str]:
    """(configuration, weights, a sentence) of every Nth layer of a model with this configuration
    and these weights. What is given stays as it is.

    Raises ValueError for an architecture whose layers cannot be taken singly, and where a layer's
    weights would not all have a place.
    """
    if config.is_encoder_decoder:
        raise ValueError(f"distill.student: {config.model_type!r} has a decoder beside its encoder")
    whole = _outline(config)
    lists, depth = layer_lists(whole)
    if not lists:
        raise ValueError(
            f"distill.student: {config.model_type!r} has no list with a module for each layer; "
            "leave it out (--unset distill.student), and name a smaller model in model.source"
        )
    chosen = kept_layers(depth, every)
    places = {old: new for new, old in enumerate(chosen)}
    inside = re.compile(rf"(?:^|.*\.)(?:{'|'.join(map(re.escape, lists))})\.(\d+)(?=\.)")
    kept = {}
    for name, tensor in state.items():
        match = inside.match(name)
        if match is None:
            kept[name] = tensor
        elif int(match[1]) in places:
            kept[name[: match.start(1)] + str(places[int(match[1])]) + name[match.end(1) :]] = (
                tensor
            )
    smaller = copy.deepcopy(config)
    text = smaller.get_text_config()
    for key, value in vars(text).items():
        if isinstance(value, list) and len(value) == depth:  # what is said of each layer
            setattr(text, key, [value[number] for number in chosen])
    text.num_hidden_layers = len(chosen)
    _check_places(whole, _outline(smaller), lists, chosen)
    names = ", ".join(str(number + 1) for number in chosen)
    return smaller, kept, f"student: layers {names} of the {depth} of the teacher"


def _outline(config: Any) -> Any:
    """The backbone of a configuration, its tensors without values."""
    with torch.device("meta"):
        return model_class(config, "backbone")(config)


def _check_places(
    whole: nn.Module, smaller: nn.Module, lists: list[str], chosen: list[int]
) -> None:
    """Raises ValueError where a layer has other tensors in its new place than it had in its old
    one, as ModernBERT's first, which has one norm less."""
    for new, old in enumerate(chosen):
        for name in lists:
            had = _tensors(whole.get_submodule(f"{name}.{old}"))
            has = _tensors(smaller.get_submodule(f"{name}.{new}"))
            if other := [n for n in {**had, **has} if had.get(n) != has.get(n)]:
                raise ValueError(
                    f"distill.student: layer {old + 1} of the teacher would be layer {new + 1}, "
                    f"which has other weights in {type(whole).__name__}: {', '.join(other[:4])}; "
                    "leave it out (--unset distill.student), and name a smaller model in "
                    "model.source"
                )


def _tensors(layer: nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in layer.state_dict().items()}
