"""What of a decision goes into the weights of an export, and what stays beside them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from engine.decision import Decision
from engine.targets import IDENTITY
from job.exporting.format import Source, Written
from job.testing.decided import write_decision
from models.elsewhere.fold import folded


@contextmanager
def fold_decision(source: Source) -> Iterator[tuple[Decision, list[str]]]:
    """While the block runs the model's last layer also divides by the temperature, or of a number
    gives it in its own unit, where one linear layer comes last; (what is left to decide, what to
    say of it). Afterwards the model is as it was."""
    decision = source.decision
    if decision.kind == "regression":
        scale, shift = decision.target.deviation, decision.target.mean
        rest, done = replace(decision, target=IDENTITY), "Its output is in the labels' own unit."
    else:
        scale, shift = 1 / decision.temperature, 0.0
        rest = replace(decision, temperature=1.0)
        done = (
            f"The temperature {decision.temperature:.4g}, fitted on validation rows, is in the "
            "last layer: the probabilities are calibrated."
        )
    with folded(source.model, scale, shift) as can:
        notes = unit_notes(decision)
        if can and notes:
            notes = [done]
        yield (rest if can else decision), notes + limits(decision, source.args.label_names)


def unit_notes(decision: Decision) -> list[str]:
    """What is to be done with logits as the model gives them, before they are shares or numbers."""
    if decision.kind == "regression" and decision.target != IDENTITY:
        unit = f"output * {decision.target.deviation!r} + {decision.target.mean!r}"
        return [f"Its output is in standard deviations: {unit} is in the labels' own unit."]
    if decision.temperature != 1:
        return [
            f"Its logits are to be divided by the temperature {decision.temperature:.4g} before "
            "they become probabilities (decision.json)."
        ]
    return []


def limits(decision: Decision, names: tuple[str, ...]) -> list[str]:
    """What no weight says: thresholds, and what is unsure."""
    notes = []
    if decision.kind == "multi" and decision.thresholds:
        each = ", ".join(f"{n} {p:.4g}" for n, p in zip(names, decision.thresholds, strict=True))
        notes.append(f"A label holds above its threshold, which is yours to apply: {each}.")
    elif decision.thresholds:
        notes.append(
            f"{names[1]} is answered above {decision.thresholds[0]:.4g}, not above one half: yours "
            "to apply."
        )
    if decision.limit is not None:
        notes.append(f"An answer less sure than {decision.limit:.4g} is unsure: yours to apply.")
    return notes


def write_folded(
    source: Source, folder: Path, write: Callable[[nn.Module, Any, Path, int, str], float]
) -> Written:
    """Merged weights by `write` (model, tokenizer, folder, longest text, which side is cut; it
    gives the drift of the merge), with all of the decision in them that can be."""
    assert source.texts is not None
    with fold_decision(source) as (rest, notes):
        texts = source.texts
        drift = write(source.model, source.tokenizer, folder, texts.max_length, texts.truncation)
    write_rest(rest, source, folder)
    if source.args.method is not None:
        notes = [f"The method is merged into the weights; drift {drift:.1e}.", *notes]
    return Written(rest, notes)


def write_rest(rest: Decision, source: Source, folder: Path) -> None:
    """decision.json of an export, for who applies what its tool does not."""
    write_decision(rest, source.args.label_names, folder)


def outputs_of(logits: Tensor, decision: Decision, rest: Decision) -> Tensor:
    """What an export that leaves `rest` to decide must put out where the model itself gives logits
    (N, C); float64."""
    if decision.kind == "regression":
        values = decision.target.restore(logits)
        return (values - rest.target.mean) / rest.target.deviation
    return logits.double() * (rest.temperature / decision.temperature)
