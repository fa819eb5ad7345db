"""The model of a stranger's config, built without memory (torch's "meta" device) and counted."""

import copy
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from files.errors import meets_limit, one_line
from models.limits import FLOAT, MOST_TENSORS, check_bytes, check_count


def check_parameters(cls: type[nn.Module], config: Any, folder: str) -> None:
    """Raises ValueError where the model of a config has more weights than this machine has memory
    for, more tensors than any model has, or cannot be built; none is allocated, and torch's
    generator is left where it was."""
    name = f"config.json in {folder}"
    alive: WeakValueDictionary[int, nn.Parameter] = WeakValueDictionary()

    def note(module: nn.Module, key: str, parameter: nn.Parameter | None) -> None:
        if parameter is not None:
            alive[id(parameter)] = parameter
        # twice as many: what is tied or replaced later is still there while a model is built
        check_count(name, "the number of its tensors", len(alive), 2 * MOST_TENSORS)

    hook = register_module_parameter_registration_hook(note)  # a loop of layers ends while it runs
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            model = cls(copy.deepcopy(config))
    except Exception as error:  # a model's code may stumble over anything that a config can hold
        if meets_limit(error):
            raise
        line = one_line(error, 300)
        raise ValueError(f"no model can be built from {name}: {line}") from error
    finally:
        hook.remove()
    sizes = [p.numel() for p in model.parameters()]  # each once, in however many places it is
    check_count(name, "the number of its tensors", len(sizes), MOST_TENSORS)
    buffers = sum(buffer.numel() * buffer.element_size() for buffer in model.buffers())
    check_bytes(FLOAT * sum(sizes) + buffers, f"the model of {name}, in fp32,")
