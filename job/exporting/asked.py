"""What a check compares: the rows that are asked, what openloop answers, what the tool does."""

from dataclasses import dataclass, field
from typing import Any

import torch

from job.exporting.format import Parity, Source, Written


@dataclass(frozen=True)
class Own:
    """What a check begins with. `asked` goes to the program of the format; `rows` says in words
    what that is. `seconds` and `count` of what openloop itself answers, as the run answers, in
    `dtype`; `unit` is what is counted. `reference` is what the export has to give, in the form that
    Compare takes. `notes`: what the run answers beside what was written, a sentence each."""

    asked: dict[str, Any]
    rows: str
    dtype: str
    seconds: float
    count: int
    unit: str
    reference: Any
    notes: list[str] = field(default_factory=list)


def ask_openloop(source: Source, most: int) -> Own:
    """The first `most` test rows of a run and what openloop answers to them. Raises ValueError
    where the rows are gone or others than those of the training."""
    if source.is_chat:
        from job.exporting.chats import ask_chats

        return ask_chats(source, most)
    from job.exporting.labelled import ask_labelled

    return ask_labelled(source, most)


def compare(source: Source, written: Written, own: Own, answers: dict[str, Any]) -> Parity:
    """How what a program answered differs from what openloop did. Raises ValueError where its
    answers are no answers."""
    if source.is_chat:
        from job.exporting.chats import compare_chats

        return compare_chats(own, answers)
    from job.exporting.labelled import compare_labelled

    return compare_labelled(source, written, own, answers)


def largest(values: torch.Tensor) -> float:
    """The largest of differences; NaN where one is."""
    return values.abs().max().item() if values.numel() else 0.0
