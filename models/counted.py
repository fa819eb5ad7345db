"""The model of a stranger's config, built without memory (torch's "meta" device) and counted."""

import copy
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from files.errors import meets_limit, one_line
from models.limits import FLOAT, MOST_TENSORS, check_bytes, check_count


def check_parameters(cls: type[nn.Module], config: Any, folder: str) -> None:
    """Raises ValueError where the model of a config has more weights than this machine has memory
    for, more tensors than any model has, or cannot be built; none is allocated, and torch's
    generator is left where it was."""
    tensors = numbers = 0

    def count(module: nn.Module, name: str, parameter: nn.Parameter) -> None:
        nonlocal tensors, numbers
        tensors, numbers = tensors + 1, numbers + (0 if parameter is None else parameter.numel())
        check_count(f"config.json in {folder}", "the number of its tensors", tensors, MOST_TENSORS)
        check_bytes(FLOAT * numbers, f"the model of config.json in {folder}, in fp32,")

    hook = register_module_parameter_registration_hook(count)  # a loop of layers ends while it runs
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            model = cls(copy.deepcopy(config))
    except Exception as error:  # a model's code may stumble over anything that a config can hold
        if meets_limit(error):
            raise
        line = one_line(error, 300)
        raise ValueError(f"no model can be built from config.json in {folder}: {line}") from error
    finally:
        hook.remove()
    size = sum(buffer.numel() * buffer.element_size() for buffer in model.buffers())
    check_bytes(FLOAT * numbers + size, f"the model of config.json in {folder}, in fp32,")
