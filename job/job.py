"""A run that is ready for step 1, whatever its task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from engine.loop import fit
from engine.targets import Target
from job.training.loss import target_of

if TYPE_CHECKING:
    from configs.schema import Config
    from data.chat.counts import ChatCounts
    from data.encode import Encoded
    from data.kept import Kept
    from data.loaders import Padding
    from data.pairs import Order
    from data.prepare import Data
    from engine.estimate import Estimate
    from engine.losses import Batch, LossFn
    from engine.optim import Schedule
    from engine.plan import Plan
    from engine.precision import Precision
    from job.parallel.placed import Placed
    from job.tasks.task import Task
    from job.training.cached import Cached
    from job.training.distill import Distilled
    from job.training.needs import BagNeeds
    from models.args import ModelArgs
    from models.build import Built
    from models.fast.speed import Speed
    from report.plan import Plan as Banner


@dataclass
class Job:
    """A run that is ready for step 1. A program may put its own in place of `compute_loss`, the sum
    of the losses of a batch, `fit`, the loop, and `loss_fn`, which evaluations report."""

    config: Config
    task: Task
    precision: Precision
    tokenizer: Any
    data: Data
    encoded: dict[str, Encoded]
    order: Order  # in which epochs take the training rows
    padding: Padding
    model_args: ModelArgs
    built: Built
    speed: Speed
    loss_fn: LossFn
    loss_note: str
    compute_loss: Callable[[nn.Module, Batch], Tensor]
    groups: list[dict]
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    schedule: Schedule
    plan: Plan
    estimate: Estimate
    evaluation_rows: int  # of the longest rows in one forward pass
    resident_before: int  # bytes the process held before training
    notes: list[str]
    details: list[str]  # of the machine, for who asks
    probed_loss: Callable[[nn.Module, Batch], Tensor]  # ours, with which memory was estimated
    fit: Callable[..., None] = field(default=fit)
    distilled: Distilled | None = None  # its teacher, and what that answers
    cached: Cached | None = None  # what the frozen part of the model made of each row
    bag_needs: BagNeeds | None = None  # of a bag of n-grams beside the encoder
    counts: dict[str, ChatCounts] = field(default_factory=dict)  # what became of conversations
    placed: Placed | None = None  # how the model is spread over the processes
    resume: bool = False  # whether it goes on where a run of its name stopped
    fresh: bool = False  # whether a run of its name is put aside
    leads: bool = False  # whether other processes wait for its orders (orders.py)
    banner: Banner | None = None  # the plan as it was printed
    until: float | None = None  # on time.monotonic(): when training ends, wherever it stands
    least_steps: int = 0  # after which it does
    pauses: bool = False  # whether the run ends before its test, for a resume to go on with

    @property
    def num_labels(self) -> int:
        return self.model_args.num_labels

    @property
    def target(self) -> Target:
        """The unit in which the model answers; the identity for classes."""
        return target_of(self.model_args)

    def kept(self, split: str) -> Kept | None:
        """What the frozen part of the model made of a split's rows, where that is kept."""
        return None if self.cached is None else self.cached.kept[split]

    @property
    def in_parts(self) -> bool:
        """Whether no process has the whole model, so that each forward pass is one of all."""
        return self.placed is not None and self.placed.in_parts

    @property
    def metric(self) -> str:
        """The metric that picks the best checkpoint."""
        chosen = self.config.eval.metric
        return self.task.metric(self) if chosen == "auto" else chosen
