"""Finished runs side by side: their settings, figures, and differences on the same rows. Nothing
here loads torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from configs.read import trajectory
from engine.intervals import (
    Interval,
    bootstrap,
    macro_f1_difference,
    paired_difference,
    set_f1_difference,
)
from job.folder import Folder, finished_config
from job.reporting.predictions import Line, read_predictions
from job.verify import read_result
from report.compare import (
    JUDGED_BY,
    Change,
    OnlyOne,
    Run,
    change_lines,
    figures_table,
    list_table,
    rows_lines,
    settings_table,
)
from report.format import clean_line
from report.intervals import mcnemar, share_difference

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
    config = finished_config(folder)
    return Finished(folder, trajectory(config), read_result(folder))


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


def rows_of(run: Finished) -> dict[str, Line]:
    """A run's test rows by what names one: address, text and label. Raises ValueError where there
    are none, or one cannot be read."""
    path = run.folder.predictions
    if not path.is_file():
        raise ValueError(f"{run.name} has no {path.name}: it has no test rows")
    return {repr((x.address, x.text, x.label)): x for x in read_predictions(path)}


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
    only = [
        [
            only_one(pairs[i][side], pairs[i][1 - side])
            for i in np.flatnonzero(right[:, side] & ~right[:, 1 - side])
        ]
        for side in (0, 1)
    ]
    figures = (len(only[1]), len(only[0]))
    interval, p = share_difference(*figures, len(pairs)), mcnemar(*figures)
    differences = [Change("accuracy", *interval, p, len(pairs))]
    classes = len(first.test["classes"])
    if classes <= MOST_CLASSES:
        interval, p = f1_difference(pairs, classes)
        differences.append(Change("macro_f1", *interval, p, len(pairs)))
    return Pair(differences, *only)


def f1_difference(pairs: list[tuple[Line, Line]], classes: int) -> tuple[Interval, float]:
    """The second's macro F1 less the first's, over so many classes."""
    several = isinstance(pairs[0][0].label, list)
    rows = [[a.label, b.predicted, a.predicted] for a, b in pairs]
    held = [name for row in rows for part in row for name in (part if several else [part])]
    place = {name: i for i, name in enumerate(dict.fromkeys(held))}
    if not several:
        cells = np.array([[place[name] for name in row] for row in rows])  # (N, 3)
        return bootstrap(cells, macro_f1_difference(classes))
    sets = np.zeros((len(rows), 3, classes), dtype=np.int64)
    for i, row in enumerate(rows):
        for part, names_held in enumerate(row):
            sets[i, part, [place[name] for name in names_held]] = 1
    return bootstrap(sets.reshape(len(rows), -1), set_f1_difference)


def number_differences(pairs: list[tuple[Line, Line]]) -> list[Change]:
    """The second's rmse and mae less the first's."""
    errors = np.array([[b.predicted - b.label, a.predicted - a.label] for a, b in pairs])  # (N, 2)
    differences = []
    for metric, own in (("rmse", np.square(errors)), ("mae", np.abs(errors))):
        interval, p = paired_difference(own[:, 0], own[:, 1], root=metric == "rmse")
        differences.append(Change(metric, *interval, p, len(pairs)))
    return differences


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


def as_run(run: Finished) -> Run:
    """For the report."""
    return Run(run.name, run.test, run.result.get("seconds"), run.result.get("peak"))


def only_one(line: Line, other: Line) -> OnlyOne:
    """A row that one run has right, and what the `other` run's line of it says."""
    label = line.label
    label = ", ".join(label) or "none" if isinstance(label, list) else str(label)
    return OnlyOne(line.address, label, other.answer, line.text)


def pair_lines(first: Finished, second: Finished, pair: Pair) -> list[str]:
    """Two runs beside each other, as text."""
    one, two = as_run(first), as_run(second)
    lines = [*settings_table([one.name, two.name], differing([first, second])), ""]
    lines += [*figures_table([one, two]), "", *change_lines(one.name, two.name, pair.differences)]
    for winner, rows in ((one, pair.first_only), (two, pair.second_only)):
        if "rmse" not in first.test:
            lines += ["", *rows_lines(winner.name, rows)]
    return lines


def list_lines(runs: Sequence[Finished]) -> list[str]:
    """All runs, best first, a table for each set of test rows."""
    tables: dict[tuple[str, ...], list[Finished]] = {}
    for run in runs:
        tables.setdefault(run.rows, []).append(run)
    lines = []
    for held in tables.values():
        metric, first = held[0].metric, held[0]
        source = clean_line(str(first.settings["data.source"]))
        if metric is None:
            names = ", ".join(run.name for run in held)
            lines += ["", f"{source}, no test rows: {names}"]
            continue
        groups = group_seeds(held)
        lines += ["", f"{source}, {first.test['n']:,} test rows", ""]
        lines += list_table([[as_run(run) for run in group] for group in groups], metric)
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
