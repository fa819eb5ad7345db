"""From logits to an answer, in one place: temperature, thresholds, "unsure", the target's unit.

    logits -- / temperature -- softmax | sigmoid -- probabilities -- threshold -- answer, or unsure
    logits -- * deviation + mean -- a number                                      (regression)

How the numbers of a Decision are fitted stands in calibrate.py.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeGuard

import torch
from torch import Tensor

from engine.calibrate import probabilities
from engine.targets import IDENTITY, Target

FORMAT = 2  # of decision.json; in 1 every answer was unsure where the limit was 1
NOTHING_IS_SURE = 2.0  # a limit that no probability reaches; one of 1 is reached by a 1


@dataclass(frozen=True)
class Decision:
    """How logits (B, C) become answers. Without settings: the likeliest class, of several labels
    those above one half, the number in its unit.

    `thresholds`: what a label's probability must exceed: one for each of several labels; of two
    classes one, that of the second class; none otherwise. `limit`: an answer less sure than this is
    unsure; None where nobody asked, NOTHING_IS_SURE where every answer is.
    """

    kind: str  # "single", "multi" or "regression"
    temperature: float = 1.0
    thresholds: tuple[float, ...] = ()
    limit: float | None = None
    target: Target = IDENTITY

    def answers(self, logits: Tensor) -> Tensor:
        """Shaped as the labels: (B,) class indices, (B, C) whether a class holds, or (B,) numbers
        in the user's unit. From the logits themselves: no temperature can move the largest."""
        if self.kind == "regression":
            return self.target.restore(logits).squeeze(-1)
        if not self.thresholds:
            return logits.argmax(dim=-1) if self.kind == "single" else logits > 0
        logits = logits.float()
        cuts = torch.tensor([self.temperature * logit(p) for p in self.thresholds])
        cuts = cuts.to(logits.device)
        if self.kind == "multi":
            return logits > cuts
        return (logits[:, 1] - logits[:, 0] > cuts).long()

    def probabilities(self, logits: Tensor) -> Tensor:
        """(B, C) class probabilities, or numbers in the user's unit (B, 1); float64 on the host."""
        logits = logits.detach().cpu().double()  # first to the host: MPS has no float64
        if self.kind == "regression":
            return self.target.restore(logits)
        return torch.from_numpy(probabilities(self.kind, logits.numpy(), self.temperature))

    def are_unsure(self, sure: Tensor) -> Tensor | None:
        """(B,) bool, whether answers as `sure` (B,) as that are none; None where nobody asked. One
        whose probability is NaN is as sure as nothing."""
        return None if self.limit is None else ~(sure >= self.limit)

    def threshold(self, label: int) -> float:
        """What the probability of one of several labels must exceed."""
        return self.thresholds[label] if self.thresholds else 0.5


def logit(share: float) -> float:
    """The logit of a probability; that of one half is 0 exactly."""
    return math.log(share / (1 - share))


def how_sure(kind: str, shares: Tensor, answers: Tensor) -> Tensor:
    """(B,) how sure the answers to classes are, from the probabilities (B, C) and the answers as
    answers() gives them: that of the class; of several labels that of the least sure of them, held
    or not."""
    if kind == "single":
        return shares.gather(1, answers[:, None].to(shares.device))[:, 0]
    return torch.where(answers.to(shares.device), shares, 1 - shares).amin(dim=1)


# Other settings than those that were fitted


def read_thresholds(words: Sequence[str]) -> dict[str | None, float]:
    """What is typed as P or LABEL=P; under None what holds for all labels. Raises ValueError."""
    thresholds: dict[str | None, float] = {}
    for word in words:
        name, _, number = word.rpartition("=")
        try:
            share = float(number)
        except ValueError:
            raise ValueError(f"threshold {word!r}: expected a number, or LABEL=NUMBER") from None
        if (name or None) in thresholds:
            raise ValueError(f"threshold {word!r}: given twice {f'for {name!r}' if name else ''}")
        thresholds[name or None] = share
    return thresholds


def override(
    decision: Decision, names: Sequence[str], unsure: float | None = None,
    thresholds: float | Mapping[str, float] | Mapping[str | None, float] | None = None,
) -> Decision:  # fmt: skip
    """The decision with a limit or thresholds of one's own: `names` are the labels, `thresholds`
    one number or one by label. Raises ValueError where that makes no sense."""
    if decision.kind == "regression" and (unsure is not None or thresholds):
        raise ValueError(
            "this run answers with a number, which has no threshold and is never unsure"
        )
    if unsure is not None:
        if not 0 <= unsure < 1:
            raise ValueError(f"unsure is {unsure!r}; expected at least 0 and less than 1")
        decision = replace(decision, limit=float(unsure))
    if thresholds is None or thresholds == {}:
        return decision
    by_label = dict(thresholds) if isinstance(thresholds, Mapping) else {None: thresholds}
    for name, share in by_label.items():
        of = "" if name is None else f" of {name!r}"
        if name is not None and name not in names:
            raise ValueError(f"threshold{of}: no such label; there are {', '.join(names)}")
        if not 0 < share < 1:
            raise ValueError(f"threshold{of} is {share!r}; expected more than 0 and less than 1")
    chosen = several if decision.kind == "multi" else second_of_two
    return replace(decision, thresholds=chosen(decision, names, by_label))


def several(
    decision: Decision, names: Sequence[str], by_label: Mapping[Any, float]
) -> tuple[float, ...]:
    """A threshold for each label: its own, else the one for all, else as it was."""
    return tuple(
        float(by_label.get(name, by_label.get(None, decision.threshold(i))))
        for i, name in enumerate(names)
    )


def second_of_two(
    decision: Decision, names: Sequence[str], by_label: Mapping[Any, float]
) -> tuple[float, ...]:
    """The threshold of the second of two classes. Raises ValueError where there are more, or where
    two are given."""
    if len(names) != 2:
        raise ValueError(
            f"a threshold makes no sense for one of {len(names)} classes: the likeliest is "
            "answered. Say how sure an answer has to be instead (unsure)"
        )
    if len(by_label) > 1:
        raise ValueError("of two classes one threshold: what the one lacks, the other has")
    ((name, share),) = by_label.items()
    return (float(share if name in (None, names[1]) else 1 - share),)


# decision.json


def to_json(decision: Decision, names: Sequence[str]) -> dict[str, Any]:
    """What decision.json holds of a decision."""
    target = {"mean": decision.target.mean, "deviation": decision.target.deviation}
    return {
        "format": FORMAT,
        "kind": decision.kind,
        "labels": list(names),
        "temperature": decision.temperature,
        "thresholds": list(decision.thresholds),
        "unsure": decision.limit,
        "target": target if decision.kind == "regression" else None,
    }


def from_json(values: Mapping[str, Any], path: str, kind: str, names: Sequence[str]) -> Decision:
    """A decision from what decision.json holds, for a model of such labels. Raises ValueError,
    naming `path`, where it is none, or that of another model."""
    form = values.get("format")
    if form not in (1, FORMAT):
        raise ValueError(f"{path} has format {form!r}; this version reads 1 and {FORMAT}")
    # thresholds go by the labels' order; without any, renamed labels are no matter of the decision
    renamed = values.get("labels") != list(names) and values.get("thresholds") != []
    if values.get("kind") != kind or renamed:
        raise ValueError(
            f"{path} is of labels {values.get('labels')!r:.200} ({values.get('kind')}); the model "
            f"beside it has {list(names)!r:.200} ({kind})"
        )
    temperature, shares = values.get("temperature"), values.get("thresholds")
    limit, target = values.get("unsure"), values.get("target") or {}
    if form == 1 and limit == 1:
        limit = NOTHING_IS_SURE
    unit = (target.get("mean"), target.get("deviation")) if isinstance(target, Mapping) else (None,)
    counts = {"single": (0, 1), "multi": (0, len(names)), "regression": (0,)}[kind]
    if (
        not (is_number(temperature) and temperature > 0)
        or not (isinstance(shares, list) and len(shares) in counts)
        or not all(is_number(share) and 0 < share < 1 for share in shares)
        or not (limit in (None, NOTHING_IS_SURE) or (is_number(limit) and 0 <= limit <= 1))
        or (kind == "regression" and not all(map(is_number, unit)))
    ):
        raise ValueError(f"{path} is damaged: it holds {dict(values)!r:.300}")
    return Decision(
        kind,
        float(temperature),
        tuple(map(float, shares)),
        None if limit is None else float(limit),
        Target(*unit) if kind == "regression" else IDENTITY,
    )


def is_number(value: Any) -> TypeGuard[float]:
    """Whether a value of JSON is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
