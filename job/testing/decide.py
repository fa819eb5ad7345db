"""What validation rows say of a trained model's answers: its Decision, and what to say of it."""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engine.calibrate import (
    FEWEST_POSITIVES,
    FEWEST_ROWS,
    FEWEST_WRONG,
    SURELY,
    CalibrationCounter,
    Limit,
    count_wrong,
    fit_limit,
    fit_temperature,
    fit_threshold,
    gain,
    probabilities,
)
from engine.decision import NOTHING_IS_SURE, Decision, how_sure
from engine.stop import StopRequest
from job.fit import split_batches
from job.job import Job
from job.testing.fusion import collect_logits
from job.testing.scorer import labels_of, plain_decision
from report.format import format_count, format_number, format_share, join_names

AS_THEY_ARE = "probabilities as the model gives them"
MOST_CELLS = 10_000_000  # logits that are looked at: of more, rows at equal distances


@dataclass(frozen=True)
class Fitted:
    """A decision, what came of fitting it in lines, and its figures for result.json."""

    decision: Decision
    lines: list[str]
    figures: dict[str, Any] = field(default_factory=dict)

    def with_test(self, tested: dict[str, Any]) -> dict[str, Any] | None:
        """The figures and the lines, with what the decision does on the test rows; None where there
        is none."""
        if not self.figures:
            return None
        return {**self.figures, "lines": self.lines, "test": tested or None}


class DecisionCounter:
    """What a decision does to answers, over batches: how far its probabilities can be trusted, and
    how many answers stand, if some are unsure, and are right."""

    def __init__(self, decision: Decision):
        self.decision, self.answered, self.right = decision, 0, 0
        self.calibration = CalibrationCounter(decision.kind, decision.temperature)

    def update(self, logits: Tensor, labels: np.ndarray, shares: Tensor) -> None:
        """logits (B, C) fp32 on the host, labels as a batch has them, and the probabilities (B, C)
        that the decision gives."""
        if self.decision.kind == "regression":
            return
        self.calibration.update(logits.numpy(), labels)
        if self.decision.limit is not None:
            sure, right = judge_answers(self.decision, logits, labels, shares)
            unsure = self.decision.are_unsure(sure)
            assert unsure is not None
            stands = ~unsure.numpy()
            self.answered += int(stands.sum())
            self.right += int(right[stands].sum())

    def results(self) -> dict[str, Any]:
        """The figures; of a regression none."""
        if self.decision.kind == "regression":
            return {}
        stands = {"answered": self.answered, "right": self.right}
        return self.calibration.results() | ({} if self.decision.limit is None else stands)


def judge_answers(
    decision: Decision, logits: Tensor, labels: np.ndarray, shares: Tensor
) -> tuple[Tensor, np.ndarray]:
    """(B,) how sure each answer is, and (B,) whether it is right: of several labels all of them.
    logits (B, C), labels (B,) class indices or (B, C) of 0 and 1, shares (B, C)."""
    answers = decision.answers(logits)
    right = answers.numpy() == (labels > 0.5 if decision.kind == "multi" else labels)
    return how_sure(decision.kind, shares, answers), right.reshape(len(right), -1).all(axis=1)


def fit_decision(job: Job, logits: Tensor | None, stop: StopRequest) -> Fitted:
    """Fit what [decide] asks for on the validation rows. `logits` (N, C) are what answers there, an
    encoder and a bag together, where that is known already; else the model is asked.

    Raises Stopped where it was asked to end meanwhile.
    """
    config, plain = job.config.decide, plain_decision(job)
    if plain.kind == "regression":
        return Fitted(plain, [])
    if not config.calibrate and config.min_precision is None:
        return Fitted(plain, [f"{AS_THEY_ARE} (decide.calibrate is false)"])
    if "validation" not in job.encoded:
        return Fitted(plain, [f"{AS_THEY_ARE}: there are no validation rows"])
    rows = job.data.splits["validation"]
    every = -(-len(rows) * job.num_labels // MOST_CELLS)
    rows = rows.select(range(0, len(rows), every))
    if logits is None:
        batches = stop.guard(split_batches(job, "validation"))
        logits = collect_logits(job.built.model, batches, rows, job.precision)
    else:
        logits = logits[::every]
    if not logits.isfinite().all():
        limit = None if config.min_precision is None else NOTHING_IS_SURE
        return Fitted(replace(plain, limit=limit), [f"{AS_THEY_ARE}: its logits are no numbers"])
    return fit_scores(job, logits.double().numpy(), labels_of(rows).numpy())


def fit_scores(job: Job, logits: np.ndarray, labels: np.ndarray) -> Fitted:
    """The decision for logits (N, C) float64 of validation rows and their labels."""
    config, decision, lines = job.config.decide, plain_decision(job), []
    kind, names = decision.kind, job.data.label_names
    if config.calibrate:
        reason = why_no_temperature(kind, logits, labels)
        temperature = 1.0 if reason else fit_temperature(kind, logits, labels)
        if temperature != 1 and gain(kind, logits, labels, temperature) < SURELY:
            reason = (
                f"{format_number(temperature)} would be the best on {format_count(len(logits))} "
                "validation rows, by no more than luck can do"
            )
        else:
            decision = replace(decision, temperature=temperature)
        measured = measure(kind, logits, labels, decision.temperature)
        lines.append(temperature_line(decision.temperature, measured, reason))
        if kind == "multi":
            cuts, few = fit_thresholds(logits, labels)
            # as a probability, which at 1e-13 from 0 and 1 still has a logit
            shares = probabilities(kind, np.clip(cuts / decision.temperature, -30, 30), 1.0)
            shares[cuts == 0] = 0.5
            decision = replace(decision, thresholds=tuple(shares.tolist()))
            lines.append(threshold_line(decision.thresholds, names, few))
    figures: dict[str, Any] = {"temperature": decision.temperature}
    if decision.thresholds:
        figures["thresholds"] = dict(zip(names, decision.thresholds, strict=True))
    figures["validation"] = measure(kind, logits, labels, decision.temperature)
    if config.min_precision is not None:
        rows = torch.from_numpy(logits)
        sure, right = judge_answers(decision, rows, labels, decision.probabilities(rows))
        limit = fit_limit(sure.numpy(), right, config.min_precision)
        value = NOTHING_IS_SURE if limit.value is None else limit.value
        decision = replace(decision, limit=value)
        lines.append(limit_line(limit, len(logits), config.min_precision))
        figures["unsure"] = {"min_precision": config.min_precision, "limit": limit.value}
        figures["validation"] |= {"answered": limit.answered, "right": limit.right}
    return Fitted(decision, lines, figures)


def measure(
    kind: str, logits: np.ndarray, labels: np.ndarray, temperature: float
) -> dict[str, float | int]:
    """What a temperature does to the probabilities of rows."""
    counter = CalibrationCounter(kind, temperature)
    counter.update(logits, labels)
    return counter.results()


def why_no_temperature(kind: str, logits: np.ndarray, labels: np.ndarray) -> str:
    """Why these rows cannot tell a temperature; empty where they can."""
    if len(logits) < FEWEST_ROWS:
        return f"it takes {FEWEST_ROWS} validation rows, and there are {len(logits)}"
    wrong = count_wrong(kind, logits, labels)
    if wrong < FEWEST_WRONG:
        return (
            f"it is told from wrong answers, and {wrong} on {format_count(len(logits))} validation "
            f"rows are fewer than {FEWEST_WRONG}"
        )
    return ""


def fit_thresholds(logits: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """(C,) the logits that labels have to exceed, and the labels that too few rows hold, whose
    logit stays 0. logits and labels (N, C)."""
    held = labels > 0.5
    few = np.flatnonzero(held.sum(axis=0) < FEWEST_POSITIVES).tolist()
    cuts = [
        0.0 if label in few else fit_threshold(logits[:, label], held[:, label])
        for label in range(logits.shape[1])
    ]
    return np.array(cuts), few


# Words


def temperature_line(temperature: float, figures: dict[str, Any], reason: str) -> str:
    """What temperature there is, and what it does on the validation rows."""
    if reason:
        return f"no temperature: {reason}"
    if temperature == 1:
        return "no temperature: none is better on the validation rows"
    return (
        f"temperature {format_number(temperature)}, fitted on {format_count(figures['n'])} "
        f"validation rows: -log p {figures['nll_before']:.4f} to {figures['nll_after']:.4f}, "
        f"calibration error {figures['ece_before']:.4f} to {figures['ece_after']:.4f}"
    )


def threshold_line(thresholds: tuple[float, ...], names: tuple[str, ...], few: list[int]) -> str:
    """The labels' thresholds, those of most use first, and which labels keep one half and why."""
    changed = [
        f"{name} {share:.3f}" for name, share in zip(names, thresholds, strict=True) if share != 0.5
    ]
    line = f"thresholds: {join_names(changed)}" if changed else "thresholds: 0.5"
    if few:
        held = join_names([names[label] for label in few])
        line += f"; 0.5 stays where fewer than {FEWEST_POSITIVES} validation rows hold one: {held}"
    return line


def limit_line(limit: Limit, rows: int, min_precision: float) -> str:
    """Below what an answer is unsure, and what that leaves."""
    least = f"{100 * min_precision:g} %"
    if limit.value is None:
        return (
            f"WARNING: every answer is unsure: {format_count(rows)} validation rows do not show "
            f"that any part of the answers is right in {least} (decide.min_precision)"
        )
    right = format_share(limit.right, limit.answered)
    if limit.value == 0:
        return f"no answer is unsure: {right} of all are right, and {least} were asked for"
    answered = format_share(limit.answered, rows)
    return (
        f"an answer that is less than {100 * limit.value:.1f} % sure is unsure: the other "
        f"{answered} of the validation rows are right in {right}, and {least} were asked for"
    )


def test_lines(tested: dict[str, Any]) -> list[str]:
    """What a decision does on the test rows, from DecisionCounter.results()."""
    if not tested:
        return []
    n = tested["n"]
    before, after = ((tested[f"nll_{x}"], tested[f"ece_{x}"]) for x in ("before", "after"))
    changed = before != after
    lines = [
        f"on {format_count(n)} test rows: -log p {before[0]:.4f}{f' to {after[0]:.4f}' * changed}, "
        f"calibration error {before[1]:.4f}{f' to {after[1]:.4f}' * changed}"
    ]
    if "answered" in tested:
        right = format_share(tested["right"], tested["answered"])
        answered = format_share(tested["answered"], n + tested.get("lost", 0))
        lines.append(f"of the test rows {answered} are answered, {right} of these rightly")
    return lines


def snippet_lines(decision: Decision) -> list[str]:
    """Python that makes of `logits` what a decision does."""
    if decision.kind == "regression":
        return []
    to_shares = "softmax(-1)" if decision.kind == "single" else "sigmoid()"
    lines = [
        f"probabilities = (logits.double() / {decision.temperature!r}).{to_shares}  # (B, C)",
    ]
    if decision.kind == "multi":
        shares = list(decision.thresholds) or 0.5
        return [*lines, f"holds = probabilities > torch.tensor({shares})  # (B, C)"]
    best = "probabilities.argmax(-1)"
    if decision.thresholds:
        best = f"(probabilities[:, 1] > {decision.thresholds[0]!r}).long()"
    return [*lines, f"best = {best}  # (B,)"]
