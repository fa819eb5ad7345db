"""How many steps a run has, and when it evaluates and saves."""

import math

from configs.schema import Config
from engine.plan import Plan, planned_steps


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
