"""Answers on their way out: console lines, JSON lines, or a table that appears whole."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from data.write import ENDINGS, column_types, json_text, write_rows
from files.write import replace_bytes
from job.inputs import Item
from job.predictor import CHUNK, Prediction, Predictor
from report.format import clean_line

OURS = ("address", "text", "text_pair", "label", "probabilities", "error")


@dataclass(frozen=True)
class Answer:
    """An item with its prediction, or with the error that stands in its place."""

    item: Item
    prediction: Prediction | None
    error: str | None


@dataclass
class Count:
    """How many rows were answered, how many of them with an error, and the first such."""

    rows: int = 0
    errors: int = 0
    first: str = ""

    def note(self, answer: Answer) -> None:
        """Count one."""
        self.rows += 1
        if answer.error is not None:
            self.errors += 1
            self.first = self.first or f"{answer.item.address}: {answer.error}"

    def line(self) -> str:
        """What there was, for the end."""
        rows = f"{self.rows:,} row{'' if self.rows == 1 else 's'}"
        if not self.errors:
            return rows
        return f"{rows}, {self.errors:,} of them with an error and no label (first: {self.first})"


def answer_items(
    predictor: Predictor, items: Iterable[Item], strict: bool, count: Count
) -> Iterator[list[Answer]]:
    """Answers in the order of the items, a chunk at a time. Raises ValueError at the first item
    with an error where `strict`."""
    for chunk in chunks(items):
        errors = [item.error or predictor.fault(item.text) for item in chunk]
        usable = [i for i, error in enumerate(errors) if error is None]
        texts = [text for i in usable if (text := chunk[i].text) is not None]
        answered = dict(zip(usable, predictor.answer_chunk(texts) if texts else [], strict=True))
        done = []
        for i, item in enumerate(chunk):
            outcome = answered.get(i, errors[i])
            if isinstance(outcome, Prediction):
                answer = Answer(item, outcome, None)
            else:
                answer = Answer(item, None, outcome)
            if strict and answer.error is not None:
                raise ValueError(f"{item.address}: {answer.error}")
            count.note(answer)
            done.append(answer)
        yield done


# Rows


@dataclass
class Shape:
    """How an answer becomes a row. A kept column with the name of one of ours is called input_…;
    `renamed` holds the new names."""

    kind: str
    label_names: tuple[str, ...]
    pairs: bool
    renamed: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.shares = {"value": "value"}  # name in Prediction.probabilities -> column
        if self.kind != "regression":
            self.shares = {name: f"probability_{name}" for name in self.label_names}
        self.taken = {*OURS, *self.shares.values()}

    def keep(self, others: dict[str, Any]) -> dict[str, Any]:
        """A row's other columns, under names that are none of ours."""
        for name in others:
            if name in self.taken and name not in self.renamed:
                new = f"input_{name}"
                while new in self.taken or new in others:
                    new = f"input_{new}"
                self.renamed[name] = new
                self.taken.add(new)
        return {self.renamed.get(name, name): value for name, value in others.items()}

    def json_row(self, answer: Answer) -> dict[str, Any]:
        """Address, text (of a pair: both), label, probabilities by label, error, other columns."""
        prediction = answer.prediction
        return {
            "address": answer.item.address,
            "text": answer.item.text,
            "label": None if prediction is None else prediction.label,
            "probabilities": None if prediction is None else prediction.probabilities,
            "error": answer.error,
            **self.keep(answer.item.others),
        }

    def table_row(self, answer: Answer) -> dict[str, Any]:
        """The same with a column a text and a column a probability."""
        prediction, text = answer.prediction, answer.item.text
        first, second = text if isinstance(text, tuple) else (text, None)
        shares: dict[str, float] = {} if prediction is None else prediction.probabilities
        return {
            "address": answer.item.address,
            "text": first,
            **({"text_pair": second} if self.pairs else {}),
            "label": None if prediction is None else prediction.label,
            **{column: shares.get(name) for name, column in self.shares.items()},
            "error": answer.error,
            **self.keep(answer.item.others),
        }

    def column_types(self, items: Iterable[Item]) -> dict[str, Any]:
        """The columns of a table of answers with their types: ours, then those kept of `items`."""
        numbers = dict.fromkeys(self.shares.values(), 0.5)
        texts = dict.fromkeys(("text", "text_pair") if self.pairs else ("text",), "")
        ours = {"address": "", **texts, "label": "", **numbers, "error": ""}
        kept = column_types([], ([self.keep(i.others) for i in chunk] for chunk in chunks(items)))
        return column_types([], [[ours]]) | kept


def chunks(items: Iterable[Item]) -> Iterator[list[Item]]:
    """The items, CHUNK at a time."""
    iterator = iter(items)
    while chunk := list(islice(iterator, CHUNK)):
        yield chunk


# Files and lines


def check_output(path: Path, source: Path | None) -> None:
    """Raise ValueError where a file of answers could not be written, before any is worked out."""
    if path.suffix.lower() not in ENDINGS:
        raise ValueError(
            f"--output {path}: answers are written as {', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}, "
            "by the ending of the name"
        )
    if path.is_dir():
        raise ValueError(f"--output {path} is a folder; name a file in it")
    if path.exists() and not path.is_file():
        raise ValueError(f"--output {path} is no regular file; leave --output out to print")
    if source is not None and path.exists() and source.exists() and path.samefile(source):
        raise ValueError(f"--output {path} is the file of the texts; give it another name")
    if not path.parent.is_dir():
        raise ValueError(f"--output {path}: there is no folder {path.parent}")
    if not os.access(path.parent, os.W_OK):
        raise ValueError(f"--output {path}: the folder {path.parent} cannot be written to")


def write_file(
    path: Path, shape: Shape, answers: Iterable[list[Answer]], types: dict[str, Any] | None
) -> None:
    """Write the answers; the file appears whole once the last one is written. `types` are the
    columns of a table, None for JSON lines."""
    make_row = shape.json_row if types is None else shape.table_row
    rows = ([make_row(answer) for answer in done] for done in answers)
    with replace_bytes(path) as file:
        write_rows(file, path.suffix.lower(), types or {}, rows)


def show(answers: Iterable[list[Answer]], output: TextIO, shape: Shape, as_json: bool) -> None:
    """Print the answers, each chunk as soon as it is there: a line for each, or a JSON object."""
    for done in answers:
        for answer in done:
            line = json_text(shape.json_row(answer)) if as_json else console_line(answer)
            output.write(line + "\n")
        output.flush()


def console_line(answer: Answer) -> str:
    """Label, probability and text; in place of a label, what is wrong and where."""
    prediction = answer.prediction
    if prediction is None:
        return clean_line(f"(no label)  {answer.item.address}: {answer.error}")
    shown = "" if prediction.probability is None else f" {prediction.probability:7.1%}"
    text = prediction.text if isinstance(prediction.text, str) else " | ".join(prediction.text)
    return f"{clean_line(prediction.label):>12}{shown}  {clean_line(text)}"
