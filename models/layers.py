"""Where the layers of a backbone lie."""

from typing import Any

from torch import nn

from models.architectures import sees
from models.names import is_below


def layer_lists(backbone: Any) -> tuple[list[str], int]:
    """Names of the lists that hold the layers, and how many there are: one list, or where the parts
    of a layer lie apart (XLM) one for each. Of an encoder and a decoder it is the decoder's, which
    the head reads."""
    config = backbone.config.get_text_config()
    depths = [getattr(config, name, None) for name in ("decoder_layers", "num_decoder_layers")]
    depth = getattr(config, "num_hidden_layers", 0)
    if config.is_encoder_decoder:
        depth = next((n for n in depths if n), depth)
    names: list[str] = []
    for name, module in backbone.named_modules():
        fits = isinstance(module, nn.ModuleList) and len(module) == depth
        inside = is_below(name, names) or sees(name)
        before = backbone.config.is_encoder_decoder and not is_below(name, ["decoder"])
        if fits and not inside and not before:
            names.append(name)
    return names, depth
