"""The questions that every format of an export answers; a file of formats/ is one format, and a row
of FORMATS in table.py.

    refuses     why can this run not be written so, and what to use instead?
    needs       is everything installed that writing and checking take?
    write       the files of the folder, and how its outputs become answers
    judge       does what was measured hold what the format promises?
    usage       how is it opened?

The check itself is a program of checkers/ that runs in a process of its own, without openloop.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from configs.schema import Config
    from engine.decision import Decision
    from job.folder import Folder
    from models.args import ModelArgs
    from models.ngrams.fusion import Fusion
    from models.texts import Texts

CHECKERS = Path(__file__).parent / "checkers"
EXACT = 1e-4  # how far a faithful copy may be off, in probabilities and in logits


@dataclass(frozen=True)
class Source:
    """A finished run, opened to be written in another format.

    `model` is plain: fp32 on the CPU, in evaluation mode, its method not merged. Whoever changes it
    puts it back, since it answers after the writing too. `decision` is that of what is written:
    where a bag answers beside the encoder (`fusion`), of the encoder alone, but for a format whose
    folder has both: then it is `joined`, and the decision that of both. `texts` says how texts
    are read; None for chat, whose `plain_texts` says that the model goes on with texts and answers
    no messages. `base` is where the base of the
    run's adapter is now, if it has moved, and `base_model` what the hub calls it.
    """

    folder: Folder
    config: Config
    model: nn.Module
    tokenizer: Any
    args: ModelArgs
    decision: Decision
    texts: Texts | None = None
    fusion: Fusion | None = None
    plain_texts: bool = False
    base: Path | None = None
    joined: bool = False
    base_model: str | None = None

    @property
    def is_chat(self) -> bool:
        return self.args.form == "language"


@dataclass(frozen=True)
class Written:
    """What was written. `decision`: how the outputs of what stands in the folder become answers; a
    temperature that went into the weights is no part of it any more. `notes`: what whoever opens it
    has to know, a sentence each. `joined`: it answers with the bag beside the encoder, as the run
    does."""

    decision: Decision
    notes: list[str] = field(default_factory=list)
    joined: bool = False


@dataclass(frozen=True)
class Parity:
    """What a check measured on `rows` rows, or prompts of a chat.

    `equal`: answers alike (None of numbers); `shares`, `outputs`: the largest difference in
    probabilities and in outputs, which for numbers are both in standard deviations of the labels,
    and for chat in the probability and log-probability of a reply's tokens; None where the tool
    does not tell. `differing`: the first rows that were answered otherwise. `right`, `own_right`:
    (N,) whether the tool, and openloop with the same model, have the label of a row; None where
    rows have none to compare. `other_prompts`: of a chat, prompts that have other tokens.
    """

    rows: int
    equal: int | None
    shares: float | None
    outputs: float | None
    differing: list[str] = field(default_factory=list)
    right: np.ndarray | None = None
    own_right: np.ndarray | None = None
    other_prompts: int = 0
    extra: dict[str, Any] = field(default_factory=dict)  # what else the program found out


class Format(Protocol):
    """One row of FORMATS."""

    tool: str  # what opens it, for people
    library: str  # library_name of the hub
    relation: str  # to the base model, in the hub's words: finetune, adapter, quantized
    promise: str  # what must hold, for people
    checker: str  # its program in checkers/

    def refuses(self, source: Source) -> str | None:
        """Why this run cannot be written so, with what to use instead; None where it can."""

    def needs(self) -> None:
        """Raise ValueError where a package is missing, with the command that installs it."""

    def write(self, source: Source, folder: Path) -> Written:
        """Write into `folder`, which is empty, is there, and becomes the export once checked. The
        card (README.md) and export.json are written by others."""

    def judge(self, parity: Parity) -> list[str]:
        """What the format promises and does not hold, a sentence each; nothing where it is good."""

    def usage(self, source: Source, name: str) -> str:
        """Python that opens it, with `name` in place of the folder or the hub's name."""


def exact(parity: Parity, most: float = EXACT) -> list[str]:
    """judge() of a format that promises the same answers, differences of at most `most`. What is no
    number is off."""
    lines = []
    if parity.equal is not None and parity.equal != parity.rows:
        lines.append(
            f"{parity.rows - parity.equal:,} of {parity.rows:,} rows are answered otherwise"
        )
    for name, off in (("probabilities", parity.shares), ("logits", parity.outputs)):
        if off is not None and not off <= most:
            lines.append(f"{name} are off by up to {off:.2g}; at most {most:g} is allowed")
    return lines
