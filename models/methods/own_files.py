"""What a method without a PEFT form learned, on disk: method.safetensors, every parameter that
trains by the name it has in the model, a head of ours left out, which has a file of its own."""

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from models.foreign import METHOD_WEIGHTS
from models.heads import Classifier, head_modules
from models.load import read_tensors
from models.methods.method import added_parameters
from models.names import is_below


def write_own(model: nn.Module, folder: Path) -> None:
    """Write what a method added to a model, and what trains whole beside it, in float32."""
    heads = head_modules(model) if isinstance(model, Classifier) else []
    stored = {
        name: parameter.detach().float().cpu().clone().contiguous()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and not is_below(name, heads)
    }
    save_file(stored, folder / METHOD_WEIGHTS, metadata={"format": "pt"})


@torch.no_grad()
def read_own(model: nn.Module, folder: Path) -> set[str]:
    """Copy what write_own wrote into a model with the same method in it; returns the names of what
    was filled. Raises ValueError for what does not fit this model."""
    path, places = folder / METHOD_WEIGHTS, dict(model.named_parameters())
    tensors = read_tensors(path)
    for name, tensor in tensors.items():
        if name not in places:
            raise ValueError(f"{path} has {name!r}, which this model has not")
        if places[name].shape != tensor.shape:
            raise ValueError(
                f"{path} has {name!r} of shape {list(tensor.shape)}; "
                f"this model's is {list(places[name].shape)}"
            )
        places[name].copy_(tensor)
    for owner, names in added_parameters(model).items():
        if missing := [name for name in names if name not in tensors]:
            raise ValueError(f"{path} has nothing for {', '.join(missing)}, of {owner!r}")
    return set(tensors)
