"""Finished runs side by side: their settings, figures, and differences on the same rows. Nothing
here loads torch."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from configs.fields import begins, list_settings
from configs.read import all_settings
from job.folder import Folder, finished_config
from job.reporting.differences import f1_difference, number_differences
from job.reporting.predictions import Line, name_of, read_predictions, text_at
from job.verify import read_result
from report.compare import (
    JUDGED_BY,
    Change,
    OnlyOne,
    Run,
    Table,
    change_table,
    conclude,
    figures_table,
    list_table,
    rows_lines,
    settings_table,
    text_of,
)
from report.format import COLUMNS, align_table, clean_line, wrap
from report.intervals import mcnemar, share_difference

APART = (
    "Runs on conversations are not held against each other row by row: each interval is that of "
    "its run alone, and a difference may be surer than two of them show."
)
MOST_TEXTS = 50  # of rows that only one of two has right
MOST_CLASSES = 300  # of a macro F1 that is drawn anew ten thousand times
OWN = ("run.seed", "run.name")  # what seeds of one recipe differ in


@dataclass(frozen=True)
class Finished:
    """A finished run: its settings by dotted key, and its result.json."""

    folder: Folder
    settings: dict[str, Any]
    result: dict[str, Any]

    @property
    def name(self) -> str:
        return str(self.folder.path)

    @property
    def test(self) -> dict[str, Any]:
        """The figures of its test; empty where it has no test split."""
        return self.result["test"] or {}

    @property
    def metric(self) -> str | None:
        """The figure it is judged by; None where it has none."""
        return next((name for name in JUDGED_BY if name in self.test), None)

    @property
    def rows(self) -> tuple[str, ...]:
        """What tells apart runs whose figures cannot stand in one list: source, kind and number of
        test rows, and how many of each class."""
        counts = [str(row["n"]) for row in self.test.get("classes", [])]
        return (
            str(self.settings["data.source"]),
            str(self.metric),
            str(self.test.get("n", 0)),
            ", ".join(counts),
        )

    @property
    def recipe(self) -> str:
        """Equal for seeds of one recipe."""
        return repr(sorted((k, repr(v)) for k, v in self.settings.items() if k not in OWN))


@dataclass(frozen=True)
class Pair:
    """Two runs on the same test rows. `first_only` and `second_only` are the rows that one of the
    two alone has right; both empty for numbers."""

    differences: list[Change]
    first_only: list[OnlyOne]
    second_only: list[OnlyOne]


def open_finished(path: Path) -> Finished:
    """Raises ValueError where there is no finished run."""
    folder = Folder(path)
    config, known = finished_config(folder), list_settings()
    settings = {
        key: value
        for key, value in all_settings(config).items()
        if known[key].trajectory or begins(key, "decide")  # what changes figures
    }
    return Finished(folder, settings, read_result(folder))


def open_all(paths: Sequence[Path]) -> tuple[list[Finished], list[str]]:
    """The finished runs among folders, and a line for each of the others."""
    runs, others = [], []
    for path in paths:
        try:
            runs.append(open_finished(path))
        except ValueError as error:
            others.append(f"{path}: {str(error).splitlines()[0]}")
    return runs, others


def differing(runs: Sequence[Finished]) -> dict[str, list[Any]]:
    """The settings that are not the same in all runs, each with the runs' values in their order;
    None: not set."""
    keys = dict.fromkeys(key for run in runs for key in run.settings)
    values = {key: [run.settings.get(key) for run in runs] for key in keys if key != "run.name"}
    return {key: own for key, own in values.items() if any(value != own[0] for value in own)}


def rows_of(run: Finished) -> dict[bytes, Line]:
    """A run's test rows, without their texts, by a digest of what names one: address, text and
    label. Raises ValueError where there are none, or one cannot be read."""
    path = run.folder.predictions
    if not path.is_file():
        raise ValueError(f"{run.name} has no {path.name}: it has no test rows")
    return {
        sha256(repr((x.address, x.text, x.label)).encode("utf-8", "replace")).digest(): replace(
            x, text=""
        )
        for x in read_predictions(path)
    }


def compare_pair(first: Finished, second: Finished) -> Pair:
    """Two runs on the same rows; differences are the second's figure less the first's.

    Raises ValueError, with how many rows they share, where they were scored on other rows, and
    where one has none.
    """
    one, two = rows_of(first), rows_of(second)
    if one.keys() != two.keys():
        shared = len(one.keys() & two.keys())
        raise ValueError(
            f"{first.name} and {second.name} were scored on other rows: {len(one):,} and "
            f"{len(two):,}, of which they share {shared:,}. Compare runs with the same test rows "
            "(data.source, data.filter, data.test, data.split_seed, data.subset)"
        )
    keys = sorted(one)
    pairs = [(one[key], two[key]) for key in keys]
    if "rmse" in first.test:
        return Pair(number_differences(pairs), [], [])
    right = np.array([[a.right, b.right] for a, b in pairs])  # (N, 2)
    only = []
    for side, run in enumerate((first, second)):
        places = np.flatnonzero(right[:, side] & ~right[:, 1 - side])
        sides = ([pairs[i][k] for i in places] for k in (side, 1 - side))
        only.append(only_ones(run, *sides))
    figures = (len(only[1]), len(only[0]))
    interval, p = share_difference(*figures, len(pairs)), mcnemar(*figures)
    differences = [Change("accuracy", *interval, p, len(pairs))]
    classes = len(first.test["classes"])
    if classes <= MOST_CLASSES:
        interval, p = f1_difference(pairs, classes)
        differences.append(Change("macro_f1", *interval, p, len(pairs)))
    return Pair(differences, *only)


def group_seeds(runs: Sequence[Finished]) -> list[list[Finished]]:
    """Runs of one recipe that differ in their seeds, together; best group first. Loss alone is
    better where it is less."""
    groups: dict[str, list[Finished]] = {}
    for run in runs:
        groups.setdefault(run.recipe, []).append(run)

    def rank(group: list[Finished]) -> float:
        metric = group[0].metric
        values = [run.test[metric] for run in group if metric]
        mean = sum(values) / len(values) if values else -np.inf
        return mean if metric == "loss" else -mean

    return sorted(groups.values(), key=lambda group: (rank(group), group[0].name))


def as_run(run: Finished, name: str | None = None) -> Run:
    """For the report."""
    return Run(name or run.name, run.test, run.result.get("seconds"), run.result.get("peak"))


def named_runs(runs: Sequence[Finished]) -> list[Run]:
    """For the report, by their short names."""
    return [as_run(run, name) for run, name in zip(runs, short_names(runs), strict=True)]


def only_ones(run: Finished, right: Sequence[Line], wrong: Sequence[Line]) -> list[OnlyOne]:
    """Rows that one run has `right`, with what the other's lines of them say; of many the texts of
    the first alone."""
    rows = []
    for number, (line, other) in enumerate(zip(right, wrong, strict=True)):
        text = text_at(run.folder.predictions, line) if number < MOST_TEXTS else ""
        rows.append(OnlyOne(line.address, name_of(line.label), other.answer, text))
    return rows


def short_names(runs: Sequence[Finished]) -> list[str]:
    """What tells the runs apart: their folders without what all have in common."""
    paths = [run.folder.path.absolute() for run in runs]
    common = Path(os.path.commonpath([path.parent for path in paths]))
    return [str(path.relative_to(common)) for path in paths]


def pair_of(first: Finished, second: Finished) -> Pair | None:
    """As compare_pair; None for runs on conversations, of which no figures of single rows are
    kept."""
    if "conversations" in {*first.test, *second.test}:
        return None
    return compare_pair(first, second)


def pair_lines(first: Finished, second: Finished, pair: Pair | None) -> list[str]:
    """Two runs beside each other, as text."""
    runs = named_runs([first, second])
    names = [run.name for run in runs]
    settings = settings_table(names, differing([first, second]))
    lines = text_of(settings) if settings else ["settings: none differs"]
    lines += ["", *text_of(figures_table(runs))]
    if pair is None:
        return [*lines, "", *wrap(APART, COLUMNS)]
    lines += ["", *text_of(change_table(names, pair.differences))]
    lines += ["", *wrap(conclude(names, pair.differences[0]), COLUMNS)]
    for name, rows in zip(names, (pair.first_only, pair.second_only), strict=True):
        if "rmse" not in first.test:
            lines += ["", *rows_lines(name, rows)]
    return lines


def list_tables(runs: Sequence[Finished]) -> list[tuple[str, Table]]:
    """All runs, best first: a title and a table for each set of test rows."""
    held: dict[tuple[str, ...], list[Finished]] = {}
    for run in runs:
        held.setdefault(run.rows, []).append(run)
    tables = []
    for own in held.values():
        source = clean_line(str(own[0].settings["data.source"]))
        if (metric := own[0].metric) is None:
            names = ", ".join(run.name for run in own)
            tables.append((f"{source}, no test rows: {names}", list[list[str]]()))
            continue
        groups = [[as_run(run) for run in group] for group in group_seeds(own)]
        title = f"{source}, {counted(own[0].test)}"
        tables.append((title, list_table(groups, metric)))
    return tables


def counted(test: dict[str, Any]) -> str:
    """What the figures of a test are of."""
    if "conversations" in test:
        return f"{test['n']:,} tokens of {test['conversations']:,} test conversations"
    return f"{test['n']:,} test rows"


def list_lines(runs: Sequence[Finished]) -> list[str]:
    """The same as text."""
    lines = []
    for title, table in list_tables(runs):
        lines += ["", title, *(["", *align_table(table, right=(1,))] if table else [])]
    return lines[1:]


def as_json(runs: Sequence[Finished]) -> dict[str, Any]:
    """The settings that differ, by key and run, and each run's figures."""
    names = [run.name for run in runs]
    return {
        "settings": {
            key: dict(zip(names, values, strict=True)) for key, values in differing(runs).items()
        },
        "runs": [
            {"run": run.name, **run.test, "seconds": run.result.get("seconds"),
             "memory": run.result.get("peak")}
            for run in runs
        ],
    }  # fmt: skip
