"""The stock Trainer of transformers, with PEFT for LoRA: its options, and how it is measured.

As it comes, in bf16, and tuned as far as its own options go. The model is the one that openloop
trains: same weights, same head, same adapters.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from child import Stopwatch, Window
from peft import LoraConfig, get_peft_model
from torch import Tensor
from torch.utils.data import Sampler
from transformers import (
    AutoModelForSequenceClassification,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)
from transformers.trainer_pt_utils import LengthGroupedSampler


@dataclass(frozen=True)
class Options:
    """What one stock contestant asks of the Trainer, besides the task's own settings."""

    arguments: dict[str, Any] = field(default_factory=dict)
    sort_evaluation: bool = False  # longest first, so that little is padded
    full_half: bool = False  # evaluate with all weights in half precision


OPTIONS = {
    "stock": Options(),
    "stock_bf16": Options(),
    "stock_tuned": Options(
        {
            "train_sampling_strategy": "group_by_length",
            "optim": "adamw_torch_fused",
            "per_device_eval_batch_size": 32,
            # fetching and collating 16 rows takes 10 ms of a step of seconds; a worker would take
            # one of few cores away from the arithmetic
            "dataloader_num_workers": 0,
        },
        sort_evaluation=True,
        full_half=True,
    ),
}
# transformers' own choice; in fp32 at 16 x 256 with dropout, eager took as long within the noise
ATTENTION = "sdpa"


class ShuffledBatches(Sampler):
    """The batches of a LengthGroupedSampler in random order: it gives the longest rows of each
    fifty batches first, and a window of time would see only those."""

    def __init__(self, grouped: LengthGroupedSampler) -> None:
        self.grouped = grouped

    def __len__(self) -> int:
        return len(self.grouped)

    def __iter__(self) -> Iterator[int]:
        order, size = list(self.grouped), self.grouped.batch_size
        full = len(order) // size  # the last, shorter batch stays last
        for batch in [*torch.randperm(full).tolist(), full]:
            yield from order[batch * size : (batch + 1) * size]


class MeasuredTrainer(Trainer):
    """A Trainer that notes the lengths of the rows it works on."""

    lengths: list[Tensor]  # of each batch's rows, (B,), on the device: reading them would wait
    clock: Stopwatch | None = None  # set for a learning curve
    curve: list[list[float]]

    def note(self, inputs: Any) -> None:
        """Remember what a batch holds."""
        self.lengths.append(inputs["attention_mask"].sum(1))

    def take_lengths(self) -> Tensor:
        """The lengths noted since the last call."""
        taken, self.lengths = torch.cat(self.lengths), []
        return taken

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
        self.note(inputs)
        return super().training_step(model, inputs, num_items_in_batch)

    def prediction_step(
        self, model: Any, inputs: Any, prediction_loss_only: bool, ignore_keys: Any = None
    ) -> Any:
        self.note(inputs)
        return super().prediction_step(model, inputs, prediction_loss_only, ignore_keys)

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        sampler = super()._get_train_sampler(train_dataset)
        return ShuffledBatches(sampler) if isinstance(sampler, LengthGroupedSampler) else sampler

    def _get_eval_sampler(self, eval_dataset: Any) -> Any:
        return torch.utils.data.SequentialSampler(eval_dataset)  # sorted rows stay sorted

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        if self.clock is None:
            return super().evaluate(eval_dataset, ignore_keys, metric_key_prefix)
        seconds = self.clock.seconds()
        with self.clock.paused():
            metrics = super().evaluate(eval_dataset, ignore_keys, metric_key_prefix)
        self.curve.append([self.state.global_step, seconds, metrics["eval_accuracy"]])
        self.take_lengths()
        return metrics


class OnStep(TrainerCallback):
    """Counts each finished step in the window."""

    def __init__(self, trainer: MeasuredTrainer, window: Window) -> None:
        self.trainer, self.window = trainer, window

    def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        self.window.count(self.trainer.take_lengths())


def accuracy(predicted: Any) -> dict[str, float]:
    """For the Trainer's compute_metrics."""
    return {"accuracy": float((predicted.predictions.argmax(-1) == predicted.label_ids).mean())}


def build_stock_model(
    folder: str, num_labels: int, dropout: float | None, seed: int, lora: dict[str, Any] | None
) -> Any:
    """The model in `folder` as a user of transformers and PEFT builds it; `lora` are the arguments
    of PEFT's LoraConfig."""
    set_seed(seed)
    drops = {} if dropout is None else {
        "hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout,
    }  # fmt: skip
    model = AutoModelForSequenceClassification.from_pretrained(
        folder, num_labels=num_labels, dtype=torch.float32, attn_implementation=ATTENTION, **drops
    )
    if lora is None:
        return model
    return get_peft_model(model, LoraConfig(task_type="SEQ_CLS", **lora))


def make_arguments(
    folder: str, dtype: str, options: Options, task: dict[str, Any]
) -> TrainingArguments:
    """The Trainer's arguments: the task's own, a contestant's options, and nothing written."""
    return TrainingArguments(
        output_dir=folder, lr_scheduler_type="linear", report_to=[], logging_strategy="no",
        save_strategy="no", disable_tqdm=True, use_cpu=not torch.cuda.is_available(),
        bf16=dtype == "bf16", fp16=dtype == "fp16", **{**options.arguments, **task},
    )  # fmt: skip
