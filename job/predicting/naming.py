"""Answers with their labels' names put to them."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from engine.decision import Decision, how_sure
from report.format import format_number

Text = str | tuple[str, str]


@dataclass(frozen=True)
class Prediction:
    """What the model says of one text. For regression `label` is the number as text, rounded, and
    `probabilities` holds it whole under "value"; both are in the labels' own unit."""

    text: Text
    label: str
    probability: float | None  # of `label`; None unless a text has exactly one
    probabilities: dict[str, float]
    labels: tuple[str, ...] = ()  # where a text can have several: those that hold
    unsure: bool | None = None  # whether this should be no answer; None where nobody asked


def name_predictions(
    texts: Sequence[Text], decision: Decision, logits: Tensor, names: Sequence[str],
    shares: Tensor | None = None,
) -> list[Prediction]:  # fmt: skip
    """What a decision makes of logits (B, C), one prediction a text; `shares` (B, C) are its
    probabilities, where they are known already."""
    shares = decision.probabilities(logits) if shares is None else shares
    if decision.kind == "regression":
        return [name_number(*pair) for pair in zip(texts, shares[:, 0].tolist(), strict=True)]
    answers = decision.answers(logits)
    sure = how_sure(decision.kind, shares, answers)
    unsure = decision.are_unsure(sure)
    marks = [None] * len(texts) if unsure is None else unsure.tolist()
    rows = zip(texts, answers.tolist(), sure.tolist(), shares.tolist(), marks, strict=True)
    return [name_classes(*row, names) for row in rows]


def name_number(text: Text, value: float) -> Prediction:
    """An answer that is a number."""
    number = format_number(value).replace(",", "")  # programs read it too
    return Prediction(text, number, None, {"value": value})


def name_classes(
    text: Text, answer: int | list[bool], sure: float, values: list[float], unsure: bool | None,
    names: Sequence[str],
) -> Prediction:  # fmt: skip
    """An answer, one class or which of several hold, and its probabilities (C,) with the labels'
    names put to them."""
    by_name = dict(zip(names, values, strict=True))
    if isinstance(answer, int):
        return Prediction(text, names[answer], sure, by_name, unsure=unsure)
    labels = tuple(name for name, holds in zip(names, answer, strict=True) if holds)
    return Prediction(text, ", ".join(labels) or "none", None, by_name, labels, unsure)
