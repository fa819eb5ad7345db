"""What every task prepares alike: complaints collected, the method, the plan of steps, the
optimizer."""

import math
from collections.abc import Callable
from typing import Any, TypeVar

import torch

from configs.schema import Config
from engine.optim import Schedule, build_optimizer, parameter_groups, warmup_steps
from engine.plan import Plan, planned_steps
from job.ending import reading
from job.training.rates import first_steps, rate_factors
from models.build import Built
from models.methods import METHODS, Method

T = TypeVar("T")


class Problems:
    """Collects what several independent steps have to complain about."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def attempt(self, action: Callable[[], T]) -> T | None:
        """The action's result, or None with its complaint kept."""
        try:
            with reading("a file of the model or of the data"):
                return action()
        except ValueError as error:
            self.messages.append(str(error))
            return None

    def check(self) -> None:
        """Raise ValueError with everything collected so far."""
        if self.messages:
            raise ValueError("\n".join(self.messages))


def make_method(config: Config) -> Method | None:
    """The method whose table the recipe has; its settings have the names of its arguments."""
    for kind, method in METHODS.items():
        if (section := getattr(config, kind)) is not None:
            values = section.model_dump()
            return method(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
    return None


def plan_steps(config: Config, rows: int) -> Plan:
    """The plan of a run whose epochs take so many training rows."""
    train = config.train
    micro_batches = math.ceil(rows / train.micro_batch_size)
    return Plan(
        seed=config.run.seed,
        epochs=train.epochs,
        micro_batches_per_epoch=micro_batches,
        accumulate=train.accumulate,
        total_steps=planned_steps(train.epochs, micro_batches, train.accumulate, train.max_steps),
        max_grad_norm=train.max_grad_norm or None,
        evaluate_every=None if config.eval.every == "epoch" else int(config.eval.every),
        save_every=config.run.save_every,
    )


def make_optimizer(
    config: Config, built: Built, method: Method | None, total: int
) -> tuple[list[dict[str, Any]], torch.optim.Optimizer, Schedule]:
    """The parameters in groups, AdamW over them, and the rates of a run of `total` steps."""
    train, model = config.train, built.model
    groups = parameter_groups(
        model, train.lr, train.head_lr, built.head_names, train.weight_decay,
        rate_factors(train, model, method), first_steps(train, model, total),
    )  # fmt: skip
    optimizer = build_optimizer(groups, train.betas, train.eps, decoupled=train.decay != "l2")
    return groups, optimizer, Schedule(train.schedule, total, warmup_steps(train.warmup, total))
