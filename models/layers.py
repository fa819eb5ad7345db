"""Where the layers of a backbone lie."""

from typing import Any

from torch import nn

from models.architectures import sees
from models.names import is_below

ENCODER_DEPTHS = ("encoder_layers", "num_layers", "num_hidden_layers")
DECODER_DEPTHS = ("decoder_layers", "num_decoder_layers", "num_hidden_layers")


def layer_lists(backbone: Any) -> tuple[list[str], int]:
    """Names of the lists that hold the layers, and how many there are: one list, or where the parts
    of a layer lie apart (XLM) one for each. Of an encoder and a decoder it is the decoder's, which
    the head reads."""
    config = backbone.config.get_text_config()
    if not backbone.config.is_encoder_decoder:
        depth = getattr(config, "num_hidden_layers", 0)
        return lists_of(backbone, depth), depth
    depth = depth_of(config, DECODER_DEPTHS)
    return [n for n in lists_of(backbone, depth) if is_below(n, ["decoder"])], depth


def all_layers(backbone: Any) -> list[list[str]]:
    """The modules that each layer is made of, an encoder's layers before its decoder's; nothing
    where no list has one for each layer."""
    lists, depth = layer_lists(backbone)
    layers = [[f"{name}.{number}" for name in lists] for number in range(depth) if lists]
    if not backbone.config.is_encoder_decoder or not lists:
        return layers
    config = getattr(backbone.config, "encoder", backbone.config)  # T5Gemma's is of its own
    depth = depth_of(config.get_text_config(encoder=True), ENCODER_DEPTHS)
    lists = [name for name in lists_of(backbone, depth) if is_below(name, ["encoder"])]
    return [[f"{name}.{number}" for name in lists] for number in range(depth) if lists] + layers


def depth_of(config: Any, names: tuple[str, ...]) -> int:
    """The first of these numbers of a config that is there."""
    return next((n for n in (getattr(config, name, None) for name in names) if n), 0)


def lists_of(backbone: nn.Module, depth: int) -> list[str]:
    """Names of the outermost lists of `depth` modules, but for those that see pictures."""
    names: list[str] = []
    for name, module in backbone.named_modules():
        fits = isinstance(module, nn.ModuleList) and len(module) == depth
        if fits and not is_below(name, names) and not sees(name):
            names.append(name)
    return names
