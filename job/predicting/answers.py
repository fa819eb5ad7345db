"""A teacher at work: its answers to rows, how long they take, and the key they are found under.

They are the same bits whenever it is asked, so that a key can stand for them: a pass always has as
many rows, whatever the memory that is free.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data.cache import HOME, code_digest, make_key
from data.encode import tokenizer_digest
from engine.checkpoint import environment
from engine.losses import Batch
from engine.stop import StopRequest
from job.predicting.predictor import CHUNK, Predictor, Text
from job.speed import BAG_ROWS, EVALUATION_ROWS
from job.training.teacher import Teacher
from models.hidden import LayerStates
from models.ngrams.bag import NgramBag

TIMED = 16  # rows that are answered to learn how long all will take
TOKENS = 16_384  # in one pass on a GPU
CODE = (  # makes the answers
    "models", "job/predicting/answers.py", "job/predicting/predictor.py", "job/speed.py",
    "job/training/teacher.py",
    "engine/evaluate.py", "engine/precision.py",
)  # fmt: skip


def steady(own: Predictor) -> Predictor:
    """The predictor with passes of a fixed size. On a GPU it would take what fits into the memory
    that is free, and other sums round otherwise."""
    rows = EVALUATION_ROWS
    if isinstance(own.model, NgramBag):
        rows = BAG_ROWS
    elif own.precision.device.type == "cuda":
        rows = max(1, TOKENS // own.length.max_length)
    return replace(own, micro_batch_size=rows)


def answers_key(teacher: Teacher) -> str:
    """The hash of all that decides its answers, but for the rows."""
    own = steady(teacher.predictor)
    return make_key(
        teacher=teacher.sha256,
        tokenizer=tokenizer_digest(own.tokenizer),
        clean=asdict(own.clean),
        length=asdict(own.length),
        order=teacher.order,
        at_once=[own.micro_batch_size, CHUNK],
        environment=environment(own.precision, teacher.speed),
        code=code_digest(*(HOME / name for name in CODE)),
    )


def pick_texts(rows: Any, numbers: list[int]) -> list[Text]:
    """The texts of these rows, or pairs of texts."""
    part = rows[numbers]
    if "text_pair" in part:
        return list(zip(part["text"], part["text_pair"], strict=True))
    return part["text"]


def time_answers(teacher: Teacher, watched: LayerStates | None, rows: Any) -> float:
    """About how many seconds all rows take: from a few, all over them. Raises ValueError where the
    `watched` states are no texts'."""

    def take(batch: Batch, logits: Tensor) -> None:
        if watched is not None:
            watched.read(batch["inputs"])

    numbers = np.linspace(0, len(rows) - 1, min(TIMED, len(rows))).astype(int).tolist()
    own, texts = steady(teacher.predictor), pick_texts(rows, numbers)
    for _ in range(2):  # the first time kernels are made
        start = perf_counter()
        own.run(texts, take)
        seconds = perf_counter() - start
    return seconds / len(texts) * len(rows)


def answer_rows(
    teacher: Teacher, layers: Sequence[int], width: int, rows: Any, stop: StopRequest
) -> Iterator[tuple[list[int], np.ndarray]]:
    """(numbers of rows, answers (B, width)) for all rows, longest texts first: logits, then the
    states of the teacher's `layers`, if any. Raises Stopped within a pass of being asked to end."""
    own = steady(teacher.predictor)
    watched = LayerStates(own.model) if layers else None
    lengths = [len(text) for part in rows.iter(batch_size=1000) for text in part["text"]]
    order = np.argsort([-length for length in lengths], kind="stable").tolist()
    for start in range(0, len(order), CHUNK):
        numbers = order[start : start + CHUNK]
        answers = np.zeros((len(numbers), width), dtype=np.float32)

        def take(batch: Batch, logits: Tensor, answers: np.ndarray = answers) -> None:
            stop.check()
            parts = [logits[:, teacher.order].float()]  # (B, C)
            if watched is not None:
                hidden = watched.read(batch["inputs"])[:, layers]  # (B, L, D)
                parts.append(hidden.flatten(1))
            answers[batch["rows"].tolist()] = torch.cat(parts, 1).cpu().numpy()

        own.run(pick_texts(rows, numbers), take)
        yield numbers, answers
