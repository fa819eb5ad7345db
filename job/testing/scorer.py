"""Logits against labels: what turns the answers to a split's rows into its figures."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from data.loaders import make_labels
from engine.decision import Decision
from engine.evaluate import evaluate
from engine.losses import Batch, LossFn
from engine.metrics import build_counter
from engine.precision import Precision
from job.job import Job

ROWS_AT_ONCE = 1024  # whose logits are there already


@dataclass(frozen=True)
class Scorer:
    """What turns logits of a split's rows into its figures."""

    decision: Decision
    num_labels: int
    loss_fn: LossFn
    precision: Precision

    def evaluate(
        self, model: nn.Module, batches: Iterable[Batch],
        on_batch: Callable[[Batch, Tensor], None] | None = None, shared: bool = False,
    ) -> dict[str, Any]:  # fmt: skip
        """The metrics of a model over batches of rows; `shared` as evaluate() has it."""
        counter = build_counter(self.decision, self.num_labels, self.precision.device)
        return evaluate(model, batches, self.loss_fn, counter, self.precision, on_batch, shared)

    def score(
        self, rows: Any, logits: Tensor,
        on_batch: Callable[[Batch, Tensor], None] | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        """The metrics of logits (N, C), as evaluate() gives them for a model."""
        labels, numbers = labels_of(rows), torch.tensor(rows["row"])

        def batches() -> Iterator[Batch]:
            for first in range(0, len(logits), ROWS_AT_ONCE):
                part = slice(first, first + ROWS_AT_ONCE)
                yield {
                    "inputs": {"logits": logits[part]}, "labels": labels[part],
                    "rows": numbers[part],
                }  # fmt: skip

        return self.evaluate(Given(), batches(), on_batch)


class Given(nn.Module):
    """A model whose answers are there already."""

    def forward(self, logits: Tensor) -> Tensor:
        return logits


def labels_of(rows: Any) -> Tensor:
    """(N,) int64 | (N, C) float32 | (N,) float64, as a batch has them."""
    return make_labels(list(rows["label"]))


def plain_decision(job: Job) -> Decision:
    """What a run's logits answer while it trains: no temperature and no thresholds yet."""
    return Decision(job.data.kind, target=job.target)


def scorer_of(job: Job, decision: Decision | None = None) -> Scorer:
    """The scorer of a run's rows; without a `decision`, as they are scored while it trains."""
    return Scorer(decision or plain_decision(job), job.num_labels, job.loss_fn, job.precision)
