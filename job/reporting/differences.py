"""How far two runs are apart on the same rows, figure by figure, each with its interval."""

import numpy as np

from engine.intervals import (
    Interval,
    bootstrap,
    macro_f1_difference,
    paired_difference,
    set_f1_difference,
)
from job.reporting.predictions import Line
from report.compare import Change


def f1_difference(pairs: list[tuple[Line, Line]], classes: int) -> tuple[Interval, float]:
    """The second's macro F1 less the first's, over so many classes."""
    several = isinstance(pairs[0][0].label, list)
    rows = [[a.label, b.predicted, a.predicted] for a, b in pairs]
    held = [name for row in rows for part in row for name in (part if several else [part])]
    place = {name: i for i, name in enumerate(dict.fromkeys(held))}
    if not several:
        cells = np.array([[place[name] for name in row] for row in rows])  # (N, 3)
        return bootstrap(cells, macro_f1_difference(classes))
    sets = np.zeros((len(rows), 3, classes), dtype=np.uint8)
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
