"""A run's folder becomes report.html: whatever is there is shown, of an unfinished run too. Nothing
here loads torch."""

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

from configs.fields import list_settings
from configs.read import trajectory
from configs.schema import Config
from data.summary import DataReport
from engine.intervals import wilson_interval
from files.write import save_text
from job.figures import by_length, reliability, suspects, thresholds
from job.folder import Folder, saved_config
from job.predictions import Line, read_lines, read_predictions
from report.baseline import Comparison, comparison_line
from report.compare import JUDGED_BY, NAMES, show_value
from report.format import format_bytes, format_number, format_seconds
from report.page.drawings import curves, length_chart, number_charts, trust_chart
from report.page.page import Cell, Example, Page, Slice, render

PAGE = "report.html"
SHOWN = {"mistakes": 20, "suspects": 20, "cell": 10}
MOST_TEXT = 20_000  # characters of a text; a longer one is cut
MOST_CLASSES = 30  # of a confusion matrix that can be looked at


def write_page(folder: Folder) -> Path:
    """Write report.html into a run's folder. Raises ValueError where it holds no run, or a file of
    it cannot be read."""
    path = folder.path / PAGE
    save_text(path, render(gather(folder)))
    return path


def gather(folder: Folder) -> Page:
    """The page of a run's folder."""
    config = saved_config(folder)
    result = folder.read_json("result.json") if folder.result.exists() else {}
    test = result.get("test") or {}
    log = [line for _, line in read_lines(folder.path / "metrics.jsonl", torn=True)]
    lines = list(read_predictions(folder.predictions)) if result else []
    single = bool(lines) and isinstance(lines[0].label, str)
    keep = config.report.texts
    names = list(test_names(folder, lines)) if single else []
    slider = slider_values(lines, names) if single and len(names) <= MOST_CLASSES else {}
    limit = config.data.max_length
    return Page(
        name=config.run.name,
        status=status(config, result, log),
        headline=headline(test, log),
        verdict=verdict(result),
        warnings=result.get("verdicts", []),
        figures=figures(test),
        curves=curves(log, result.get("progress", {}).get("best_step")),
        matrix=matrix(lines, names, keep) if single and len(names) <= MOST_CLASSES else [],
        slider=slider,
        slider_rows=slider_rows(slider),
        trust=trust_chart(reliability(lines)) if single else [],
        lengths=length_chart(by_length(lines), limit) if single else [],
        numbers=number_charts([(one.label, one.predicted) for one in lines])
        if "rmse" in test
        else [],
        slices=label_slices(lines) if single else [],
        mistakes=[example(one, keep) for one in wrong(lines)[: SHOWN["mistakes"]]]
        if single
        else [],
        suspects=suspect_rows(lines, keep) if single else [],
        samples=sample_rows(folder, result),
        data=data_lines(folder),
        settings=settings(config),
        versions=version_rows(folder),
        costs=costs(result),
        command=f"python train.py --config {folder.config}",
        texts=keep,
    )


# Reading


def test_names(folder: Folder, lines: Sequence[Line]) -> list[str]:
    """The classes in the labels' order."""
    counts = folder.read_json("data.json").get("labels", {}).get("test", {})
    seen = dict.fromkeys([*counts, *(x for one in lines for x in (one.label, one.predicted))])
    return list(seen)


# The top


def status(config: Config, result: dict[str, Any], log: Sequence[dict[str, Any]]) -> str:
    if result:
        return f"finished, with {result['weights']}"
    step = log[-1]["step"] if log else 0
    return f"not finished: it stands at step {step:,}"


def headline(test: dict[str, Any], log: Sequence[dict[str, Any]]) -> str:
    """The one figure of the run."""
    if "accuracy" in test:
        low, high = test["interval"]
        return f"Test accuracy {test['accuracy']:.4f} (95 % {low:.4f} to {high:.4f})"
    if "r2" in test:
        return f"Test R² {test['r2']:.4f}, rmse {format_number(test['rmse'])}"
    evaluations = [line for line in log if "eval/loss" in line]
    if evaluations:
        last = evaluations[-1]
        name = next((n for n in JUDGED_BY if f"eval/{n}" in last), "loss")
        return f"Validation {NAMES.get(name, name)} {last[f'eval/{name}']:.4f}"
    return "Nothing measured yet"


def verdict(result: dict[str, Any]) -> list[str]:
    """What stands beside the figure, on the same rows."""
    if not result.get("compared"):
        return []
    line = comparison_line(Comparison(**result["compared"]))
    return [f"On the same {result['test']['n']:,} test rows: {line}."]


def figures(test: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        (NAMES.get(key, key), f"{value:,}" if isinstance(value, int) else f"{value:.4f}")
        for key, value in test.items()
        if isinstance(value, int | float)
    ]


# Rows


def wrong(lines: Sequence[Line]) -> list[Line]:
    """Rows that are answered wrongly, the surest first."""
    return sorted((x for x in lines if not x.right), key=lambda x: (-x.sure, x.address))


def example(one: Line, keep: bool, note: str = "") -> Example:
    """A row as it is shown; without its text unless `keep`."""
    text = one.text if len(one.text) <= MOST_TEXT else one.text[:MOST_TEXT] + "…"
    line = json.dumps(
        {"row": one.address, "text": one.text, "label": one.label, "predicted": one.predicted},
        ensure_ascii=False,
    )
    return Example(
        one.address, text if keep else None, one.label, one.predicted, one.sure,
        line if keep else None, note,
    )  # fmt: skip


def matrix(lines: Sequence[Line], names: Sequence[str], keep: bool) -> list[list[Cell]]:
    """The confusion matrix, rows of it the truth. Cells of errors show their surest rows."""
    held: dict[tuple[str, str], list[Line]] = {}
    for one in lines:
        held.setdefault((one.label, one.predicted), []).append(one)
    rows = []
    for truth in names:
        total = sum(len(held.get((truth, answer), [])) for answer in names)
        row = []
        for answer in names:
            own = sorted(held.get((truth, answer), []), key=lambda x: (-x.sure, x.address))
            shown = [example(x, keep) for x in own[: SHOWN["cell"]]]
            row.append(Cell(truth, answer, len(own), len(own) / max(1, total), shown))
        rows.append(row)
    return rows


def slider_values(lines: Sequence[Line], names: Sequence[str]) -> dict[str, Any]:
    """What the slider shows at each of its steps."""
    held = dict.fromkeys(names, 0)
    for one in lines:
        held[one.label] += 1
    steps = [[t.answered, t.right, t.classes] for t in thresholds(lines, names)]
    return {"rows": len(lines), "names": list(names), "held": list(held.values()), "steps": steps}


def slider_rows(slider: dict[str, Any]) -> list[list[str]]:
    """The same as a table, from a half on."""
    if not slider:
        return []
    rows = []
    for percent in (0, 50, 60, 70, 80, 90, 95, 99):
        answered, right, _ = slider["steps"][percent]
        share = f"{100 * right / answered:.1f} %" if answered else "–"
        coverage = f"{100 * answered / slider['rows']:.1f} %"
        rows.append([f"{percent} %", f"{answered:,}", coverage, share])
    return rows


def label_slices(lines: Sequence[Line]) -> list[tuple[str, list[Slice]]]:
    """Rows of each label."""
    held: dict[str, list[Line]] = {}
    for one in lines:
        held.setdefault(one.label, []).append(one)
    rows = []
    for name, own in held.items():
        right = sum(x.right for x in own)
        rows.append(Slice(name, len(own), right, *wilson_interval(right, len(own))))
    return [("label", rows[:MOST_CLASSES])]


def suspect_rows(lines: Sequence[Line], keep: bool) -> list[Example]:
    return [
        example(one, keep, f"{name} {100 * one.shares[name]:.1f} %")
        for _, one, name in suspects(lines)[: SHOWN["suspects"]]
    ]


def sample_rows(folder: Folder, result: dict[str, Any]) -> list[list[str]]:
    """The watched texts, before and after."""

    def word(answer: Any) -> str:
        if not isinstance(answer, list) or len(answer) != 2:
            return "–"
        name, share = answer
        return str(name) if share is None else f"{name} {100 * share:.1f} %"

    before: dict[str, Any] = {}
    with suppress(ValueError):  # damaged or gone, as a run that ends takes it
        before = folder.read_json("samples.json")
    after = result.get("samples", {})
    return [[text, word(before.get(text)), word(after.get(text))] for text in {**before, **after}]


# The rest


def data_lines(folder: Folder) -> list[str]:
    """What happened to the rows on their way."""
    values = folder.read_json("data.json")
    known = {one.name: values[one.name] for one in fields(DataReport) if one.name in values}
    return DataReport(**known).lines() if len(known) == len(fields(DataReport)) else []


def settings(config: Config) -> list[tuple[str, str, bool]]:
    known = list_settings()
    return [
        (key, show_value(value), key in known and value == known[key].default)
        for key, value in trajectory(config).items()
    ]


def version_rows(folder: Folder) -> list[tuple[str, str]]:
    if not (folder.path / "environment.json").is_file():
        return []
    return [(key, show_value(value)) for key, value in folder.read_json("environment.json").items()]


def costs(result: dict[str, Any]) -> list[tuple[str, str]]:
    """Time and memory, where they are known."""
    rows = []
    if result.get("seconds") is not None:
        rows.append(("training to test", format_seconds(result["seconds"])))
    if result.get("peak") is not None:
        rows.append(("memory", format_bytes(result["peak"])))
    return rows
