"""The stock Trainer of transformers, with PEFT for LoRA, on the same rows and tokens.

As it comes (fp32), in bf16, and tuned as far as its own options go. The three train the model that
openloop trains: same weights, same head, same adapters, same batch size, AdamW with the same
settings, linear schedule with warm-up.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from child import Stopwatch, Window, import_bytes
from peft import LoraConfig, get_peft_model
from torch.utils.data import Sampler
from transformers import (
    AutoModelForSequenceClassification,
    DataCollatorWithPadding,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)
from transformers.trainer_pt_utils import LengthGroupedSampler

from configs.schema import Config
from data.cache import cache_root
from data.encode import encode
from data.prepare import load_data
from engine.machine import choose_threads
from engine.optim import warmup_steps
from job.prepare import data_args
from models.load import load_tokenizer, resolve_source


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

    lengths: list[int]
    clock: Stopwatch | None = None  # set for a learning curve
    curve: list[list[float]]

    def note(self, inputs: Any) -> None:
        """Remember what a batch holds."""
        self.lengths.extend(inputs["attention_mask"].sum(1).tolist())

    def take_lengths(self) -> list[int]:
        """The lengths noted since the last call."""
        taken, self.lengths = self.lengths, []
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


def build_stock_model(config: Config, num_labels: int) -> Any:
    """The task's model as a user of transformers and PEFT builds it."""
    set_seed(config.run.seed)
    drops = {} if config.model.dropout is None else {
        "hidden_dropout_prob": config.model.dropout,
        "attention_probs_dropout_prob": config.model.dropout,
    }  # fmt: skip
    model = AutoModelForSequenceClassification.from_pretrained(
        resolve_source(config.model.source), num_labels=num_labels, dtype=torch.float32,
        attn_implementation=ATTENTION, **drops,
    )  # fmt: skip
    if config.lora is None:
        return model
    lora = LoraConfig(
        task_type="SEQ_CLS", r=config.lora.rank, lora_alpha=config.lora.alpha,
        lora_dropout=config.lora.dropout, target_modules=list(config.lora.targets),
    )  # fmt: skip
    return get_peft_model(model, lora)


class Stock:
    """One of OPTIONS; `config.precision.dtype` says in what precision."""

    def __init__(self, config: Config, name: str) -> None:
        self.imports, self.dtype = import_bytes(), config.precision.dtype
        self.config, self.options = config, OPTIONS[name]
        choose_threads(None)  # no more than openloop would take: waiting threads are no contest
        tokenizer = load_tokenizer(config.model.source)
        data = load_data(data_args(config))
        self.rows = {
            split: encode(
                data.splits[split], tokenizer, config.data.max_length, config.data.truncation,
                cache_root() if config.data.cache else None, data.fingerprint,
            ).dataset
            for split in ("train", "validation")
        }  # fmt: skip
        if self.options.sort_evaluation:
            order = np.argsort(-np.array(self.rows["validation"]["length"]), kind="stable")
            self.rows["validation"] = self.rows["validation"].select(order)
        self.model = build_stock_model(config, len(data.label_names))
        self.backbone = self.model.get_base_model() if config.lora else self.model
        self.collator = DataCollatorWithPadding(tokenizer)
        self.folder = tempfile.TemporaryDirectory()

    def arguments(self, more: dict[str, Any]) -> TrainingArguments:
        """The task's settings, this contestant's own options, and `more`."""
        train, dtype = self.config.train, self.dtype
        steps = train.epochs * -(-len(self.rows["train"]) // train.micro_batch_size)
        return TrainingArguments(
            output_dir=self.folder.name, per_device_train_batch_size=train.micro_batch_size,
            num_train_epochs=train.epochs, learning_rate=train.lr, weight_decay=train.weight_decay,
            adam_beta1=train.betas[0], adam_beta2=train.betas[1], adam_epsilon=train.eps,
            max_grad_norm=train.max_grad_norm, warmup_steps=warmup_steps(train.warmup, steps),
            lr_scheduler_type="linear", seed=self.config.run.seed, report_to=[],
            logging_strategy="no", save_strategy="no", disable_tqdm=True,
            use_cpu=not torch.cuda.is_available(), bf16=dtype == "bf16", fp16=dtype == "fp16",
            **self.options.arguments, **more,
        )  # fmt: skip

    def trainer(self, more: dict[str, Any]) -> MeasuredTrainer:
        """A Trainer with these further arguments."""
        trainer = MeasuredTrainer(
            model=self.model, args=self.arguments(more), train_dataset=self.rows["train"],
            eval_dataset=self.rows["validation"], data_collator=self.collator,
            compute_metrics=accuracy,
        )  # fmt: skip
        trainer.lengths, trainer.curve = [], []
        return trainer

    def train(self, window: Window) -> None:
        """Train for as many windows as are asked for."""
        trainer = self.trainer({})
        trainer.add_callback(OnStep(trainer, window))
        window.wait()
        trainer.train()

    def evaluate(self, window: Window) -> None:
        """Evaluate all validation rows again and again; only whole passes count."""
        half = self.dtype if self.options.full_half and self.dtype != "fp32" else None
        trainer = self.trainer({f"{half}_full_eval": True} if half else {})
        window.wait()
        while True:
            trainer.evaluate()
            window.count(trainer.take_lengths())

    def learn(self) -> list[list[float]]:
        """[step, seconds of training, validation accuracy] at each evaluation."""
        every = self.config.eval.every
        trainer = self.trainer({"eval_strategy": "steps", "eval_steps": every})
        trainer.clock = Stopwatch()
        trainer.train()
        if not trainer.curve or trainer.curve[-1][0] != trainer.state.global_step:
            trainer.evaluate()
        return trainer.curve
