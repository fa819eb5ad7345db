"""What a check begins with: its questions, and what openloop answers to them."""

from dataclasses import dataclass, field
from typing import Any

import torch


@dataclass(frozen=True)
class Own:
    """What a check begins with. `questions` go to the program of the format; `rows` says in words
    what that is. `seconds` and `count` of what openloop itself answers, as the run answers, in
    `dtype`; `unit` is what is counted. `reference` is what the export has to give, in the form that
    Task.compare takes. `notes`: what the run answers beside what was written, a sentence each."""

    questions: dict[str, Any]
    rows: str
    dtype: str
    seconds: float
    count: int
    unit: str
    reference: Any
    notes: list[str] = field(default_factory=list)


def largest(values: torch.Tensor) -> float:
    """The largest of differences; NaN where one is."""
    return values.abs().max().item() if values.numel() else 0.0
