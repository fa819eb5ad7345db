"""A finished student beside its teacher: test figure, weights on disk, parameters, rows a second.

Both are timed in this process on the same rows, in turns, so that what else the machine does slows
both; from the text to the answer, with the tokenizer.
"""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from data.labels.settle import label_array
from engine.decision import Decision
from engine.losses import Batch
from engine.metrics import build_counter
from engine.stop import StopRequest
from engine.tracker import Tracker
from job.folder import Folder
from job.job import Job
from job.predicting.answers import pick_texts
from job.predicting.predictor import CHUNK, Predictor, Text, open_predictor
from job.reporting.card import Tested, main_metric
from job.training.distill import Distilled
from job.training.teacher import teacher_folder
from models.base import weight_bytes
from models.trainable import count_parameters
from report.distill import Side, side_lines

MOST_TIMED = 4 * CHUNK  # rows
TURNS = 4


def compare_teacher(
    job: Job, folder: Folder, tested: Tested, tracker: Tracker, stop: StopRequest
) -> list[Side]:
    """Teacher and student side by side, where there is a teacher and a test split; both as they are
    opened from disk. Raises Stopped where it was asked to end meanwhile."""
    if job.distilled is None or not tested.metrics:
        return []
    metric, value = main_metric(tested.metrics)
    job.optimizer.zero_grad()
    job.optimizer.state.clear()  # the teacher may need the room
    try:  # a teacher that has gone meanwhile takes nothing from what the student has learnt
        tracker.say(job.distilled.ask("test", stop))
        student, _ = open_predictor(folder, None, job.distilled.allow_code, None)
        sides = put_beside(job.distilled, metric, value, student, folder.model, stop)
    except (OSError, ValueError, RuntimeError, MemoryError) as error:  # a full GPU is the third
        reason = str(error) or type(error).__name__
        tracker.say(f"WARNING: the student stands alone, its teacher cannot be asked: {reason}")
        return []
    tracker.say(side_lines(sides))
    return sides


def put_beside(
    made: Distilled, metric: str, value: float, student: Predictor, folder: Path, stop: StopRequest
) -> list[Side]:
    """Teacher and student. `metric` and `value` are the student's main test figure, `folder` its
    published model. Raises Stopped where it was asked to end meanwhile."""

    def check(batch: Batch, logits: Tensor) -> None:
        stop.check()

    both = (made.reopen(answers=True).predictor, student)
    rows = made.data.splits["test"]
    numbers = np.linspace(0, len(rows) - 1, min(MOST_TIMED, len(rows))).astype(int).tolist()
    speeds = measure_speeds(
        [partial(each.run, on_batch=check) for each in both], pick_texts(rows, numbers)
    )
    sizes = [weight_bytes(each) for each in (teacher_folder(made.config), folder)]
    names = (f"teacher ({made.name})", "student")
    values = (teacher_figure(made, metric), value)
    return [
        Side(name, metric, figure, size, numbers_in(one), speed, str(one.precision.device))
        for name, figure, size, one, speed in zip(names, values, sizes, both, speeds, strict=True)
    ]


def numbers_in(predictor: Predictor) -> int:
    """Numbers that were learnt, those of a bag beside the encoder included."""
    beside = 0 if predictor.fusion is None else count_parameters(predictor.fusion.model)[1]
    return count_parameters(predictor.model)[1] + beside


def teacher_figure(made: Distilled, metric: str) -> float:
    """The teacher's test figure, from its kept answers."""
    logits = torch.from_numpy(np.array(made.logits("test")))  # (N, C)
    labels = torch.from_numpy(label_array(made.data.splits["test"], made.data.kind))
    counter = build_counter(Decision(made.data.kind), made.classes, torch.device("cpu"))
    counter.update(logits, labels)
    return counter.results()[metric]


def measure_speeds(answer: list[Callable[[list[Text]], object]], texts: list[Text]) -> list[float]:
    """Rows a second of each, in turns over the same texts."""
    parts = [texts[turn::TURNS] for turn in range(TURNS)]
    seconds = [0.0] * len(answer)
    for one in answer:  # the first time kernels are made
        one(parts[0][:1])
    for part in filter(None, parts):
        for place, one in enumerate(answer):
            start = time.perf_counter()
            one(part)
            seconds[place] += time.perf_counter() - start
    return [len(texts) / each for each in seconds]
