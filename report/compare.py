"""Runs side by side, as text: what differs, figures, differences, rows that only one has right."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from report.format import (
    COLUMNS,
    NONE,
    align_table,
    clean_line,
    format_bytes,
    format_number,
    format_p,
    format_seconds,
    shorten,
)

SHOWN = 5  # rows of each side
JUDGED_BY = ("accuracy", "r2", "loss")  # the first of these figures that a run has
NAMES = {
    "macro_f1": "macro F1", "weighted_f1": "weighted F1", "r2": "R²", "mcc": "MCC",
    "balanced_accuracy": "balanced accuracy", "auroc": "AUROC",
    "average_precision": "average precision", "token_accuracy": "token accuracy",
}  # fmt: skip
LESS_IS_BETTER = ("loss", "perplexity", "rmse", "mae")


@dataclass(frozen=True)
class Run:
    """A finished run as plain values. `figures` are those of its test, with "interval"."""

    name: str
    figures: Mapping[str, Any]
    seconds: float | None
    memory: int | None


@dataclass(frozen=True)
class Change:
    """A difference in one figure: the second run's less the first's."""

    metric: str
    difference: float
    low: float
    high: float
    p: float | None
    n: int


@dataclass(frozen=True)
class OnlyOne:
    """A row that one of two runs alone has right. `answer` is that of the other."""

    address: str
    label: str
    answer: str
    text: str


def show_value(value: Any) -> str:
    """A setting as it stands in a recipe."""
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return str(value).lower()
    return clean_line(value if isinstance(value, str) else str(value))


Table = list[list[str]]  # rows of cells, the first of which are names


def settings_table(names: Sequence[str], differing: Mapping[str, Sequence[Any]]) -> Table:
    """The settings that differ, a column a run; without rows where none does."""
    rows = [[key, *(show_value(value) for value in own)] for key, own in differing.items()]
    return [["setting", *names], *rows] if rows else []


def figure(run: Run, metric: str) -> str:
    """A figure of a run with its interval, where it has one."""
    value, interval = run.figures.get(metric), interval_of(run, metric)
    if value is not None and interval is not None:
        return f"{value:.4f} ({interval[0]:.4f} to {interval[1]:.4f})"
    return NONE if value is None else f"{value:.4f}"


def interval_of(run: Run, metric: str) -> Sequence[float] | None:
    """The 95 % interval of a figure: of language models several have one, of others accuracy."""
    if "intervals" in run.figures:
        own: Sequence[float] | None = run.figures["intervals"].get(metric)
        return own
    return run.figures.get("interval") if metric == "accuracy" else None


def figures_table(runs: Sequence[Run]) -> Table:
    """Figures, time and memory, a column a run."""
    metrics = dict.fromkeys(
        key
        for run in runs
        for key, value in run.figures.items()
        if isinstance(value, float) and key != "n"
    )
    rows = [["test", *(run.name for run in runs)]]
    rows += [[NAMES.get(key, key), *(figure(run, key) for run in runs)] for key in metrics]
    unit = "tokens" if any("conversations" in run.figures for run in runs) else "rows"
    rows.append([unit, *(f"{run.figures.get('n', 0):,}" for run in runs)])
    rows.append(["training to test", *(format_seconds(run.seconds) for run in runs)])
    rows.append(["memory", *(format_bytes(run.memory) for run in runs)])
    return rows


def change_table(names: Sequence[str], changes: Sequence[Change]) -> Table:
    """The differences of two runs."""
    rows = [["difference", f"{names[1]} less {names[0]}", "95 %", "p"]]
    for one in changes:
        p = NONE if one.p is None else format_p(one.p)
        interval = f"{one.low:+.4f} to {one.high:+.4f}"
        rows.append([NAMES.get(one.metric, one.metric), f"{one.difference:+.4f}", interval, p])
    return rows


def text_of(table: Table) -> list[str]:
    """A table as lines of text; long cells are cut."""
    width = max(8, (COLUMNS - 30) // max(1, len(table[0]) - 1) - 2)
    head, rows = table[0], table[1:]
    return align_table([head, *([row[0], *(shorten(x, width) for x in row[1:])] for row in rows)])


def conclude(names: Sequence[str], change: Change) -> str:
    """Whether one of the two is better, as a sentence."""
    name = NAMES.get(change.metric, change.metric)
    if math.isnan(change.difference):
        return (
            f"None is shown to be better: for some of these {change.n:,} rows there is no number."
        )
    if change.low == change.high == 0:
        return f"Both answer these {change.n:,} rows equally well, in {name} to the last digit."
    if change.low <= 0 <= change.high:
        return (
            f"None is shown to be better: on these {change.n:,} rows the difference in {name} can "
            f"lie anywhere from {change.low:+.4f} to {change.high:+.4f}."
        )
    better = (change.difference < 0) == (change.metric in LESS_IS_BETTER)
    return f"{names[better]} is better: {name} by {abs(change.difference):.4f}."


def rows_lines(winner: str, rows: Sequence[OnlyOne]) -> list[str]:
    """The first rows that only one of two runs has right, with what the other answers."""
    lines = [f"{winner} alone has {len(rows):,} row{'' if len(rows) == 1 else 's'} right"]
    for row in rows[:SHOWN]:
        line = f"{row.address}: {row.label}, not {row.answer}: {row.text}"
        lines.append("  " + shorten(clean_line(line), COLUMNS - 2))
    return lines


def list_table(groups: Sequence[Sequence[Run]], metric: str) -> Table:
    """Runs of one test set, in their order; seeds of one recipe stand below their mean."""
    rows = [["run", NAMES.get(metric, metric), "95 %", "training to test", "memory"]]
    for group in groups:
        if len(group) > 1:
            mean = sum(run.figures[metric] for run in group) / len(group)
            rows.append([f"{len(group)} seeds", f"{mean:.4f}", "", "", ""])
        for run in group:
            low, high = interval_of(run, metric) or (None, None)
            rows.append(
                [
                    ("  " if len(group) > 1 else "") + run.name,
                    format_number(run.figures[metric]) if metric != "accuracy"
                    else f"{run.figures[metric]:.4f}",
                    NONE if low is None else f"{low:.4f} to {high:.4f}",
                    format_seconds(run.seconds),
                    format_bytes(run.memory),
                ]
            )  # fmt: skip
    return rows
