"""Parameter groups, AdamW, and schedules as pure functions of the step."""

import math
from dataclasses import dataclass

import torch
from torch import nn


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
    model: nn.Module, lr: float, head_lr: float | None, head_names: set[str], weight_decay: float
) -> list[dict]:
    """Trainable parameters in at most four named groups: backbone or head, decayed or not."""
    norms = norm_parameters(model)
    groups: dict[str, dict] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        part = "head" if name in head_names else "backbone"
        decay = decays(name, parameter, norms)
        group = groups.setdefault(
            f"{part}, {'decay' if decay else 'no decay'}",
            {
                "params": [],
                "base_lr": head_lr if part == "head" and head_lr is not None else lr,
                "weight_decay": weight_decay if decay else 0.0,
            },
        )
        group["params"].append(parameter)
    if not groups:
        raise ValueError(
            "no parameter is trainable; set model.train to 'all', 'head' or 'last:N', or add [lora]"
        )
    return [{"name": name, **group} for name, group in sorted(groups.items())]


def build_optimizer(
    groups: list[dict], betas: tuple[float, float], eps: float, fused: bool = True
) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101). Fused: one pass over the memory."""
    for group in groups:
        group["lr"] = group["base_lr"]
    return torch.optim.AdamW(groups, betas=betas, eps=eps, fused=fused)


def set_learning_rate(optimizer: torch.optim.Optimizer, schedule: Schedule, step: int) -> float:
    """Set every group's rate for the update after `step` finished ones; returns the first's."""
    factor = schedule.factor(step)
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor
    return optimizer.param_groups[0]["lr"]
