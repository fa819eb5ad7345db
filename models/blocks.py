"""The blocks of a model: what is gathered, or split, at a time where several processes hold it."""

from torch import nn

from models.heads import backbone_name
from models.layers import all_layers
from models.ngrams.bag import NgramBag


def blocks_of(model: nn.Module) -> list[list[nn.Module]]:
    """The modules of each layer of the backbone, in order; none where it has no list of them. A
    module that several layers share (ALBERT) is in no block."""
    if isinstance(model, NgramBag):
        return []
    backbone = model.get_submodule(backbone_name(model))
    return [[backbone.get_submodule(name) for name in layer] for layer in all_layers(backbone)]
