"""What stands beside a test figure: what an answer without reading reaches, and a bag of words."""

import math
from dataclasses import dataclass

from report.format import format_number, shorten

CONSTANTS = {
    "single": "commonest class", "multi": "commonest labels", "regression": "mean",
}  # fmt: skip
NAME_COLUMNS = 30  # of the class or the labels that come most often


@dataclass(frozen=True)
class Comparison:
    """A test figure beside its baselines, all on the same rows; of rmse less is better."""

    metric: str  # "accuracy" or "rmse"
    value: float
    constant: float  # always answering the same
    constant_answer: str  # the commonest class or labels of the training rows, or their mean
    kind: str  # "single", "multi" or "regression"
    bag_of_words: float | None = None
    ahead: tuple[float, float, float] | None = None  # of the bag of words: estimate, low, high
    note: str = ""  # about the bag of words


def comparison_line(comparison: Comparison) -> str:
    """accuracy 0.902; commonest class (pos) 0.500; bag of words 0.887; ahead by 0.015 (0.002 to
    0.028)."""
    always = "always the " if comparison.kind == "regression" else ""
    answer = shorten(comparison.constant_answer, NAME_COLUMNS)
    constant = f"{always}{CONSTANTS[comparison.kind]} ({answer})"
    parts = [
        f"{comparison.metric} {_show(comparison, comparison.value)}",
        f"{constant} {_show(comparison, comparison.constant)}",
    ]
    if comparison.bag_of_words is not None:
        note = f" ({comparison.note})" if comparison.note else ""
        parts.append(f"bag of words{note} {_show(comparison, comparison.bag_of_words)}")
    elif comparison.note:
        parts.append(f"bag of words: {comparison.note}")
    ahead = comparison.ahead
    if ahead is not None and ahead[0] is not None and math.isfinite(ahead[0]):  # null in a file
        parts.append(_ahead(comparison, *ahead))
    return "; ".join(parts)


def _ahead(comparison: Comparison, estimate: float, low: float, high: float) -> str:
    word = "ahead"
    if estimate < 0:
        word, estimate, low, high = "behind", -estimate, -high, -low
    shown = [_show(comparison, value) for value in (estimate, low, high)]
    chance = ", which may be chance" if low <= 0 <= high else ""
    return f"{word} by {shown[0]} ({shown[1]} to {shown[2]}){chance}"


def _show(comparison: Comparison, value: float) -> str:
    return format_number(value) if comparison.metric == "rmse" else f"{value:.3f}"
