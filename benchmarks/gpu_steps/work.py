"""A task put together as job/training/labelled.py and job/fit.py do it, from a shape instead of a
config.

The one place here that knows how batches, model and fit() are wired; every step uses it.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from data.loaders import Padding, collate, epoch_order, eval_batches, train_batches
from engine.decision import Decision
from engine.estimate import estimate
from engine.evaluate import evaluate
from engine.feed import feed
from engine.loop import StepResult, fit
from engine.losses import Batch, LossFn, build_loss, count_items, loss_from_logits
from engine.machine import (
    choose_threads,
    keep_few_kernels,
    keep_freed_memory,
    use_deterministic_algorithms,
)
from engine.metrics import build_counter
from engine.optim import Schedule, build_optimizer, parameter_groups
from engine.plan import Plan, Progress
from engine.precision import DTYPES, Precision, choose_precision
from engine.stop import StopRequest
from engine.windows import own_micro_batches
from gpu_steps.shapes import CLS, PAD, SEP, Rows, Task, make_rows
from models.args import ModelArgs
from models.build import build_model
from models.fast.speed import Speed, SpeedArgs, speed_up
from models.fast.streams import lay_out
from models.load import load_tokenizer
from models.methods.lora import LoRA

LABELS = 2
LORA: dict[str, Any] = {"rank": 8, "alpha": 16.0, "targets": ("query", "value")}
EPOCHS = 10_000  # more than any window has time for


@dataclass
class Work:
    """What fit() and evaluate() are given."""

    task: Task
    rows: Rows
    padding: Padding
    model: nn.Module
    speed: Speed
    precision: Precision
    loss_fn: LossFn
    compute_loss: Callable[[nn.Module, Batch], Tensor]
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    schedule: Schedule
    plan: Plan


def set_up_torch(deterministic: bool = False) -> None:
    """Threads, kernels, allocator and determinism, as a run sets them."""
    choose_threads(None)
    keep_few_kernels()
    keep_freed_memory()
    if deterministic:
        use_deterministic_algorithms()


def write_model(task: Task, folder: Path) -> Path:
    """Random weights of the task's shape, and a tokenizer of a few words; the same each time."""
    from tokenizers import Tokenizer, models
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    words = {"[PAD]": PAD, "[CLS]": CLS, "[SEP]": SEP, "[UNK]": 3, "[MASK]": 4}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="[UNK]")), pad_token="[PAD]",
        unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]",
        model_max_length=task.max_length,
    )  # fmt: skip
    bert = BertConfig(
        vocab_size=task.vocabulary, hidden_size=task.hidden, num_hidden_layers=task.layers,
        num_attention_heads=task.heads, intermediate_size=task.inner, pad_token_id=PAD,
        max_position_embeddings=max(task.max_length, 64),
    )  # fmt: skip
    torch.manual_seed(0)
    BertModel(bert).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_work(
    task: Task,
    folder: Path,
    device: str = "auto",
    dtype: str = "bf16",
    compiled: bool = True,
    dropout: float | None = None,
    accumulate: int = 1,
    steps: int | None = None,
    lr: float = 1e-4,
    save_every: int | None = None,
    seed: int = 0,
) -> Work:
    """A task that is ready for step 1, on the model that write_model left in `folder`. `steps`: end
    there; None trains for as long as it is let."""
    precision = choose_precision(device, dtype)
    tokenizer = load_tokenizer(str(folder))
    args = ModelArgs(
        source=str(folder), dropout=task.dropout if dropout is None else dropout,
        train=None if task.lora else "all", method=LoRA(**LORA) if task.lora else None,
        num_labels=LABELS,
    )  # fmt: skip
    built = build_model(args, tokenizer, seed)
    model = built.model.to(precision.device)
    speed = speed_up(model, SpeedArgs(compile=compiled), precision.device, DTYPES[precision.dtype])
    rows = make_rows(task)
    micro_batches = -(-len(rows) // task.batch)
    total = steps or EPOCHS * micro_batches
    plan = Plan(
        seed=seed, epochs=EPOCHS, micro_batches_per_epoch=micro_batches, accumulate=accumulate,
        total_steps=total, max_grad_norm=1.0, evaluate_every=total, save_every=save_every,
    )  # fmt: skip
    groups = parameter_groups(model, lr, None, built.head_names, weight_decay=0.01)
    loss_fn, _ = build_loss("single")
    compute_loss, padding = loss_from_logits(loss_fn), Padding(PAD, max_length=task.max_length)
    # as a run does: what is compiled is compiled for the same probe, also when it is resumed
    probe = collate([rows[i] for i in range(2)], padding)
    estimate(model.train(), compute_loss, probe, precision, tokens=task.max_length)
    return Work(
        task=task, rows=rows, model=model, speed=speed, precision=precision, loss_fn=loss_fn,
        padding=padding, compute_loss=compute_loss,
        optimizer=build_optimizer(groups, (0.9, 0.999), 1e-8), scaler=precision.scaler(),
        schedule=Schedule("constant", total, 0), plan=plan,
    )  # fmt: skip


def feed_batches(
    batches: Iterable[Batch], work: Work, on_batch: Callable[[Batch], None]
) -> Iterator[Batch]:
    """Batches as the model takes them, as job/speed.py feeds them; `on_batch` sees each on the
    host, in the thread that makes them."""

    def seen(batch: Batch) -> Batch:
        on_batch(batch)
        return batch

    batches = map(seen, batches)
    if work.speed.streams:
        batches = map(partial(lay_out, in_front=work.speed.in_front), batches)
    return feed(batches, work.precision.device, count_items)


def train(
    work: Work,
    on_step: Callable[[StepResult, Progress], None],
    progress: Progress | None = None,
    save: Callable[[Progress], None] = lambda progress: None,
    on_batch: Callable[[Batch], None] = lambda batch: None,
) -> None:
    """fit() to the end of the plan, without evaluations."""

    def batches(epoch: int, start: int) -> Iterator[Batch]:
        rows: Any = work.rows
        order = epoch_order(len(rows), work.plan.seed, epoch)
        made = train_batches(
            rows, order, own_micro_batches(work.plan, start), work.task.batch, work.padding
        )
        return feed_batches(made, work, on_batch)

    fit(
        work.model, batches, work.compute_loss, count_items, work.optimizer, work.scaler,
        work.schedule, work.precision, work.plan, progress or Progress(),
        lambda result, progress, rate: on_step(result, progress), lambda progress: None, save,
        StopRequest(),
    )  # fmt: skip


def evaluate_rows(work: Work) -> dict[str, Any]:
    """The metrics of all rows, as an evaluation of a run takes them."""
    rows: Any = work.rows
    made = eval_batches(rows, work.task.batch, work.padding)
    batches = feed_batches(made, work, lambda batch: None)
    counter = build_counter(Decision("single"), LABELS, work.precision.device)
    return evaluate(work.model, batches, work.loss_fn, counter, work.precision)
