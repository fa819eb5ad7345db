"""A user's own files that a recipe names: a head, a method, a LoRA variant, a loss.

Nothing here loads torch.
"""

from typing import Any

from configs.schema import Config
from models.code import code_file, describe_code


def own_code(config: Config) -> dict[str, str]:
    """Setting -> "my_file.py:name", of those that name a file of the user's own."""
    names = {
        "head.kind": config.head.kind,
        "lora.variant": config.lora and config.lora.variant,
        "method.kind": config.method and config.method.kind,
        "train.loss": config.train.loss,
    }
    return {setting: name for setting, name in names.items() if name and code_file(name)}


def describe_own_code(config: Config) -> dict[str, str]:
    """The same with the class or function and the sha256 of its file, as it is now."""
    described = {setting: describe_code(name) for setting, name in own_code(config).items()}
    return {s: f"{code['class']}, sha256 {code['sha256']}" for s, code in described.items() if code}


def changed_since(config: Config, recorded: dict[str, Any], setting: str) -> str:
    """What to say where a file is no longer the one that a checkpoint `recorded`."""
    then = recorded.get("code", {}).get(setting)
    same = then is None or then == describe_own_code(config)[setting]
    return "" if same else f"; {own_code(config)[setting]} has changed since the training"
