"""A run's folder becomes report.html: whatever is there is shown, of an unfinished run too. Nothing
here loads torch."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

from configs.fields import list_settings
from configs.read import all_settings
from configs.schema import Config
from data.summary import DataReport
from files.write import save_text
from job.folder import Folder, saved_config
from job.reporting.decided import (
    EXPLANATIONS,
    decided_figures,
    expectation_table,
    known_figures,
    read_explanations,
    result_slices,
    slider_start,
    trusted_table,
)
from job.reporting.figures import by_length, reliability, whole_shares
from job.reporting.predictions import Line, read_lines, read_predictions
from job.reporting.replies import HEAD_TO_HEAD, reply_rows, talks
from job.reporting.rows import (
    MOST_CLASSES,
    Shower,
    label_slices,
    matrix,
    mistakes,
    slider_rows,
    slider_values,
    suspect_rows,
)
from report.baseline import Comparison, comparison_line
from report.compare import JUDGED_BY, NAMES, show_value
from report.format import format_bytes, format_number, format_seconds, format_share, split_warnings
from report.page.drawings import curves, length_chart, lengths_chart, number_charts, trust_chart
from report.page.page import Chart, Page, render

PAGE = "report.html"
MOST_CELLS = 5_000_000  # test rows times classes: of more the lines would take gigabytes
TOO_MANY = "The test rows are too many to show one by one; test_predictions.jsonl holds them."
OF_TEXTS = ("samples.texts", "expect")  # settings that hold texts
TITLES = {
    "single": "Most confident mistakes", "multi": "Answers furthest from their labels",
    "number": "Largest errors", "none": "Mistakes",
}  # fmt: skip


def write_page(folder: Folder, result: dict[str, Any] | None = None) -> Path:
    """Write report.html into a run's folder; with the `result` of a run that has not written its
    own yet. Raises ValueError where it holds no run, or a file of it cannot be read."""
    path = folder.path / PAGE
    if result is None:
        result = folder.read_json("result.json") if folder.result.exists() else {}
    save_text(path, render(gather(folder, result)))
    return path


def gather(folder: Folder, result: dict[str, Any]) -> Page:
    """The page of a run's folder; `result` is empty where it is not finished."""
    config = saved_config(folder)
    test = known_figures(result.get("test") or {})
    log = [line for _, _, line in read_lines(folder.path / "metrics.jsonl", torn=True)]
    too_many = test.get("n", 0) * len(test.get("classes", [0])) > MOST_CELLS
    readable = bool(result) and not too_many
    read = read_predictions(folder.predictions, texts=False) if readable else ()
    lines = [line for line in read if line.has_numbers]  # a warning names the others
    kind = kind_of(lines)
    single = kind == "single"
    explained = read_explanations(folder.path / EXPLANATIONS) if result else {}
    shower = Shower(folder.predictions, config.report.texts, explained)
    decided, slices = result.get("calibration") or {}, result_slices(result)
    if single and "label" not in (title for title, _, _ in slices):
        slices += label_slices(lines)
    start = slider_start(decided)
    names = list(test_names(folder, lines)) if single else []
    worst, (warned, reasons) = mistakes(lines), split_warnings(decided.get("lines", []))
    slider = slider_values(lines, names, start) if single and len(names) <= MOST_CLASSES else {}
    return Page(
        name=config.run.name,
        status=status(config, result, log),
        headline=headline(test, log),
        verdict=verdict(result),
        warnings=[*result.get("verdicts", []), *warned, *[TOO_MANY] * too_many],
        figures=figures(test),
        curves=curves(log, result.get("progress", {}).get("best_step")),
        matrix=matrix(lines, names, shower) if single and len(names) <= MOST_CLASSES else [],
        slider=slider,
        slider_rows=slider_rows(slider),
        trust=trust_chart(reliability(lines), single) if single or whole_shares(lines) else [],
        lengths=length_charts(lines, config.data.max_length) if kind in ("single", "multi") else [],
        numbers=number_charts([(one.label, one.predicted) for one in lines])
        if "rmse" in test
        else [],
        decided=decided_figures(decided),
        decided_lines=reasons,
        trusted=trusted_table(decided),
        expectations=expectation_table(result.get("expectations") or [], shower.texts),
        slices=slices,
        classes=class_rows(test, names, folder),
        mistakes_title=TITLES[kind],
        mistakes=[shower.example(x) for x in worst],
        suspects=suspect_rows(lines, shower, worst) if single else [],
        samples=sample_rows(folder, result, shower.texts),
        reply_figures=reply_rows(result),
        talks=talks(folder.path / HEAD_TO_HEAD, shower.texts),
        splits=split_table(folder),
        data=data_lines(folder),
        settings=settings(config, usual=False),
        defaults=settings(config, usual=True),
        versions=version_rows(folder),
        costs=costs(result),
        command=f"python train.py --config {folder.config}",
        texts=shower.texts,
    )


# Reading


def kind_of(lines: Sequence[Line]) -> str:
    """What the labels are; "none" where there is no line."""
    if not lines:
        return "none"
    label = lines[0].label
    return "single" if isinstance(label, str) else "multi" if isinstance(label, list) else "number"


def test_names(folder: Folder, lines: Sequence[Line]) -> list[str]:
    """The classes in the labels' order."""
    counts = folder.read_json("data.json").get("labels", {}).get("test", {})
    seen = dict.fromkeys([*counts, *(x for one in lines for x in (one.label, one.predicted))])
    return list(seen)


def class_rows(test: dict[str, Any], names: Sequence[str], folder: Folder) -> list[list[str]]:
    """What result.json has of each label: rows, answers, precision, recall, F1."""
    rows = test.get("classes", [])
    names = names or list(folder.read_json("data.json").get("labels", {}).get("test", {}))
    if len(rows) != len(names):
        return []
    return [
        [name, f"{row['n']:,}", f"{row['predicted']:,}",
         *(f"{row[key]:.4f}" for key in ("precision", "recall", "f1"))]
        for name, row in zip(names, rows, strict=True)
    ]  # fmt: skip


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
    if "r2" in test and "rmse" in test:
        return f"Test R² {test['r2']:.4f}, rmse {format_number(test['rmse'])}"
    if "perplexity" in test:
        return f"Test loss {test['loss']:.4f}, perplexity {test['perplexity']:.2f}"
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


def sample_rows(folder: Folder, result: dict[str, Any], texts: bool) -> list[list[str]]:
    """The watched texts, before and after; numbered in place of what they say unless `texts`."""

    def word(answer: Any) -> str:
        if not isinstance(answer, list | tuple) or len(answer) != 2:
            return "–"
        name, share = answer
        return str(name) if share is None else f"{name} {format_share(share, 1)}"

    before: dict[str, Any] = {}
    with suppress(ValueError):  # damaged or gone, as a run that ends takes it
        before = folder.read_json("samples.json")
    after = result.get("samples", {})
    return [
        [text if texts else f"text {n}", word(before.get(text)), word(after.get(text))]
        for n, text in enumerate({**before, **after}, start=1)
    ]


# The rest


def length_charts(lines: Sequence[Line], limit: int) -> list[Chart]:
    """Right answers by length, and how many rows have which."""
    tokens = [line.tokens for line in lines if line.tokens is not None]
    return [*length_chart(by_length(lines), limit), *lengths_chart(tokens, limit)]


def data_lines(folder: Folder) -> list[str]:
    """What happened to the rows on their way."""
    values = folder.read_json("data.json")
    known = {one.name: values[one.name] for one in fields(DataReport) if one.name in values}
    return DataReport(**known).lines() if len(known) == len(fields(DataReport)) else []


def split_table(folder: Folder) -> list[list[str]]:
    """Rows and tokens of each split, what of them is cut, and how many rows hold each label."""
    values = folder.read_json("data.json")
    labels, lengths = values.get("labels", {}), values.get("lengths", {})
    names = list(dict.fromkeys(name for own in labels.values() for name in own))[:MOST_CLASSES]
    rows = [["split", "rows", "tokens", "rows cut", "tokens cut", *names]]
    for split, count in values.get("splits", {}).items():
        cut = lengths.get(split, {})
        numbers = [count, *(cut.get(key) for key in ("tokens", "cut_rows", "cut_tokens"))]
        numbers += [labels.get(split, {}).get(name, 0) for name in names]
        rows.append([split, *("–" if x is None else format_number(x) for x in numbers)])
    return rows if len(rows) > 1 else []


def settings(config: Config, usual: bool) -> list[tuple[str, str]]:
    """(key, value) of the settings that have their default, or of the others."""
    known = list_settings()
    return [
        (key, "left out" if key in OF_TEXTS and not config.report.texts else show_value(value))
        for key, value in all_settings(config).items()
        if (value == known[key].default or not (value or known[key].default)) == usual
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
