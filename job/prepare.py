"""What every task prepares alike: complaints collected, the method, the plan of steps."""

import math
from collections.abc import Callable
from typing import TypeVar

from configs.schema import Config
from engine.plan import Plan, planned_steps
from job.ending import reading
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
