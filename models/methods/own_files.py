"""What a method without a PEFT form learned, on disk: method.safetensors, every parameter that
trains by the name it has in the model, and what the method keeps beside them; a head of ours is
left out, which has a file of its own."""

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from models.foreign import METHOD_WEIGHTS
from models.heads import Classifier, head_modules
from models.load import read_tensors
from models.methods.method import added_modules, own_tensors
from models.methods.peft_files import fill
from models.names import is_below


def write_own(model: nn.Module, folder: Path) -> None:
    """Write what a method added to a model, and what trains whole beside it, in float32."""
    heads = head_modules(model) if isinstance(model, Classifier) else []
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    tensors = {n: t for n, t in trained.items() if not is_below(n, heads)} | kept_tensors(model)
    stored = {
        name: (tensor.float() if tensor.is_floating_point() else tensor).detach().cpu()
        for name, tensor in tensors.items()
    }
    stored = {name: tensor.clone().contiguous() for name, tensor in stored.items()}
    save_file(stored, folder / METHOD_WEIGHTS, metadata={"format": "pt"})


def kept_tensors(model: nn.Module) -> dict[str, Tensor]:
    """All that a method's modules hold beside their bases, trained or not, by name in the model."""
    return {
        f"{owner}.{name}": tensor
        for owner, module in added_modules(model).items()
        for name, tensor in own_tensors(module).items()
    }


@torch.no_grad()
def read_own(model: nn.Module, folder: Path) -> set[str]:
    """Copy what write_own wrote into a model with the same method in it; returns the names of what
    was filled. Raises ValueError for what does not fit this model."""
    path, kept = folder / METHOD_WEIGHTS, kept_tensors(model)
    places = dict(model.named_parameters()) | kept
    tensors = read_tensors(path)
    for name, tensor in tensors.items():
        if name not in places:
            raise ValueError(f"{path} has {name!r}, which this model has not")
        fill(places[name], tensor, f"{path} has {name!r}")
    if missing := [name for name in kept if name not in tensors]:
        raise ValueError(f"{path} has nothing for {', '.join(missing)}")
    return set(tensors)
