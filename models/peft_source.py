"""A folder with nothing but an adapter, as PEFT saves one, as a source: a LoRA of ours that does
the same is put into its base (models/resolve.py says where that is), filled, and merged.
"""

from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from files.errors import one_line
from files.read import read_json
from models.counted import check_parameters
from models.foreign import check_model_folder
from models.heads import head_modules
from models.load import load_pretrained, model_class, read_config
from models.methods.lora import WrittenLoRA
from models.methods.method import merge_source, plain_state
from models.methods.peft_files import ROOT
from models.resolve import ADAPTER, adapter_base

WEIGHTS = "adapter_model.safetensors"
FIRST = ".lora_A.weight"


def open_adapter(source: str, folder: str) -> tuple[Any, dict[str, Tensor]]:
    """(configuration, weights) of a language model with the adapter in `folder` merged in. Raises
    ValueError for one of another kind, and where its base is not there."""
    method, base = adapter_lora(folder), adapter_base(folder)
    config = read_config(base)
    check_parameters(model_class(config, "language"), config, base)
    model: Any = load_pretrained(config, base, None, "language").model
    whole = read_json(Path(folder) / ADAPTER).get("modules_to_save")
    if whole and model.get_output_embeddings().weight is model.get_input_embeddings().weight:
        raise ValueError(
            f"the adapter in {folder} holds {whole!r:.100} whole, of a model whose words go out by "
            "the table they come in by: which of the two was trained is not known"
        )
    method.inject(model, 0, exclude=head_modules(model))
    method.read(model, Path(folder))
    merge_source(model, source)
    return model.config, plain_state(model)


def adapter_lora(folder: str | Path) -> WrittenLoRA:
    """The LoRA that computes what an adapter does, on the very layers that its file holds. Raises
    ValueError for an adapter of another kind, and of another task than to write text."""
    check_model_folder(folder)
    path = Path(folder) / ADAPTER
    config = read_json(path)
    wanted = {"peft_type": "LORA", "task_type": "CAUSAL_LM"}
    for key, value in wanted.items():
        if config.get(key) != value:
            raise ValueError(f"{path}: {key} is {config.get(key)!r:.100}; expected {value!r}")
    values: dict[str, Any] = {
        "rank": config.get("r"),
        "alpha": config.get("lora_alpha"),
        "rank_pattern": config.get("rank_pattern") or {},
        "alpha_pattern": config.get("alpha_pattern") or {},
        "bias": config.get("bias", "none"),
    }
    numbers = isinstance(values["rank"], int) and isinstance(values["alpha"], int | float)
    if not numbers or not isinstance(values["rank_pattern"], dict):
        raise ValueError(f"{path}: r, lora_alpha or rank_pattern are no numbers: {values!r:.200}")
    variant = "rslora" if config.get("use_rslora") else "lora"
    variant = "dora" if config.get("use_dora") else variant
    return WrittenLoRA(targets=_adapted_layers(Path(folder)), variant=variant, **values)


def _adapted_layers(folder: Path) -> tuple[str, ...]:
    """Names of the layers that an adapter's file has weights for."""
    path = folder / WEIGHTS
    try:
        with safe_open(path, framework="pt") as tensors:
            keys = list(tensors.keys())
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} cannot be read: {one_line(error)}") from None
    layers = [key[len(ROOT) : -len(FIRST)] for key in keys if key.endswith(FIRST)]
    if not layers or any(not key.startswith(ROOT) for key in keys):
        raise ValueError(f"{path} holds no adapter of PEFT's; its tensors are {keys[:3]}, ...")
    return tuple(layers)
