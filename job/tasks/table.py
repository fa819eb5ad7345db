"""The table of tasks: a row each, by the name that task.kind has in a recipe. Importing it loads
nothing heavy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from job.tasks.chat import Chat
from job.tasks.classify import Classify

if TYPE_CHECKING:
    from configs.schema import Config
    from job.job import Job
    from job.tasks.task import Task

TASKS: dict[str, Task] = {"classify": Classify(), "chat": Chat()}


def task_of(config: Config) -> Task:
    """The task of a run."""
    return TASKS[config.task.kind]


def prepare(config: Config, allow_code: bool, resolved_dtype: str | None = None) -> Job:
    """Load and check everything before step 1. Raises ValueError with all that is wrong."""
    return task_of(config).prepare(config, allow_code, resolved_dtype)
