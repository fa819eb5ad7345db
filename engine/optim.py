"""Parameter groups, AdamW, and schedules as pure functions of the step."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

NONE: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class Schedule:
    """How the learning rate moves: `factor(step)` multiplies every group's own rate."""

    kind: str  # "linear" | "cosine" | "constant"
    total_steps: int
    warmup_steps: int

    def factor(self, step: int) -> float:
        """Factor in [0, 1] for the update after `step` finished ones. Steps past the end give 0
        (constant: 1), a warm-up as long as the run or longer never comes down."""
        if step < self.warmup_steps:  # the first rate is 0, as in transformers: Adam only averages
            return step / self.warmup_steps
        if self.kind == "constant":
            return 1.0
        if step >= self.total_steps:
            return 0.0
        done = (step - self.warmup_steps) / (self.total_steps - self.warmup_steps)
        return 1.0 - done if self.kind == "linear" else 0.5 * (1.0 + math.cos(math.pi * done))


def warmup_steps(warmup: int | float, total_steps: int) -> int:
    """Steps of warm-up from a share of the run (below 1) or a number of steps."""
    return math.ceil(warmup * total_steps) if warmup < 1 else int(warmup)


def norm_parameters(model: nn.Module) -> set[nn.Parameter]:
    """Scales and shifts of the norm layers, of any number of dimensions."""
    norms = (m for m in model.modules() if type(m).__name__.endswith("Norm"))
    return {p for norm in norms for p in norm.parameters(recurse=False)}


def decays(name: str, parameter: nn.Parameter, norms: set[nn.Parameter]) -> bool:
    """Weight decay pulls weights towards 0: right for matrices, wrong for biases and norms."""
    return parameter.ndim >= 2 and not name.endswith("bias") and parameter not in norms


def parameter_groups(
    model: nn.Module, lr: float, head_lr: float | None, head_names: set[str], weight_decay: float,
    factors: Mapping[str, float] = NONE, begins: Mapping[str, int] = NONE,
) -> list[dict]:  # fmt: skip
    """Trainable parameters in named groups: backbone or head, decayed or not, and one more for each
    other rate. `factors` multiply the rate of the parameters they name; `begins` are the steps from
    which some of them move, all others from the first."""
    norms = norm_parameters(model)
    groups: dict[str, dict] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        part = "head" if name in head_names else "backbone"
        decay = decays(name, parameter, norms)
        factor, begin = factors.get(name, 1.0), begins.get(name, 0)
        rate = head_lr if part == "head" and head_lr is not None else lr
        words = [part, "decay" if decay else "no decay"]
        words += [f"lr x {factor:.4g}"] if factor != 1 else []
        words += [f"from step {begin}"] if begin else []
        group = groups.setdefault(
            ", ".join(words),
            {
                "params": [],
                "base_lr": rate * factor,
                "weight_decay": weight_decay if decay else 0.0,
                "begins": begin,
            },
        )
        group["params"].append(parameter)
    if not groups:
        raise ValueError(
            "no parameter is trainable; set model.train to 'all', 'head', 'bias' or 'last:N', or "
            "add [lora]"
        )
    return [{"name": name, **group} for name, group in sorted(groups.items())]


def build_optimizer(
    groups: list[dict], betas: Sequence[float], eps: float, fused: bool = True,
    decoupled: bool = True,
) -> torch.optim.Adam:  # fmt: skip
    """AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101); not `decoupled`: Adam, where the decay
    is part of the gradient, so that it rests where loss + weight_decay / 2 * |W|^2 is least. Fused:
    one pass over the memory, of which parameters that are split over processes have their own."""
    for group in groups:
        group["lr"] = group["base_lr"]
    groups = [{**group, "params": own} for group in groups for own in _alike(group["params"])]
    kind = torch.optim.AdamW if decoupled else torch.optim.Adam
    return kind(groups, betas=(betas[0], betas[1]), eps=eps, fused=fused)


def _alike(parameters: list[Tensor]) -> list[list[Tensor]]:
    """Those that are split over processes in one way together."""
    lists: dict[Any, list[Tensor]] = {}
    for p in parameters:
        lists.setdefault(getattr(p, "device_mesh", None), []).append(p)
    return list(lists.values())


def trained(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """All that the optimizer moves."""
    return [p for group in optimizer.param_groups for p in group["params"]]


def rest_waiting(optimizer: torch.optim.Optimizer, step: int) -> None:
    """Drop the gradients of groups that begin after `step` finished ones: they are not counted in
    the norm, AdamW leaves the weights alone and remembers nothing of them."""
    for group in optimizer.param_groups:
        if step < group.get("begins", 0):
            for parameter in group["params"]:
                parameter.grad = None


def set_learning_rate(optimizer: torch.optim.Optimizer, schedule: Schedule, step: int) -> float:
    """Set every group's rate for the update after `step` finished ones; returns the first's."""
    factor = schedule.factor(step)
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor
    return optimizer.param_groups[0]["lr"]
