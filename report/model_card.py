"""The card of an export: what the model does, how it is opened, what it is worth, what was checked.

Whatever comes from data is escaped. The card names no place on the machine that wrote it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from report.card import Result
from report.format import NONE, format_count, format_number
from report.front_matter import front_matter
from report.markdown import bullets, code_block, code_span, escape_markdown, markdown_table, section
from report.parity import ParityTable, parity_markdown

HUB_NAMES = {  # our figure -> the hub's metric, where it has one of its own
    "macro_f1": "f1", "weighted_f1": "f1", "mcc": "matthews_correlation", "auroc": "roc_auc",
    "spearman": "spearmanr", "r2": "r_squared", "rmse": "rmse", "mae": "mae",
}  # fmt: skip
MOST_NAMED = 40  # labels


@dataclass(frozen=True)
class ModelCard:
    """All that the card of an export says. What the hub reads and nobody told is None."""

    name: str
    does: str  # a sentence
    usage: str  # Python
    keeps: Sequence[str]  # what whoever opens it has to know, a sentence each
    trained: Sequence[str]  # on what, how, a sentence each
    results: Sequence[Result]
    measured: str  # on which rows
    parity: ParityTable
    library: str
    task: str  # pipeline_tag
    tags: Sequence[str]
    relation: str
    license: str | None = None
    languages: Sequence[str] = ()
    base_model: str | None = None
    dataset: str | None = None
    labels: Sequence[str] = field(default=())


def hub_values(card: ModelCard) -> dict[str, Any]:
    """The front matter as values."""
    metrics = [
        {"type": HUB_NAMES.get(one.metric, one.metric), "value": round(one.value, 6),
         "name": figure_name(one)}
        for one in card.results if math.isfinite(one.value)
    ]  # fmt: skip
    results = [{
        "task": {"type": card.task},
        "dataset": {"type": card.dataset or "private", "name": card.dataset or card.measured},
        "metrics": metrics,
    }]  # fmt: skip
    return {
        "library_name": card.library,
        "pipeline_tag": card.task,
        "license": card.license,
        "language": [*card.languages],
        "base_model": card.base_model,
        "base_model_relation": card.relation if card.base_model else None,
        "datasets": [card.dataset] if card.dataset else None,
        "tags": [*card.tags],
        "model-index": [{"name": card.name, "results": results}] if metrics else None,
    }


def figure_name(one: Result) -> str:
    """A figure with what it rests on: the hub has no field for either."""
    interval = (
        "" if one.low is None or one.high is None
        else f", 95 % interval {format_number(one.low)} to {format_number(one.high)}"
    )  # fmt: skip
    return f"{one.metric} (n {format_count(one.rows)}{interval})"


def model_card(card: ModelCard) -> str:
    """The whole file."""
    named = [code_span(label) for label in card.labels[:MOST_NAMED]]
    more = len(card.labels) - len(named)
    labels = ", ".join(named) + (f" and {format_count(more)} more" if more > 0 else "")
    rows = [
        (code_span(one.metric), format_number(one.value),
         NONE if one.low is None or one.high is None
         else f"{format_number(one.low)} to {format_number(one.high)}", format_count(one.rows))
        for one in card.results
    ]  # fmt: skip
    figures = markdown_table(("metric", "value", "95 % interval", "n"), rows, numbers=3)
    measured = [f"Measured on {escape_markdown(card.measured)}.", "", *figures]
    lines = [
        f"# {escape_markdown(card.name)}",
        "",
        escape_markdown(card.does) + (f" Labels: {labels}." if labels else ""),
        "",
        *section("Use", [*code_block(card.usage, "python"), "", *bullets(card.keeps)]),
        *section("Training", bullets(card.trained)),
        *(section("Figures", measured) if rows else []),
        *section("Parity", parity_markdown(card.parity)),
    ]
    return front_matter(hub_values(card)) + "\n" + "\n".join(lines).rstrip() + "\n"
