"""The command that trains a finished run's weights further. Nothing here loads torch."""

import shlex
from pathlib import Path

from configs.schema import Config
from job.own_code import own_code


def can_train_on(config: Config) -> bool:
    """Whether a new run can start from the finished run's weights: what these methods add cannot be
    merged into the model, and a new run begins with a model of one piece."""
    return config.adapter is None and config.prompt is None and config.prefix is None


def train_on(recipe: Path, config: Config, epochs: int) -> str:
    """The command that goes on from the weights of the finished run with this config.toml, as a run
    of its own."""
    words = ["python", "train.py", "--config", str(recipe), f"run.name={config.run.name}_more"]
    words += [f"model.source=run:{recipe.parent}", f"train.epochs={epochs}"]
    if config.model.revision is not None:
        words += ["--unset", "model.revision"]  # which only a hub has
    if config.distill is not None and config.distill.student is not None:
        words += ["--unset", "distill.student"]  # which starts from the teacher, or from nothing
    if own_code(config):
        words += ["--allow-code"]
    return shlex.join(words)
