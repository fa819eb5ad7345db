"""A temperature, or the unit of a number, in the last layer of a model: z -> z * scale + shift.

A tool that knows no temperature gives calibrated probabilities then. It is exact where the last
thing that happens is one linear layer: W x + b becomes (scale W) x + (scale b + shift).
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from models.apart import logits_in
from models.heads import Classifier, head_modules, transformers_model

CLOSE = 1e-4  # of the largest output: what rounding explains in fp32, and hardly more


@contextmanager
def folded(model: nn.Module, scale: float, shift: float) -> Iterator[bool]:
    """While the block runs `model` answers z * scale + shift, where that can be had exactly;
    whether it does. The model is tried, and afterwards as it was, to the bit."""
    layer = last_layer(model)
    if (scale, shift) == (1.0, 0.0):
        yield True
    elif layer is None or (shift and layer.bias is None):
        yield False
    else:
        kept = {name: p.detach().clone() for name, p in layer.named_parameters()}
        try:
            before = probe(model)
            with torch.no_grad():
                layer.weight.copy_(kept["weight"].double() * scale)
                if layer.bias is not None:
                    layer.bias.copy_(kept["bias"].double() * scale + shift)
            wanted = before.double() * scale + shift
            off = (probe(model).double() - wanted).abs().max()
            if good := bool(off <= CLOSE * wanted.abs().max()):
                yield True
        finally:
            with torch.no_grad():
                for name, parameter in layer.named_parameters():
                    parameter.copy_(kept[name])
        if not good:
            yield False


def last_layer(model: nn.Module) -> nn.Linear | None:
    """The one linear layer of the head that has as many outputs as there are labels; None where
    there is none, or several that could be it."""
    if isinstance(model, Classifier):
        head, outputs = [model.head], None
    else:
        head = [model.get_submodule(name) for name in head_modules(model)]
        outputs = transformers_model(model).config.num_labels
    layers = [m for part in head for m in part.modules() if isinstance(m, nn.Linear)]
    if outputs is None:
        return getattr(model.head, "out", None)
    fitting = [layer for layer in layers if layer.out_features == outputs]
    return fitting[0] if len(fitting) == 1 else None


@torch.no_grad()
def probe(model: nn.Module) -> Tensor:
    """(2, C) what a model says of two rows of its first tokens."""
    ids = torch.tensor([[3, 4, 5, 6], [6, 5, 4, 3]])
    config = transformers_model(model).config
    end = getattr(config, "eos_token_id", None)
    if isinstance(end, int):  # some heads read where it stands
        ids[:, -1] = end
    return logits_in(model(input_ids=ids, attention_mask=torch.ones_like(ids)))
