"""LoRA adapters on disk in PEFT's layout: adapter_config.json and adapter_model.safetensors.

PEFT's names are ours with a root in front and `.weight` behind: our `X.lora_A` is its
`base_model.model.X.lora_A.weight`, our `X.base.bias` its `base_model.model.X.base_layer.bias`. What
trains whole beside the adapters (the head, a pooler that was newly initialised, last layers) is
listed under modules_to_save and stored by its own name. A method that PEFT has no form of is
written in the same layout under a peft_type that PEFT refuses.
"""

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from files.read import read_json
from models.heads import Classifier, head_modules, is_language_model, peft_root
from models.load import read_tensors
from models.methods.method import added_modules, own_tensors, plain_name
from models.names import is_below

ROOT = "base_model.model."


def modules_to_save(model: nn.Module, apart: Collection[str] = ()) -> list[str]:
    """Modules beside the adapters that train whole and belong in the adapter's file: a native
    head's top modules, and the backbone's modules that own trainable parameters, of which those
    named in `apart` do not count."""
    added = added_modules(model)
    # a head of ours has its own file, and a language model's is like any layer
    heads = [] if is_language_model(model) else head_modules(model)
    to_save = [] if isinstance(model, Classifier) else list(heads)
    for name, parameter in model.named_parameters():
        owner = name.rpartition(".")[0]
        elsewhere = owner in to_save or is_below(owner, [*heads, *added])
        if parameter.requires_grad and not elsewhere and name not in apart:
            to_save.append(owner)
    return [name for name in to_save if not is_below(name.rpartition(".")[0], to_save)]


def file_key(name: str, owners: Collection[str], root: str) -> str:
    """The key in the file of a parameter that no method added; `owners` are what one put in."""
    owner = next((o for o in owners if name.startswith(f"{o}.base.")), None)
    if owner is not None:
        name = f"{owner}.base_layer.{name.removeprefix(owner + '.base.')}"
    return ROOT + name.removeprefix(root)


def write_adapter(
    model: nn.Module, config: dict[str, Any], base: str | None, revision: str | None,
    folder: Path, also: Collection[str] = (),
) -> None:  # fmt: skip
    """Write what a method added to a model, and what trains whole beside it, in float32. `config`
    is what adapter_config.json says of the method itself; `also` names parameters of the model
    that train beside it and are stored one by one.

    `base` is where PEFT finds the base model: a hub name or a folder, None when it is neither.
    """
    root = peft_root(model)
    added, whole = added_modules(model), modules_to_save(model, also)
    tensors: dict[str, Tensor] = {}
    for name, module in added.items():
        for key, tensor in module.to_file().items():
            tensors[f"{ROOT}{name.removeprefix(root)}.{key}"] = tensor
    for name in also:
        if not is_below(name, whole):
            tensors[file_key(name, added, root)] = model.get_parameter(name)
    shorts = tuple(name.removeprefix(root) for name in whole)
    for name, module in model.named_modules():
        # PEFT goes by the end of a name, so "norm" takes every "input_layernorm" along: those
        # travel too, as they are in the base.
        if name.startswith(root) and name.removeprefix(root).endswith(shorts):
            for inner, tensor in module.state_dict().items():
                tensors[f"{ROOT}{name.removeprefix(root)}.{inner}"] = tensor
    config = {
        **config,
        "target_modules": [name.removeprefix(root) for name in added],
        "modules_to_save": list(shorts) or None,
        "fan_in_fan_out": any(isinstance(a.base, Conv1D) for a in added.values()),
    }
    save_adapter(model, tensors, config, base, revision, folder)


def save_adapter(
    model: nn.Module, tensors: dict[str, Tensor], config: dict[str, Any], base: str | None,
    revision: str | None, folder: Path,
) -> None:  # fmt: skip
    """Write the two files of PEFT's layout: the tensors, in float32, and what adapter_config.json
    says of a method, with what it says of all of them."""
    config = {
        **config,
        "task_type": task_type(model),
        "base_model_name_or_path": base,
        "revision": revision,
        "inference_mode": True,
    }
    (folder / "adapter_config.json").write_text(
        json.dumps(config, indent=2) + "\n", encoding="utf-8"
    )
    stored = {k: t.detach().float().cpu().clone().contiguous() for k, t in tensors.items()}
    save_file(stored, folder / "adapter_model.safetensors", metadata={"format": "pt"})


def task_type(model: nn.Module) -> str:
    """PEFT's word for what a model does."""
    if isinstance(model, Classifier):
        return "FEATURE_EXTRACTION"
    return "CAUSAL_LM" if is_language_model(model) else "SEQ_CLS"


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
    root = peft_root(model)
    places: dict[str, tuple[str, Tensor]] = {}  # key of what no method added -> our name and tensor
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if plain_name(name, added) is not None:
            places[file_key(name, added, root)] = (name, tensor)
    prefixes = {owner: f"{ROOT}{owner.removeprefix(root)}." for owner in added}
    keys = {prefixes[o] + key: o for o, module in added.items() for key in module.to_file()}
    filled: set[str] = set()
    own: dict[str, dict[str, Tensor]] = {owner: {} for owner in added}
    for key, tensor in read_tensors(folder / "adapter_model.safetensors").items():
        # with bias = "all" PEFT stores the biases of what trains whole again, by inner names
        key = key.replace(".modules_to_save.", ".")
        if ".original_module." in key:
            continue
        if key in keys:
            own[keys[key]][key.removeprefix(prefixes[keys[key]])] = tensor
        elif key in places:
            fill(places[key][1], tensor, f"the adapter in {folder} has {key!r}")
            filled.add(places[key][0])
        else:
            raise ValueError(f"the adapter in {folder} has {key!r}, which this model has not")
    for owner, module in added.items():
        if own[owner].keys() != module.to_file().keys():
            raise ValueError(f"the adapter in {folder} has nothing for the adapted layer {owner!r}")
        mine = own_tensors(module)
        for name, tensor in module.from_file(own[owner]).items():
            fill(mine[name], tensor, f"the adapter in {folder} has {name!r} of {owner!r}")
            filled.add(f"{owner}.{name}")
    return filled


def fill(place: Tensor, tensor: Tensor, what: str) -> None:
    """Copy a tensor of a file to its place in a model. Raises ValueError, which `what` begins,
    where it has another shape."""
    if place.shape != tensor.shape:
        raise ValueError(
            f"{what} of shape {list(tensor.shape)}; this model's is {list(place.shape)}"
        )
    place.copy_(tensor)
