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
from models.lora import LoRAArgs, adapters_of, is_below, plain_name

ROOT = "base_model.model."
# What changes the arithmetic of an adapter in a way that LoRALinear does not compute.
UNSUPPORTED = ("use_dora", "rank_pattern", "alpha_pattern", "lora_bias", "layer_replication")


def modules_to_save(model: nn.Module) -> list[str]:
    """Modules beside the adapters that train whole and belong in the adapter's file: a native
    head's top modules, and the backbone's modules that own trainable parameters."""
    adapters = adapters_of(model)
    heads = head_modules(model)
    to_save = [] if isinstance(model, Classifier) else list(heads)  # heads of ours have their file
    for name, parameter in model.named_parameters():
        owner = name.rpartition(".")[0]
        elsewhere = owner in adapters or owner in to_save or is_below(owner, heads)
        if parameter.requires_grad and not elsewhere:
            to_save.append(owner)
    return [name for name in to_save if not is_below(name.rpartition(".")[0], to_save)]


def write_adapter(
    model: nn.Module, lora: LoRAArgs, base: str | None, revision: str | None, folder: Path
) -> None:
    """Write a model's adapters, and what trains whole beside them, in float32.

    `base` is where PEFT finds the base model: a hub name or a folder, None when it is neither.
    """
    own_head = isinstance(model, Classifier)
    root = backbone_name(model) + "." if own_head else ""
    adapters, whole = adapters_of(model), modules_to_save(model)
    tensors: dict[str, Tensor] = {}
    for name, adapter in adapters.items():
        key = ROOT + name.removeprefix(root)
        tensors[f"{key}.lora_A.weight"] = adapter.lora_A
        tensors[f"{key}.lora_B.weight"] = adapter.lora_B
    shorts = tuple(name.removeprefix(root) for name in whole)
    for name, module in model.named_modules():
        # PEFT goes by the end of a name, so "norm" takes every "input_layernorm" along: those
        # travel too, as they are in the base.
        if name.startswith(root) and name.removeprefix(root).endswith(shorts):
            for inner, tensor in module.state_dict().items():
                tensors[f"{ROOT}{name.removeprefix(root)}.{inner}"] = tensor
    config = {
        "peft_type": "LORA",
        "task_type": "FEATURE_EXTRACTION" if own_head else "SEQ_CLS",
        "base_model_name_or_path": base,
        "revision": revision,
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "lora_dropout": lora.dropout,
        "target_modules": [name.removeprefix(root) for name in adapters],
        "modules_to_save": list(shorts) or None,
        "fan_in_fan_out": any(isinstance(a.base, Conv1D) for a in adapters.values()),
        "bias": "none",
        "init_lora_weights": True,
        "inference_mode": True,
    }
    (folder / "adapter_config.json").write_text(
        json.dumps(config, indent=2) + "\n", encoding="utf-8"
    )
    stored = {k: t.detach().float().cpu().clone().contiguous() for k, t in tensors.items()}
    save_file(stored, folder / "adapter_model.safetensors", metadata={"format": "pt"})


def adapted_layers(folder: str | Path) -> tuple[str, ...]:
    """Full names, in the model without a head of ours, of the layers that our export adapts."""
    path = Path(folder) / "adapter_config.json"
    targets = read_json(path, ["target_modules"])["target_modules"]
    if not isinstance(targets, list) or not all(isinstance(name, str) for name in targets):
        raise ValueError(f"{path}: target_modules is {targets!r:.200}; expected names of layers")
    return tuple(targets)


@torch.no_grad()
def load_adapter(model: nn.Module, folder: str | Path) -> set[str]:
    """Copy an adapter in PEFT's layout (ours or one saved by PEFT) into a model with the same
    layers adapted; returns the names of the parameters and buffers that were filled.

    Raises ValueError when the adapter uses what LoRALinear does not compute, was trained with
    another scaling, names a tensor the model has not, or leaves one of its adapters unfilled.
    """
    config = read_json(Path(folder) / "adapter_config.json")
    adapters = adapters_of(model)
    _check_config(config, {a.scaling for a in adapters.values()}, folder)
    root = backbone_name(model) + "." if isinstance(model, Classifier) else ""
    places: dict[str, tuple[str, Tensor]] = {}  # PEFT's name -> our name and tensor
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        plain = plain_name(name, adapters)
        key = f"{name}.weight" if plain is None else plain
        places[ROOT + key.removeprefix(root)] = (name, tensor)
    filled = set()
    for key, tensor in read_tensors(Path(folder) / "adapter_model.safetensors").items():
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
    for owner in adapters:
        if not {f"{owner}.lora_A", f"{owner}.lora_B"} <= filled:
            raise ValueError(f"the adapter in {folder} has nothing for the adapted layer {owner!r}")
    return filled


def _check_config(config: dict[str, Any], scalings: set[float], folder: str | Path) -> None:
    used = [name for name in UNSUPPORTED if config.get(name)]
    if config.get("bias", "none") != "none":
        used.append(f"bias={config['bias']}")
    if config.get("peft_type") != "LORA" or used:
        what = ", ".join(used) or f"peft_type {config.get('peft_type')!r}"
        raise ValueError(f"the adapter in {folder} uses {what}; only plain LoRA can be loaded")
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if not isinstance(rank, int) or rank < 1 or not isinstance(alpha, int | float):
        raise ValueError(f"the adapter in {folder} has r = {rank!r} and lora_alpha = {alpha!r}")
    scaling = alpha / (rank**0.5 if config.get("use_rslora") else rank)
    if scalings != {scaling}:
        raise ValueError(
            f"the adapter in {folder} has scaling alpha/rank = {scaling}; "
            f"this model has {sorted(scalings)}"
        )
