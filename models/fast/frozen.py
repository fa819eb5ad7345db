"""Frozen linear weights kept in the dtype of the matrix products.

Replaces the cast that autocast makes of every frozen weight at every forward: the products get the
same bits. What trains stays fp32, and so do norms and embeddings. Before full weights are exported
`restore_exact` puts the fp32 values back. Gain: see benchmarks/ablation.md.
"""

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from models.methods.method import added_modules, plain_name


def frozen_weights(model: nn.Module) -> dict[str, nn.Parameter]:
    """Weights and biases of linear layers that do not train, by qualified name; what an embedding
    shares with a linear layer is left out."""
    shared = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    return {
        f"{name}.{part}": parameter
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D)
        for part, parameter in module.named_parameters(recurse=False)
        if not parameter.requires_grad and id(parameter) not in shared
    }


def freeze_in(model: nn.Module, dtype: torch.dtype) -> list[nn.Module]:
    """Cast the frozen linear weights in place; returns the layers that hold them."""
    frozen = frozen_weights(model)
    for parameter in frozen.values():
        parameter.data = parameter.data.to(dtype)
    holders = dict.fromkeys(name.rpartition(".")[0] for name in frozen)
    return [model.get_submodule(name) for name in holders]


def exact_weights(model: nn.Module) -> dict[str, Tensor]:
    """The frozen weights as they are before freeze_in, by the names they have without a method.
    They are the model's own tensors, which a cast, or a move to another device, leaves behind."""
    return {plain: parameter.data for plain, parameter in plain_frozen(model).items()}


def restore_exact(model: nn.Module, source: dict[str, Tensor]) -> None:
    """Put back the exact values of the frozen weights, by the names they have without a method."""
    for plain, parameter in plain_frozen(model).items():
        parameter.data = source[plain].to(parameter.device, copy=True)


def plain_frozen(model: nn.Module) -> dict[str, nn.Parameter]:
    """The frozen weights by the names they have without a method."""
    added, named = added_modules(model), {}
    for name, parameter in frozen_weights(model).items():
        plain = plain_name(name, added)
        assert plain is not None  # a method's own weights train
        named[plain] = parameter
    return named
