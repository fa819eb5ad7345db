"""Answers on their way out: console lines, JSON lines, or a table that appears whole."""

import heapq
from collections.abc import Collection, Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from itertools import chain, islice, repeat
from pathlib import Path
from typing import Any, TextIO

from data.write import ENDINGS, column_types, json_text, write_rows
from engine.decision import Decision
from files.write import place_fault, replace_bytes
from job.console import mark, write_marked
from job.predicting.explain import Piece, explain_texts
from job.predicting.inputs import Item
from job.predicting.naming import Prediction
from job.predicting.predictor import CHUNK, Predictor
from job.reporting.decided import strongest
from report.format import clean_line

OURS = ("address", "text", "text_pair", "label", "probabilities", "error")


@dataclass(frozen=True)
class Answer:
    """An item with its prediction, or with the error that stands in its place."""

    item: Item
    prediction: Prediction | None
    error: str | None
    explanation: list[Piece] | None = None


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
    predictor: Predictor, items: Iterable[Item], strict: bool, count: Count, explain: bool = False
) -> Iterator[list[Answer]]:
    """Answers in the order of the items, a chunk at a time; with `explain` what each rests on.
    Raises ValueError at the first item with an error where `strict`."""
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
        yield with_explanations(predictor, done) if explain else done


def with_explanations(predictor: Predictor, answers: list[Answer]) -> list[Answer]:
    """The same answers; those to a text with what they rest on."""
    texts = [answer.prediction.text for answer in answers if answer.prediction is not None]
    pieces = iter(explain_texts(predictor, texts, [None] * len(texts)))
    return [a if a.prediction is None else replace(a, explanation=next(pieces)) for a in answers]


# Rows


@dataclass
class Shape:
    """How an answer becomes a row. With `top` so many probabilities, the largest first; with
    `explained` what answers rest on. A kept column with the name of one of ours is called input_…;
    `renamed` holds the new names. Raises ValueError for a `top` that the labels have not."""

    decision: Decision
    label_names: tuple[str, ...]
    pairs: bool
    top: int | None = None
    explained: bool = False
    renamed: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        labels = 0 if self.decision.kind == "regression" else len(self.label_names)
        if self.top is not None and not 1 <= self.top <= labels:
            answers = f"one of {labels} classes" if labels else "a number"
            raise ValueError(f"top-k is {self.top}; this run answers with {answers}")
        there = {
            "labels": self.decision.kind == "multi",
            "unsure": self.decision.limit is not None,
            "explanation": self.explained,
        }
        self.extra = [name for name, shown in there.items() if shown]
        self.taken = {*OURS, *self.extra, *self.share_cells(None)}

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
        """Address, text (of a pair: both), label, what was asked for, probabilities by label,
        error, other columns."""
        prediction = answer.prediction
        return {
            "address": answer.item.address,
            "text": answer.item.text,
            "label": None if prediction is None else prediction.label,
            **self.extra_cells(answer),
            "probabilities": None if prediction is None else dict(self.largest(prediction)),
            "error": answer.error,
            **self.keep(answer.item.others),
        }

    def table_row(self, answer: Answer) -> dict[str, Any]:
        """The same with a column a text and a column a probability."""
        prediction, text = answer.prediction, answer.item.text
        first, second = text if isinstance(text, tuple) else (text, None)
        return {
            "address": answer.item.address,
            "text": first,
            **({"text_pair": second} if self.pairs else {}),
            "label": None if prediction is None else prediction.label,
            **self.extra_cells(answer),
            **self.share_cells(prediction),
            "error": answer.error,
            **self.keep(answer.item.others),
        }

    def extra_cells(self, answer: Answer) -> dict[str, Any]:
        """Where there are any: the labels that hold, whether the answer is unsure, and the pieces
        of the text that it rests on (of a pair with the number of the text, 0 or 1)."""
        prediction, pieces = answer.prediction, answer.explanation
        hidden = set() if self.pairs else {"side"}
        cells: dict[str, Any] = {
            "labels": None if prediction is None else list(prediction.labels),
            "unsure": None if prediction is None else prediction.unsure,
            "explanation": None if pieces is None else [piece_cells(p, hidden) for p in pieces],
        }
        return {name: cells[name] for name in self.extra}

    def largest(self, prediction: Prediction) -> Iterable[tuple[str, float]]:
        """The probabilities that are shown, by label."""
        shares = prediction.probabilities.items()
        if self.top is None:
            return shares
        return heapq.nlargest(self.top, shares, key=lambda item: item[1])

    def share_cells(self, prediction: Prediction | None) -> dict[str, Any]:
        """A cell for each probability; with `top` label_1, probability_1, label_2, …"""
        if self.top is not None:
            shown = [] if prediction is None else self.largest(prediction)
            pairs = islice(chain(shown, repeat((None, None))), self.top)
            return {
                f"{word}_{n}": value
                for n, pair in enumerate(pairs, start=1)
                for word, value in zip(("label", "probability"), pair, strict=True)
            }
        shares = {} if prediction is None else prediction.probabilities
        if self.decision.kind == "regression":
            return {"value": shares.get("value")}
        return {f"probability_{name}": shares.get(name) for name in self.label_names}

    def column_types(self, items: Iterable[Item]) -> dict[str, Any]:
        """The columns of a table of answers with their types: ours, then those kept of `items`."""
        numbers = {
            name: "" if name.startswith("label_") else 0.5 for name in self.share_cells(None)
        }
        texts = dict.fromkeys(("text", "text_pair") if self.pairs else ("text",), "")
        extra = {name: True if name == "unsure" else "" for name in self.extra}
        ours = {"address": "", **texts, "label": "", **extra, **numbers, "error": ""}
        kept = column_types([], ([self.keep(i.others) for i in chunk] for chunk in chunks(items)))
        return column_types([], [[ours]]) | kept


def make_shape(predictor: Predictor, top: int | None, explained: bool) -> Shape:
    """The shape of a predictor's answers. Raises ValueError as Shape does."""
    return Shape(predictor.decision, predictor.label_names, predictor.pairs, top, explained)


def piece_cells(piece: Piece, hidden: Collection[str]) -> dict[str, Any]:
    """A piece of an explanation without what nobody needs."""
    cells = asdict(piece) | {"weight": round(piece.weight, 6)}
    return {name: value for name, value in cells.items() if name not in hidden}


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
    if fault := place_fault(path):
        raise ValueError(f"--output: {fault}")
    if source is not None and path.exists() and source.exists() and path.samefile(source):
        raise ValueError(f"--output {path} is the file of the texts; give it another name")


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
            if as_json:
                output.write(json_text(shape.json_row(answer)) + "\n")
            else:
                write_marked(output, console_line(answer, shape))
        output.flush()


def console_line(answer: Answer, shape: Shape) -> str:
    """Label, probability and text, its heaviest words marked where it is explained; in place of a
    label, what is wrong and where. With `top` the likeliest labels with theirs."""
    prediction = answer.prediction
    if prediction is None:
        return clean_line(f"(no label)  {answer.item.address}: {answer.error}")
    shown = "" if prediction.probability is None else f" {prediction.probability:7.1%}"
    label = clean_line(prediction.label)
    if prediction.unsure:
        label = f"unsure ({label}?)"
    if shape.top is not None:
        listed = [f"{clean_line(name)} {share:.1%}" for name, share in shape.largest(prediction)]
        label, shown = "unsure" if prediction.unsure else label, f"  [{', '.join(listed)}]"
    parts = prediction.text if isinstance(prediction.text, tuple) else (prediction.text,)
    marked = [
        mark(part, [(p.start, p.end) for p in heaviest(answer.explanation or []) if p.side == side])
        for side, part in enumerate(parts)
    ]
    return f"{label:>12}{shown}  {clean_line(' | '.join(marked))}"


def heaviest(pieces: list[Piece]) -> list[Piece]:
    """The words of an explanation that are marked: the strongest that speak as the first does."""
    words = [piece for piece in pieces if piece.unit == "word"]
    shown = [words[place] for place in strongest([word.weight for word in words])]
    return [word for word in shown if word.weight * shown[0].weight > 0]
