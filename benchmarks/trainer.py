"""The Trainers of transformers and of TRL, with PEFT for LoRA: options, and how they are measured.

As it comes, in bf16, and tuned as far as its own options go. The model is the one that openloop
trains: same weights, same head, same adapters.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from arithmetic_decoder import chat_work
from child import Stopwatch, Window
from peft import LoraConfig, get_peft_model
from torch import Tensor
from torch.utils.data import Sampler
from transformers import (
    AutoModelForCausalLM,
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
    flat: bool = False  # of conversations: a batch is one row of them, without padding
    trl: bool = False  # TRL's trainer, of conversations alone
    packing: bool = False  # its own packing


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
    "stock_flat": Options({"optim": "adamw_torch_fused"}, flat=True),
    "trl": Options(trl=True),
    "trl_packed": Options({"optim": "adamw_torch_fused"}, trl=True, packing=True),
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


class Measured:
    """A Trainer, the class beside it, that notes the numbers of the batches it works on."""

    numbers: list[Tensor]  # of each batch, on the device: reading them would wait
    clock: Stopwatch | None = None  # set for a learning curve
    figure: Callable[[Any], float] | None = None  # of it; else the accuracy
    curve: list[list[float]]

    def note(self, inputs: Any) -> None:
        """Remember what a batch holds."""
        self.numbers.append(stock_numbers(inputs))

    def take_numbers(self) -> Tensor:
        """The numbers noted since the last call."""
        taken, self.numbers = torch.cat(self.numbers), []
        return taken

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
        self.note(inputs)
        return super().training_step(model, inputs, num_items_in_batch)  # type: ignore[misc]

    def prediction_step(
        self, model: Any, inputs: Any, prediction_loss_only: bool, ignore_keys: Any = None
    ) -> Any:
        self.note(inputs)
        return super().prediction_step(  # type: ignore[misc]
            model, inputs, prediction_loss_only, ignore_keys
        )

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        sampler = super()._get_train_sampler(train_dataset)  # type: ignore[misc]
        return ShuffledBatches(sampler) if isinstance(sampler, LengthGroupedSampler) else sampler

    def _get_eval_sampler(self, eval_dataset: Any) -> Any:
        return torch.utils.data.SequentialSampler(eval_dataset)  # sorted rows stay sorted

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        whole = super().evaluate  # type: ignore[misc]
        if self.clock is None:
            return whole(eval_dataset, ignore_keys, metric_key_prefix)
        seconds = self.clock.seconds()
        with self.clock.paused():
            if self.figure is None:
                metrics = whole(eval_dataset, ignore_keys, metric_key_prefix)
                value = metrics["eval_accuracy"]
            else:
                metrics, value = {}, self.figure(self)
                self.control.should_evaluate = False  # type: ignore[attr-defined]  # it is done
        self.curve.append([self.state.global_step, seconds, value])  # type: ignore[attr-defined]
        self.take_numbers()
        return metrics


class MeasuredTrainer(Measured, Trainer):
    """The stock Trainer, measured."""


def measured_class(options: Options) -> Any:
    """The trainer of a contestant, measured."""
    if not options.trl:
        return MeasuredTrainer
    from trl import SFTTrainer

    return type("MeasuredSFTTrainer", (Measured, SFTTrainer), {})


def stock_numbers(inputs: Any) -> Tensor:
    """The numbers by which a shape counts a batch of the Trainer's, on its device: of texts the
    real tokens of each row, of conversations what chat_work says. There the label of a position is
    its own token, which the model shifts."""
    labels = inputs["labels"]
    if labels.dim() == 1:
        return inputs["attention_mask"].sum(1)
    return chat_work(inputs, torch.nn.functional.pad(labels[:, 1:], (0, 1), value=-100))


@torch.no_grad()
def perplexity(trainer: Any) -> float:
    """Of the validation rows, each learned token weighing the same: the Trainer's own eval_loss is
    a mean over batches."""
    trainer.model.eval()
    total, count = 0.0, 0
    for batch in trainer.get_eval_dataloader():
        learned = int((batch["labels"][:, 1:] != -100).sum())
        loss, _, _ = trainer.prediction_step(trainer.model, batch, prediction_loss_only=True)
        total, count = total + learned * float(loss), count + learned
    trainer.model.train()
    return math.exp(total / count)


class OnStep(TrainerCallback):
    """Counts each finished step in the window."""

    def __init__(self, trainer: Measured, window: Window) -> None:
        self.trainer, self.window = trainer, window

    def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        self.window.count(self.trainer.take_numbers())


def accuracy(predicted: Any) -> dict[str, float]:
    """For the Trainer's compute_metrics."""
    return {"accuracy": float((predicted.predictions.argmax(-1) == predicted.label_ids).mean())}


def build_stock_model(
    folder: str, num_labels: int, dropout: float | None, seed: int, lora: dict[str, Any] | None
) -> Any:
    """The classifier in `folder` as a user of transformers and PEFT builds it; `lora` are the
    arguments of PEFT's LoraConfig."""
    set_seed(seed)
    drops = {} if dropout is None else {
        "hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout,
    }  # fmt: skip
    model = AutoModelForSequenceClassification.from_pretrained(
        folder, num_labels=num_labels, dtype=torch.float32, attn_implementation=ATTENTION, **drops
    )
    return model if lora is None else get_peft_model(model, LoraConfig(task_type="SEQ_CLS", **lora))


def build_stock_chat(folder: str, seed: int, lora: dict[str, Any] | None) -> Any:
    """The language model in `folder`, likewise."""
    set_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation=ATTENTION
    )
    if lora is None:
        return model
    return get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **lora))


def make_arguments(
    folder: str, dtype: str, options: Options, task: dict[str, Any]
) -> TrainingArguments:
    """The Trainer's arguments: the task's own, a contestant's options, and nothing written."""
    shared = dict(
        output_dir=folder, lr_scheduler_type="linear", report_to=[], logging_strategy="no",
        save_strategy="no", disable_tqdm=True, use_cpu=not torch.cuda.is_available(),
        bf16=dtype == "bf16", fp16=dtype == "fp16", **{**options.arguments, **task},
    )  # fmt: skip
    if not options.trl:
        return TrainingArguments(**shared)
    from trl import SFTConfig

    return SFTConfig(**shared, packing=options.packing)
