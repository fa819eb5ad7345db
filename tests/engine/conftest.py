"""A toy model, toy batches, and a rig that holds everything fit() and train_step() are given."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from engine.loop import Launched, StepResult, fit, train_step
from engine.losses import Batch, build_loss, count_items, loss_from_logits
from engine.optim import Schedule, build_optimizer, parameter_groups
from engine.plan import Plan, Progress, planned_steps
from engine.precision import Precision
from engine.stop import StopRequest

VOCABULARY, WIDTH = 20, 6


class Toy(nn.Module):
    """Embedding, mean over the real tokens, dropout, norms and two Linears: logits (B, C)."""

    def __init__(self, dropout: float = 0.3, num_labels: int = 2):
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, 8)
        self.dropout = nn.Dropout(dropout)
        self.hidden = nn.Linear(8, 8)
        self.norm = nn.LayerNorm(8)
        self.batch_norm = nn.BatchNorm1d(8)  # persistent buffers that training moves
        self.classifier = nn.Linear(8, num_labels)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        mask = attention_mask.unsqueeze(-1)  # (B, T, 1)
        pooled = (self.embedding(input_ids) * mask).sum(1) / mask.sum(1)  # (B, 8)
        hidden = self.norm(torch.tanh(self.hidden(self.dropout(pooled))))
        if len(hidden) > 1 or not self.training:
            hidden = self.batch_norm(hidden)
        return self.classifier(hidden)


def make_rows(
    count: int,
    num_labels: int = 2,
    seed: int = 0,
    vocabulary: int = VOCABULARY,
    ragged: bool = True,
) -> Batch:
    """All rows as one padded batch, as the data package would lay them out."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(2, WIDTH + 1, (count,), generator=generator)
    if not ragged:
        lengths[:] = WIDTH
    mask = (torch.arange(WIDTH) < lengths.unsqueeze(1)).long()  # (B, T)
    ids = torch.randint(1, vocabulary, (count, WIDTH), generator=generator) * mask
    return {
        "inputs": {"input_ids": ids, "attention_mask": mask},
        "labels": torch.randint(0, num_labels, (count,), generator=generator),
        "rows": torch.arange(count),
        "tokens": int(lengths.sum()),
    }


def take(batch: Batch, rows: Tensor | slice) -> Batch:
    """The batch of some of the rows."""
    inputs = {name: tensor[rows] for name, tensor in batch["inputs"].items()}
    tokens = int(inputs["attention_mask"].sum())
    return {
        "inputs": inputs,
        "labels": batch["labels"][rows],
        "rows": batch["rows"][rows],
        "tokens": tokens,
    }


def cut(batch: Batch, size: int) -> list[Batch]:
    """Micro-batches of `size` rows; the last one may be shorter."""
    starts = range(0, len(batch["rows"]), size)
    return [take(batch, slice(start, start + size)) for start in starts]


def fp32(dtype: str = "fp32") -> Precision:
    """The CPU, in fp32 unless said otherwise."""
    return Precision(torch.device("cpu"), "test", dtype, "test")


@dataclass
class Rig:
    """A model with all that trains it, over `rows` in an order that is f(seed, epoch)."""

    model: nn.Module
    rows: Batch
    micro_batch_size: int
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    plan: Plan
    precision: Precision
    scaler: torch.amp.GradScaler
    compute_loss: Callable[[nn.Module, Batch], Tensor]
    progress: Progress = field(default_factory=Progress)
    results: list[StepResult] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    seen: list[list[int]] = field(default_factory=list)  # rows of each micro-batch, in order
    evaluated: list[int] = field(default_factory=list)
    saved: list[int] = field(default_factory=list)

    def batches(self, epoch: int, start: int) -> Iterator[Batch]:
        """The micro-batches of an epoch from index `start` on."""
        generator = torch.Generator().manual_seed(1000 * self.plan.seed + epoch)
        order = torch.randperm(len(self.rows["rows"]), generator=generator)
        for batch in cut(take(self.rows, order), self.micro_batch_size)[start:]:
            self.seen.append(batch["rows"].tolist())
            yield batch

    def launch(self, micro_batches: list[Batch]) -> Launched:
        """One train_step."""
        return train_step(
            self.model, micro_batches, self.compute_loss, count_items, self.optimizer, self.scaler,
            self.schedule, self.precision, self.plan, self.progress,
        )  # fmt: skip

    def step(self, micro_batches: list[Batch]) -> StepResult:
        """One train_step, and its figures."""
        return self.launch(micro_batches).result(self.progress)

    def fit(
        self,
        evaluate: Callable[[Progress], Any] | None = None,
        save: Callable[[Progress], None] | None = None,
        on_step: Callable[[StepResult, Progress], None] | None = None,
        stop: StopRequest | None = None,
        batches: Callable[[int, int], Iterable[Batch]] | None = None,
    ) -> None:
        """fit(), with a note of every step, evaluation and save."""

        def note_step(result: StepResult, progress: Progress, rate: float) -> None:
            self.results.append(result)
            self.rates.append(rate)
            if on_step is not None:
                on_step(result, progress)

        def note_evaluation(progress: Progress) -> None:
            self.evaluated.append(progress.step)
            if evaluate is not None:
                evaluate(progress)

        def note_save(progress: Progress) -> None:
            self.saved.append(progress.step)
            if save is not None:
                save(progress)

        fit(
            self.model, batches or self.batches, self.compute_loss, count_items, self.optimizer,
            self.scaler, self.schedule, self.precision, self.plan, self.progress, note_step,
            note_evaluation, note_save, stop or StopRequest(),
        )  # fmt: skip

    def weights(self) -> dict[str, Tensor]:
        """A copy of every parameter and buffer."""
        return {name: tensor.clone() for name, tensor in self.model.state_dict().items()}


def build_rig(
    model: nn.Module | None = None,
    rows: Batch | None = None,
    micro_batch_size: int = 3,
    accumulate: int = 2,
    epochs: int = 2,
    max_steps: int | None = None,
    evaluate_every: int | None = None,
    save_every: int | None = None,
    max_grad_norm: float | None = 1.0,
    lr: float = 0.01,
    sgd: bool = False,
    fused: bool = True,
    dtype: str = "fp32",
    compute_loss: Callable[[nn.Module, Batch], Tensor] | None = None,
) -> Rig:
    """A rig of 11 rows in 4 micro-batches (the last of 2 rows), 2 optimizer steps an epoch."""
    torch.manual_seed(7)  # the same first weights every time
    model = Toy() if model is None else model
    rows = make_rows(11) if rows is None else rows
    micro_batches = -(-len(rows["rows"]) // micro_batch_size)
    total = planned_steps(epochs, micro_batches, accumulate, max_steps)
    plan = Plan(
        seed=5, epochs=epochs, micro_batches_per_epoch=micro_batches, accumulate=accumulate,
        total_steps=total, max_grad_norm=max_grad_norm, evaluate_every=evaluate_every,
        save_every=save_every,
    )  # fmt: skip
    groups = parameter_groups(model, lr, None, set(), weight_decay=0.01)
    optimizer: torch.optim.Optimizer = build_optimizer(groups, (0.9, 0.999), 1e-8, fused)
    if sgd:
        optimizer = torch.optim.SGD(groups, lr=lr)
    precision = fp32(dtype)
    return Rig(
        model, rows, micro_batch_size, optimizer, Schedule("constant", total, 0), plan, precision,
        precision.scaler(), compute_loss or loss_from_logits(build_loss("single")[0]),
    )  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Tensors this small only lose by a second thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def make_rig() -> Any:
    """`make_rig(...)` builds a Rig; `make_rig.rows`, `.cut`, `.take`, `.toy`, `.precision` help."""
    maker: Any = partial(build_rig)
    maker.rows, maker.cut, maker.take, maker.toy = make_rows, cut, take, Toy
    maker.precision = fp32
    return maker
