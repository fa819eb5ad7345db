"""The stock contestants on the rows and settings of a config: see trainer.py.

The three train the model that openloop trains: same weights, same head, same adapters, same batch
size, AdamW with the same settings, linear schedule with warm-up.
"""

import tempfile
from typing import Any

import numpy as np
from child import Stopwatch, Window, import_bytes
from trainer import (
    OPTIONS,
    MeasuredTrainer,
    OnStep,
    accuracy,
    build_stock_model,
    make_arguments,
)
from transformers import DataCollatorWithPadding, TrainingArguments

from configs.schema import Config
from data.cache import cache_root
from data.encode import encode
from data.prepare import load_data
from engine.machine import choose_threads
from engine.optim import warmup_steps
from job.predicting.predictor import length_args
from job.rows import data_args
from models.load import load_tokenizer, resolve_source


def lora_arguments(config: Config) -> dict[str, Any] | None:
    """What PEFT's LoraConfig is given; None without [lora]."""
    lora = config.lora
    if lora is None:
        return None
    return {
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "lora_dropout": lora.dropout,
        "target_modules": list(lora.targets),
    }


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
                data.splits[split], tokenizer, length_args(config),
                cache_root() if config.data.cache else None, data.fingerprint,
            ).dataset
            for split in ("train", "validation")
        }  # fmt: skip
        if self.options.sort_evaluation:
            order = np.argsort(-np.array(self.rows["validation"]["length"]), kind="stable")
            self.rows["validation"] = self.rows["validation"].select(order)
        self.model = build_stock_model(
            resolve_source(config.model.source), len(data.label_names), config.model.dropout,
            config.run.seed, lora_arguments(config),
        )  # fmt: skip
        self.backbone = self.model.get_base_model() if config.lora else self.model
        self.collator = DataCollatorWithPadding(tokenizer)
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
