"""One contestant in a process of its own: trains in windows of time, when told to.

    python benchmarks/contestants.py openloop CONFIG [section.key=value ...]

Reads "SECONDS" from standard input, trains for at least that long, answers with one JSON line of
real tokens (padding not counted), seconds and peak memory, and waits for the next line.
"""

import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")

from configs.read import read_config  # noqa: E402
from configs.schema import Config  # noqa: E402


def peak_bytes() -> int:
    """Most resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class Window:
    """The time for which the parent lets this process train."""

    def __init__(self) -> None:
        self.tokens, self.start, self.length = 0, 0.0, 0.0

    def wait(self) -> None:
        """Block until the parent asks for the next window; an empty line or none ends it."""
        line = sys.stdin.readline()
        if not line.strip():
            sys.exit(0)
        self.tokens, self.length, self.start = 0, float(line), time.perf_counter()

    def count(self, tokens: int) -> None:
        """Count a finished step; at the end of the window answer, and wait."""
        self.tokens += tokens
        seconds = time.perf_counter() - self.start
        if seconds >= self.length:
            answer({"tokens": self.tokens, "seconds": seconds, "peak": peak_bytes()})
            self.wait()


def answer(value: dict) -> None:
    """One JSON line to the parent."""
    sys.__stdout__.write(json.dumps(value) + "\n")
    sys.__stdout__.flush()


def run_openloop(config: Config) -> None:
    """The engine's own fit(), counting tokens at each step."""
    from engine.loop import Progress, StepResult, fit
    from engine.losses import count_items
    from engine.stop import StopRequest
    from job.fit import epoch_batches
    from job.prepare import prepare

    window = Window()
    job = prepare(config, allow_code=False)

    def on_step(result: StepResult, progress: Progress, rate: float) -> None:
        window.count(result.tokens)

    answer({"ready": job.precision.dtype})
    window.wait()
    fit(
        job.built.model, lambda epoch, start: epoch_batches(job, epoch, start), job.compute_loss,
        count_items, job.optimizer, job.scaler, job.schedule, job.precision, job.plan, Progress(),
        on_step, lambda progress: None, lambda progress: None, StopRequest(),
    )  # fmt: skip


def run_stock(config: Config) -> None:
    """transformers' Trainer with PEFT on the same rows, tokens, batch size and adapters."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import (
        AutoModelForSequenceClassification,
        DataCollatorWithPadding,
        Trainer,
        TrainerCallback,
        TrainingArguments,
    )

    from data.cache import cache_root
    from data.encode import encode
    from data.prepare import load_data
    from job.prepare import data_args
    from models.load import load_tokenizer, resolve_source

    window = Window()
    tokenizer = load_tokenizer(config.model.source)
    data = load_data(data_args(config))
    encoded = encode(
        data.splits["train"], tokenizer, config.data.max_length, config.data.truncation,
        cache_root(), data.fingerprint,
    )  # fmt: skip
    folder = resolve_source(config.model.source)
    drops = {} if config.model.dropout is None else {
        "hidden_dropout_prob": config.model.dropout,
        "attention_probs_dropout_prob": config.model.dropout,
    }  # fmt: skip
    model = AutoModelForSequenceClassification.from_pretrained(
        folder, num_labels=len(data.label_names), dtype=torch.float32, **drops
    )
    assert config.lora is not None
    model = get_peft_model(
        model,
        LoraConfig(
            task_type="SEQ_CLS", r=config.lora.rank, lora_alpha=config.lora.alpha,
            lora_dropout=config.lora.dropout, target_modules=config.lora.targets,
        ),
    )  # fmt: skip
    rows = encoded.dataset.remove_columns(["row", "length"])

    class Collator(DataCollatorWithPadding):
        """The stock collator, which also notes how many tokens are real."""

        tokens = 0

        def __call__(self, features: list[dict]) -> dict:
            batch = super().__call__(features)
            Collator.tokens = int(batch["attention_mask"].sum())
            return batch

    class Counter(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):  # type: ignore[no-untyped-def]
            window.count(Collator.tokens)

    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=tempfile.mkdtemp(),
            per_device_train_batch_size=config.train.micro_batch_size,
            num_train_epochs=config.train.epochs, learning_rate=config.train.lr, report_to=[],
            logging_strategy="no", save_strategy="no", disable_tqdm=True, use_cpu=True,
            bf16=config.precision.dtype == "bf16", seed=config.run.seed,
        ),
        train_dataset=rows,
        data_collator=Collator(tokenizer),
        callbacks=[Counter()],
    )  # fmt: skip
    answer({"ready": config.precision.dtype})
    window.wait()
    trainer.train()


CONTESTANTS: dict[str, Callable[[Config], None]] = {"openloop": run_openloop, "stock": run_stock}


if __name__ == "__main__":
    sys.stdout = sys.stderr  # the parent reads standard output
    name, path, *overrides = sys.argv[1:]
    CONTESTANTS[name](read_config(Path(path), overrides))
