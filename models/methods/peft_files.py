"""LoRA adapters on disk in PEFT's layout: adapter_config.json and adapter_model.safetensors.

PEFT's names are ours with a root in front and `.weight` behind: our `X.lora_A` is its
`base_model.model.X.lora_A.weight`. What trains whole beside the adapters (the head, a pooler that
was newly initialised, last layers) is listed under modules_to_save and stored by its own name.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from files.read import read_json
from models.heads import Classifier, backbone_name, head_modules
from models.load import read_tensors
from models.methods.method import added_modules, own_parameters, plain_name
from models.names import is_below

ROOT = "base_model.model."


def modules_to_save(model: nn.Module) -> list[str]:
    """Modules beside the adapters that train whole and belong in the adapter's file: a native
    head's top modules, and the backbone's modules that own trainable parameters."""
    added = added_modules(model)
    heads = head_modules(model)
    to_save = [] if isinstance(model, Classifier) else list(heads)  # heads of ours have their file
    for name, parameter in model.named_parameters():
        owner = name.rpartition(".")[0]
        elsewhere = owner in to_save or is_below(owner, [*heads, *added])
        if parameter.requires_grad and not elsewhere:
            to_save.append(owner)
    return [name for name in to_save if not is_below(name.rpartition(".")[0], to_save)]


def write_adapter(
    model: nn.Module, config: dict[str, Any], base: str | None, revision: str | None, folder: Path
) -> None:
    """Write what a method added to a model, and what trains whole beside it, in float32. `config`
    is what adapter_config.json says of the method itself.

    `base` is where PEFT finds the base model: a hub name or a folder, None when it is neither.
    """
    own_head = isinstance(model, Classifier)
    root = backbone_name(model) + "." if own_head else ""
    added, whole = added_modules(model), modules_to_save(model)
    tensors: dict[str, Tensor] = {}
    for name, module in added.items():
        for own, tensor in own_parameters(module).items():
            tensors[f"{ROOT}{name.removeprefix(root)}.{module.peft_names[own]}"] = tensor
    shorts = tuple(name.removeprefix(root) for name in whole)
    for name, module in model.named_modules():
        # PEFT goes by the end of a name, so "norm" takes every "input_layernorm" along: those
        # travel too, as they are in the base.
        if name.startswith(root) and name.removeprefix(root).endswith(shorts):
            for inner, tensor in module.state_dict().items():
                tensors[f"{ROOT}{name.removeprefix(root)}.{inner}"] = tensor
    config = {
        **config,
        "task_type": "FEATURE_EXTRACTION" if own_head else "SEQ_CLS",
        "base_model_name_or_path": base,
        "revision": revision,
        "target_modules": [name.removeprefix(root) for name in added],
        "modules_to_save": list(shorts) or None,
        "fan_in_fan_out": any(isinstance(a.base, Conv1D) for a in added.values()),
        "inference_mode": True,
    }
    (folder / "adapter_config.json").write_text(
        json.dumps(config, indent=2) + "\n", encoding="utf-8"
    )
    stored = {k: t.detach().float().cpu().clone().contiguous() for k, t in tensors.items()}
    save_file(stored, folder / "adapter_model.safetensors", metadata={"format": "pt"})


def read_targets(folder: Path) -> tuple[str, ...]:
    """Full names, in the model without a head of ours, of the layers that our export adapts."""
    path = folder / "adapter_config.json"
    targets = read_json(path, ["target_modules"])["target_modules"]
    if not isinstance(targets, list) or not all(isinstance(name, str) for name in targets):
        raise ValueError(f"{path}: target_modules is {targets!r:.200}; expected names of layers")
    return tuple(targets)


@torch.no_grad()
def read_adapter(model: nn.Module, folder: Path) -> set[str]:
    """Copy the tensors of an adapter in PEFT's layout into a model with the same layers adapted;
    returns the names of the parameters and buffers that were filled.

    Raises ValueError when one is a tensor the model has not, or one of its adapters is left
    unfilled.
    """
    added = added_modules(model)
    root = backbone_name(model) + "." if isinstance(model, Classifier) else ""
    places: dict[str, tuple[str, Tensor]] = {}  # PEFT's name -> our name and tensor
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        key = plain_name(name, added)
        if key is None:
            owner = next(o for o in added if is_below(name, [o]))
            key = f"{owner}.{added[owner].peft_names[name.removeprefix(owner + '.')]}"
        places[ROOT + key.removeprefix(root)] = (name, tensor)
    filled = set()
    for key, tensor in read_tensors(folder / "adapter_model.safetensors").items():
        if key not in places:
            raise ValueError(f"the adapter in {folder} has {key!r}, which this model has not")
        name, place = places[key]
        if place.shape != tensor.shape:
            raise ValueError(
                f"the adapter in {folder} has {key!r} of shape {list(tensor.shape)}; "
                f"this model's is {list(place.shape)}"
            )
        place.copy_(tensor)
        filled.add(name)
    for owner, module in added.items():
        if not {f"{owner}.{own}" for own in own_parameters(module)} <= filled:
            raise ValueError(f"the adapter in {folder} has nothing for the adapted layer {owner!r}")
    return filled
