"""An evaluation, or a result, on one line of the console."""

from typing import Any

from report.baseline import Comparison, comparison_line
from report.compare import NAMES
from report.format import format_number

FIGURES = ("r2", "rmse", "mae", "spearman", "loss")  # of numbers, as a line shows them


def show_figure(name: str, value: float) -> str:
    """One figure: those in the labels' own unit with four digits or so, the others to 1/10,000."""
    return format_number(value) if name in ("rmse", "mae") else f"{value:.4f}"


def evaluation_line(name: str, step: int, metrics: dict[str, Any], deciding: str = "loss") -> str:
    """One console line: the figures with n and interval, the deciding one among them."""
    if "accuracy" in metrics:
        low, high = metrics["interval"]
        parts = [
            f"loss {metrics['loss']:.4f}",
            f"accuracy {metrics['accuracy']:.4f} (95 % {low:.4f} to {high:.4f})",
            f"macro F1 {metrics['macro_f1']:.4f}",
        ]
    else:
        parts = [f"{figure} {show_figure(figure, metrics[figure])}" for figure in FIGURES]
    if deciding in metrics and deciding not in ("accuracy", "macro_f1", *FIGURES):
        parts.append(f"{NAMES.get(deciding, deciding)} {metrics[deciding]:.4f}")
    return f"{name} at step {step}: " + ", ".join([*parts, f"n {metrics['n']:,}"])


def tokens_line(name: str, step: int, metrics: dict[str, Any]) -> str:
    """One console line of a language model's figures over the learned tokens."""
    low, high = metrics["intervals"]["loss"]
    parts = [
        f"loss {metrics['loss']:.4f} (95 % {low:.4f} to {high:.4f})",
        f"perplexity {metrics['perplexity']:.2f}",
        f"token accuracy {metrics['token_accuracy']:.4f}",
        f"n {metrics['n']:,} tokens of {metrics['conversations']:,} conversations",
    ]
    return f"{name} at step {step}: " + ", ".join(parts)


def result_line(result: dict[str, Any]) -> str:
    """The one figure of a result, as a sentence, and what stands beside it."""
    test, compared = result.get("test") or {}, result.get("compared")
    beside = f" On the same rows: {comparison_line(Comparison(**compared))}." if compared else ""
    if "accuracy" in test:
        low, high = test["interval"]
        n = f"n {test['n']:,}, 95 % {low:.4f} to {high:.4f}"
        return f"Test accuracy {test['accuracy']:.4f} ({n}).{beside}"
    if "r2" in test:
        rmse = format_number(test["rmse"])
        return f"Test r2 {test['r2']:.4f}, rmse {rmse} (n {test['n']:,}).{beside}"
    if "perplexity" in test:
        figures = f"Test loss {test['loss']:.4f}, perplexity {test['perplexity']:.2f}"
        return f"{figures} (n {test['n']:,} tokens)."
    return f"Test loss {test['loss']:.4f} (n {test['n']:,})." if test else "It has no test split."
