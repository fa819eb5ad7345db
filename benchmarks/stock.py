"""The stock contestants on the rows and settings of a config: see trainer.py.

All of them train the model that openloop trains: same weights, same head, same adapters, same batch
size, AdamW with the same settings, linear schedule with warm-up.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np
from child import Stopwatch, Window, import_bytes
from trainer import (
    OPTIONS,
    OnStep,
    Options,
    accuracy,
    build_stock_chat,
    build_stock_model,
    make_arguments,
    measured_class,
    perplexity,
)
from transformers import (
    DataCollatorForSeq2Seq,
    DataCollatorWithFlattening,
    DataCollatorWithPadding,
    TrainingArguments,
)

from configs.schema import Config
from data.cache import cache_root
from data.chat.encode import IGNORED
from data.chat.prepare import load_chats
from data.encode import encode
from data.prepare import load_data
from engine.machine import choose_threads
from engine.optim import warmup_steps
from job.chatting.prepare import encode_split
from job.chatting.rows import chat_args
from job.predicting.predictor import length_args
from job.rows import data_args
from models.load import load_tokenizer, resolve_source

SPLITS = ("train", "validation")


def lora_arguments(config: Config) -> dict[str, Any] | None:
    """What PEFT's LoraConfig is given; None without [lora]."""
    lora = config.lora
    if lora is None:
        return None
    return {
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "lora_dropout": lora.dropout,
        "target_modules": lora.targets if isinstance(lora.targets, str) else list(lora.targets),
    }


@dataclass(frozen=True)
class Parts:
    """What a Trainer is made of, besides its arguments."""

    tokenizer: Any
    rows: dict[str, datasets.Dataset]
    model: Any
    collator: Any
    figure: Callable[[Any], float] | None  # of a learning curve; None: the accuracy


def labelled_parts(config: Config, options: Options) -> Parts:
    """Of a classifier."""
    tokenizer = load_tokenizer(config.model.source)
    data = load_data(data_args(config))
    rows = {
        split: encode(
            data.splits[split], tokenizer, length_args(config),
            cache_root() if config.data.cache else None, data.fingerprint,
        ).dataset
        for split in SPLITS
    }  # fmt: skip
    model = build_stock_model(
        resolve_source(config.model.source), len(data.label_names), config.model.dropout,
        config.run.seed, lora_arguments(config),
    )  # fmt: skip
    return Parts(tokenizer, rows, model, DataCollatorWithPadding(tokenizer), None)


def chat_parts(config: Config, options: Options) -> Parts:
    """Of a language model. TRL makes a collator of its own."""
    tokenizer = load_tokenizer(config.model.source, chat=True)
    chats = load_chats(chat_args(config))
    rows = {
        split: unshifted(encode_split(config, tokenizer, chats, split)[0].dataset)
        for split in SPLITS
    }
    model = build_stock_chat(
        resolve_source(config.model.source), config.run.seed, lora_arguments(config)
    )
    padded = DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=IGNORED)
    collator = DataCollatorWithFlattening() if options.flat else padded
    return Parts(tokenizer, rows, model, None if options.trl else collator, perplexity)


def unshifted(rows: datasets.Dataset) -> datasets.Dataset:
    """Encoded conversations with labels as transformers wants them, which shifts them itself: the
    label of a position is its own token, or IGNORED. Columns input_ids, labels, length."""
    columns = {name: rows[name][:] for name in ("input_ids", "labels", "length")}
    columns["labels"] = [[IGNORED, *labels[:-1]] for labels in columns["labels"]]
    return datasets.Dataset.from_dict(columns)


PARTS = {"classify": labelled_parts, "chat": chat_parts}  # by task.kind


class Stock:
    """One of OPTIONS; `config.precision.dtype` says in what precision."""

    def __init__(self, config: Config, name: str) -> None:
        self.config, self.options = config, OPTIONS[name]
        self.trainer_class = measured_class(self.options)
        self.imports, self.dtype = import_bytes(), config.precision.dtype
        choose_threads(None)  # no more than openloop would take: waiting threads are no contest
        parts = PARTS[config.task.kind](config, self.options)
        self.parts, self.rows, self.model = parts, parts.rows, parts.model
        if self.options.sort_evaluation:
            order = np.argsort(-np.array(self.rows["validation"]["length"]), kind="stable")
            self.rows["validation"] = self.rows["validation"].select(order)
        self.backbone = self.model.get_base_model() if config.lora else self.model
        self.folder = tempfile.TemporaryDirectory()

    def arguments(self, more: dict[str, Any]) -> TrainingArguments:
        """The task's settings, this contestant's own options, and `more`."""
        train = self.config.train
        steps = train.epochs * -(-len(self.rows["train"]) // train.micro_batch_size)
        task = {
            "per_device_train_batch_size": train.micro_batch_size,
            "num_train_epochs": train.epochs,
            "learning_rate": train.lr,
            "weight_decay": train.weight_decay,
            "adam_beta1": train.betas[0],
            "adam_beta2": train.betas[1],
            "adam_epsilon": train.eps,
            "max_grad_norm": train.max_grad_norm,
            "warmup_steps": warmup_steps(train.warmup, steps),
            "seed": self.config.run.seed,
        }
        return make_arguments(self.folder.name, self.dtype, self.options, task | more)

    def trainer(self, more: dict[str, Any]) -> Any:
        """A measured Trainer with these further arguments."""
        if self.options.trl:
            more = {**more, "max_length": self.config.data.max_length}
        trainer = self.trainer_class(
            model=self.model, args=self.arguments(more), train_dataset=self.rows["train"],
            eval_dataset=self.rows["validation"], data_collator=self.parts.collator,
            compute_metrics=None if self.parts.figure else accuracy,
            processing_class=self.parts.tokenizer,
        )  # fmt: skip
        trainer.numbers, trainer.curve, trainer.figure = [], [], self.parts.figure
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
            window.count(trainer.take_numbers())

    def learn(self) -> list[list[float]]:
        """[step, seconds of training, the figure of the validation rows] at each evaluation."""
        every = self.config.eval.every
        trainer = self.trainer({"eval_strategy": "steps", "eval_steps": every})
        trainer.clock = Stopwatch()
        trainer.train()
        if not trainer.curve or trainer.curve[-1][0] != trainer.state.global_step:
            trainer.evaluate()
        return trainer.curve
