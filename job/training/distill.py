"""A teacher's answers to the rows of a run: computed once, kept on disk, joined to the batches.

The teacher is in memory only while it answers. What it said is found again under the hash of its
model, of how it reads texts, of the rows, of this machine's ways to round, and of the code.
"""

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from configs.schema import Config
from data.answers import open_answers
from data.cache import cache_root, make_key
from data.prepare import Data
from engine.checkpoint import environment
from engine.distill import ReadHidden, describe_loss, distill_loss
from engine.losses import Batch, LossFn, loss_from_logits
from engine.memory import explained, release_memory
from engine.precision import Precision
from engine.stop import StopRequest
from engine.targets import Target
from job.predicting.answers import answer_rows, answers_key, time_answers
from job.training.teacher import (
    Teacher,
    check_pairs,
    open_teacher,
    student_source,
    teacher_precision,
)
from models.build import Built
from models.fast.frozen import exact_weights
from models.hidden import LayerStates
from models.ngrams.bag import NgramBag
from report.format import format_bytes, format_seconds

TEMPERATURE = 2.0  # as configs/schema.py has it
NO_ROOM = (
    "The teacher (distill.teacher) answers beside the student. Take a smaller one, free the device "
    "of other work, or train elsewhere (precision.device); --unset distill leaves it out"
)


@dataclass
class Distilled:
    """The teacher of a run, and what it answers. `seconds`: about what a missing split costs;
    `identity`: what a checkpoint notes of it."""

    config: Config
    data: Data
    precision: Precision  # of the teacher
    allow_code: bool
    identity: str
    target: Target  # the unit in which the teacher answers
    key: str  # of all that decides its answers, but for the rows
    states: LayerStates | None = None  # of the student, where states are matched
    layers: list[int] = field(default_factory=list)  # of the teacher's, one for each of those
    exact: dict[str, Tensor] = field(default_factory=dict)  # frozen ones that it gave the student
    width: int = 1  # numbers of an answer: logits, then states
    seconds: dict[str, float] = field(default_factory=dict)
    kept: dict[str, np.ndarray] = field(default_factory=dict)  # (rows, width), once opened
    places: dict[int, int] = field(default_factory=dict)  # row -> its place among those of training

    @property
    def name(self) -> str:
        """The teacher, as the recipe names it."""
        assert self.config.distill is not None
        return self.config.distill.teacher

    @property
    def classes(self) -> int:
        """C, 1 for a number."""
        return max(1, len(self.data.label_names))

    def folder(self, split: str) -> Path:
        """Where the answers to a split lie."""
        rows = np.array(self.data.splits[split]["row"], dtype=np.int64).tobytes()
        key = make_key(
            teacher=self.key,
            layers=self.layers,
            fingerprint=self.data.fingerprint,
            rows=hashlib.sha256(rows).hexdigest(),
        )
        return cache_root() / "answers" / key[:32]

    @property
    def missing(self) -> list[str]:
        """Splits that are not answered yet; what is there is verified when it is opened."""
        return [name for name in self.splits if not self.folder(name).exists()]

    @property
    def splits(self) -> list[str]:
        """Those that the teacher has to answer: the training rows, and the test rows for the
        comparison."""
        return [name for name in ("train", "test") if name in self.data.splits]

    def lines(self) -> list[str]:
        """For the plan: who teaches, size, time, hit or miss."""
        missing = self.missing
        states = ", ".join(f"{name} {'miss' if name in missing else 'hit'}" for name in self.splits)
        size = sum(len(self.data.splits[name]) for name in self.splits) * self.width * 4
        line = f"teacher: {self.identity}, on {self.precision.device} in {self.precision.dtype}; "
        line += f"its answers {format_bytes(size)} in "
        line += f"{cache_root() / 'answers'}; {states}"
        for name, when in (("train", "before step 1"), ("test", "after the test")):
            if name in missing:
                about = format_seconds(self.seconds[name])
                line += f"; {name} computed once {when}, in about {about}"
        if self.layers:
            names = ", ".join(str(number + 1) for number in self.layers)
            return [line, f"states: the student's layers learn from the teacher's {names}"]
        return [line]

    def elsewhere(self, own: Precision) -> dict[str, Any]:
        """Where the teacher answers, for a checkpoint, unless it is where the student is trained
        (`own`)."""
        there, here = environment(self.precision, {}), environment(own, {})
        return {f"teacher.{key}": value for key, value in there.items() if value != here[key]}

    def reopen(self, answers: bool = False) -> Teacher:
        """The teacher; `answers` as in speed_up_model."""
        return open_teacher(
            self.config, self.data.kind, self.data.label_names, self.precision, self.allow_code,
            answers,
        )  # fmt: skip

    def answer(self, split: str, stop: StopRequest) -> Iterator[tuple[list[int], np.ndarray]]:
        """As answer_rows. The teacher is opened for it, and gone afterwards."""
        yield from answer_rows(
            self.reopen(), self.layers, self.width, self.data.splits[split], stop
        )

    def ask(self, split: str, stop: StopRequest | None = None) -> str:
        """Open the answers to a split, computing what is missing; what happened, as a line. Raises
        Stopped where it was asked to end meanwhile."""
        start, rows = time.perf_counter(), self.data.splits[split]
        answers = self.answer(split, stop or StopRequest())
        self.kept[split], hit = open_answers(self.folder(split), len(rows), self.width, answers)
        del answers
        release_memory()  # the teacher's
        if split == "train":
            self.places = {row: place for place, row in enumerate(rows["row"])}
        took = format_seconds(time.perf_counter() - start)
        return f"the teacher's answers: {split} {'hit' if hit else 'computed'}, in {took}"

    def logits(self, split: str) -> np.ndarray:
        """Its answers to the rows of an opened split, in their order: (rows, C) logits in the order
        of the run's labels, or (rows, 1) numbers in the labels' own unit."""
        logits = np.array(self.kept[split][:, : self.classes])
        if self.data.kind == "regression":
            return self.target.restore(torch.from_numpy(logits)).numpy()
        return logits

    def join(self, batch: Batch, target: Target) -> Batch:
        """A batch of training rows with what the teacher says of them: logits (B, C), numbers in
        the student's deviations, and hidden (B, L, D) where states are matched."""
        answers = self.kept["train"][[self.places[row] for row in batch["rows"].tolist()]]
        return {**batch, "teacher": self.split_up(torch.from_numpy(answers), target)}

    def blank(self, batch: Batch) -> Batch:
        """A batch with a teacher that says nothing, to try a step with before it was asked."""
        nothing = torch.zeros(len(batch["labels"]), self.width, device=batch["labels"].device)
        return {**batch, "teacher": self.split_up(nothing, self.target)}

    def split_up(self, answers: Tensor, target: Target) -> dict[str, Tensor]:
        """The parts of answers (B, width)."""
        logits = answers[:, : self.classes]  # (B, C)
        if self.data.kind == "regression" and target != self.target:
            logits = target.standardise(self.target.restore(logits)).float()
        parts = {"logits": logits}
        if self.layers:
            hidden = answers[:, self.classes :]
            parts["hidden"] = hidden.unflatten(1, (len(self.layers), -1))  # (B, L, D)
        return parts


def open_distilled(
    config: Config, data: Data, precision: Precision, allow_code: bool,
    student: Built | None = None, resumed: bool = False,
) -> tuple[Distilled | None, list[str]]:  # fmt: skip
    """The teacher of a run and notes on it; None where it has none. `precision` is the run's;
    `student` has the model that learns, before it is moved or cast. Nothing is kept on disk yet.

    Raises ValueError for a teacher that does not go with the rows, or with the student.
    """
    if config.distill is None:
        return None, []
    if data.kind == "regression" and config.distill.temperature != TEMPERATURE:
        raise ValueError(
            f"distill.temperature is {config.distill.temperature:g}; the labels are numbers, which "
            "have none: remove it (--unset distill.temperature)"
        )
    beside_bag = student is not None and isinstance(student.model, NgramBag)
    its = teacher_precision(config, resumed) if beside_bag else precision
    with explained(NO_ROOM):
        teacher = open_teacher(config, data.kind, data.label_names, its, allow_code)
    check_pairs(config, data, teacher)
    own = teacher.predictor
    identity = f"{config.distill.teacher}, sha256 {teacher.sha256[:16]}"
    key = answers_key(teacher)
    made = Distilled(config, data, own.precision, allow_code, identity, own.decision.target, key)
    made.width, watched = made.classes, None
    if config.distill.hidden and student is not None:
        made.states = LayerStates(student.model)
        watched = LayerStates(own.model)
        made.layers, width = match_layers(made.states, watched, made.name)
        made.width += len(made.layers) * width
    if student is not None and student_source(config)[2] > 1 and precision.dtype != "fp32":
        made.exact = exact_weights(student.model)  # the teacher may be gone when they are saved
    with explained(NO_ROOM):
        for split in made.missing:
            made.seconds[split] = time_answers(teacher, watched, data.splits[split])
    notes = teacher.notes + made.lines()
    del teacher, own, watched
    release_memory()  # else the plan would count what the teacher held
    return made, notes


def match_layers(student: LayerStates, teacher: LayerStates, name: str) -> tuple[list[int], int]:
    """(the teacher's layer for each of the student's, width of a state). Raises ValueError where
    they do not match."""
    if student.width != teacher.width:
        raise ValueError(
            f"distill.hidden turns states towards the teacher's: the student's are {student.width} "
            f"wide and those of {name} {teacher.width}; they must be of one width. Remove it "
            "(--unset distill.hidden), or start from the teacher's layers (distill.student)"
        )
    each, rest = divmod(teacher.depth, student.depth)
    if rest or not each:
        raise ValueError(
            f"distill.hidden gives each layer one of the teacher's: the student has "
            f"{student.depth}, {name} {teacher.depth}, which is no multiple of it. Remove it "
            "(--unset distill.hidden), or take another student"
        )
    return list(range(each - 1, teacher.depth, each)), teacher.width


def choose_compute_loss(
    config: Config, kind: str, loss: tuple[LossFn, str], made: Distilled | None
) -> tuple[Callable[[nn.Module, Batch], Tensor], str]:
    """What a step minimises, `compute_loss(model, batch)`, and a sentence about it: the loss of the
    labels, or beside a teacher the student's."""
    loss_fn, sentence = loss
    if made is None or config.distill is None:
        return loss_from_logits(loss_fn), sentence
    d = config.distill
    read: ReadHidden | None = None if made.states is None else made.states.read
    compute = distill_loss(kind, loss_fn, d.temperature, d.weight, d.hidden, read)
    return compute, describe_loss(kind, d.temperature, d.weight, d.hidden, sentence)
