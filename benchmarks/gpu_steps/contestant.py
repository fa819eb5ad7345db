"""One contestant on one task, working in windows of time when told to (child.py).

    python -m gpu_steps.contestant CONTESTANT TASK MODEL full|quick|dry

The stock ones work in the same precision as openloop. All take the same rows, 32 at a time.
"""

import sys
import tempfile
import time
from collections import deque
from pathlib import Path
from typing import Any

from arithmetic import Shape
from child import Window, answer

from engine.loop import StepResult
from engine.plan import Progress
from gpu_steps.shapes import TASKS, Rows, Task, make_rows, tiny

CONTESTANTS = {
    "openloop": "openloop as it comes, layers compiled",
    "uncompiled": "the same with speed.compile=false",
    "stock": "stock Trainer (+ PEFT) in bf16",
    "tuned": "the same, tuned: grouped by length, fused AdamW, SDPA, four loading processes; "
    "evaluation with weights in bf16, rows sorted by length",
}
WORKERS = 4  # of the tuned one: a GPU waits for the collating of one process


def shape_of(task: Task) -> Shape:
    """What arithmetic.py counts."""
    from gpu_steps.work import LABELS, LORA

    trains = "nothing" if task.work == "evaluate" else "lora" if task.lora else "all"
    rank = LORA["rank"] if task.lora else 0
    return Shape(task.hidden, task.inner, task.layers, LABELS, rank, trains)  # type: ignore


class Openloop:
    """fit() and evaluate(), as a run calls them."""

    def __init__(self, task: Task, model: Path, dtype: str, compiled: bool) -> None:
        from gpu_steps.work import make_work, set_up_torch

        set_up_torch()
        self.work = make_work(task, model, "auto", dtype, compiled)
        self.paths = self.work.speed.resolved

    def train(self, window: Window) -> None:
        """Train for as many windows as are asked for."""
        from gpu_steps.work import train

        taken: deque[list[int]] = deque()  # rows' lengths of the batches not yet counted

        def count(result: StepResult, progress: Progress) -> None:
            window.count(taken.popleft())

        train(self.work, count, on_batch=lambda batch: taken.append(batch_lengths(batch)))

    def evaluate(self, window: Window) -> None:
        """Evaluate all rows again and again; only whole passes count."""
        from gpu_steps.work import evaluate_rows

        while True:
            evaluate_rows(self.work)
            window.count(self.work.rows["length"])


def batch_lengths(batch: dict[str, Any]) -> list[int]:
    """Real tokens of each row of a batch on the host."""
    return batch["inputs"]["attention_mask"].sum(1).tolist()


class Stock:
    """The Trainer, as it comes or tuned."""

    def __init__(self, task: Task, model: Path, dtype: str, tuned: bool) -> None:
        import trainer
        from transformers import DataCollatorWithPadding

        from gpu_steps.work import LABELS, LORA
        from models.load import load_tokenizer

        options = trainer.OPTIONS["stock_tuned" if tuned else "stock_bf16"]
        lora = {
            "r": LORA["rank"], "lora_alpha": LORA["alpha"], "lora_dropout": 0.0,
            "target_modules": list(LORA["targets"]),
        }  # fmt: skip
        self.model = trainer.build_stock_model(
            str(model), LABELS, task.dropout, 0, lora if task.lora else None
        )
        rows = make_rows(task)
        settings = {
            "per_device_train_batch_size": task.batch, "per_device_eval_batch_size": task.batch,
            "num_train_epochs": 1000, "learning_rate": 1e-4, "weight_decay": 0.01, "seed": 0,
        }  # fmt: skip
        if tuned and dtype != "fp32":
            settings |= {"dataloader_num_workers": WORKERS, "dataloader_persistent_workers": True}
            settings |= {f"{dtype}_full_eval": True} if task.work == "evaluate" else {}
        self.folder = tempfile.TemporaryDirectory()
        arguments = trainer.make_arguments(self.folder.name, dtype, options, settings)
        self.trainer = trainer.MeasuredTrainer(
            model=self.model, args=arguments, train_dataset=without_more(rows),
            eval_dataset=without_more(rows.longest_first() if tuned else rows),
            data_collator=DataCollatorWithPadding(load_tokenizer(str(model))),
        )  # fmt: skip
        self.trainer.numbers, self.on_step = [], trainer.OnStep
        self.paths = {"attention": trainer.ATTENTION}

    def train(self, window: Window) -> None:
        """Train for as many windows as are asked for."""
        self.trainer.add_callback(self.on_step(self.trainer, window))
        self.trainer.train()

    def evaluate(self, window: Window) -> None:
        """Evaluate all rows again and again; only whole passes count."""
        while True:
            self.trainer.evaluate()
            window.count(self.trainer.take_numbers())


def without_more(rows: Rows) -> Rows:
    """The columns that a model is called with."""
    return rows.select_columns(["input_ids", "token_type_ids", "labels"])


def build(name: str, task: Task, model: Path, dtype: str) -> Openloop | Stock:
    """The contestant."""
    if name in ("openloop", "uncompiled"):
        return Openloop(task, model, dtype, name == "openloop")
    return Stock(task, model, dtype, name == "tuned")


def main() -> None:
    start = time.perf_counter()
    sys.stdout = sys.stderr  # the parent reads the real standard output
    name, task_name, model, size = sys.argv[1:]
    task, dtype = TASKS[task_name], "bf16"
    if size == "dry":
        task, dtype = tiny(task), "fp32"
    contestant = build(name, task, Path(model), dtype)
    answer({"dtype": dtype, "built": time.perf_counter() - start, "paths": contestant.paths})
    window = Window(shape_of(task))
    window.wait()
    getattr(contestant, task.work)(window)


if __name__ == "__main__":
    main()
