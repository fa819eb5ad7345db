"""Answers with their labels' names put to them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

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
    texts: Sequence[Text], decision: Decision, logits: Tensor, names: Sequence[str]
) -> list[Prediction]:
    """What a decision makes of logits (B, C), one prediction a text."""
    answers = decision.answers(logits).tolist()
    shares = decision.probabilities(logits).tolist()
    return [
        name_prediction(text, decision, answer, values, names)
        for text, answer, values in zip(texts, answers, shares, strict=True)
    ]


def name_prediction(
    text: Text, decision: Decision, answer: Any, values: list[float], names: Sequence[str]
) -> Prediction:
    """An answer and its probabilities (C,) with the labels' names put to them."""
    sure = how_sure(decision.kind, values, answer)
    if sure is None:
        number = format_number(values[0]).replace(",", "")  # programs read it too
        return Prediction(text, number, None, {"value": values[0]})
    by_name, unsure = dict(zip(names, values, strict=True)), decision.is_unsure(sure)
    if decision.kind == "single":
        return Prediction(text, names[answer], sure, by_name, unsure=unsure)
    labels = tuple(name for name, holds in zip(names, answer, strict=True) if holds)
    return Prediction(text, ", ".join(labels) or "none", None, by_name, labels, unsure)
