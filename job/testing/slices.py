"""The test rows in slices: by the values of a column, by length, by label; n, figure and interval
of each, and which are surely worse than all other rows."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from configs.schema import Config
from data.prepare import Data
from engine.intervals import paired_interval, rank_sum, wilson_interval
from job.reporting.figures import length_bands
from job.rows import LABEL, LENGTH, slice_columns
from report.intervals import fisher, holm
from report.slices import SliceRow

MOST_VALUES = 20  # of a column; the rarer ones stand together
LEVEL = 0.05  # of all slices together


@dataclass(frozen=True)
class TestRows:
    """What is known of each test row, N of each: its right answers (1 or 0) or squared errors, its
    tokens, its address, its class where it has one, and its values by column."""

    __test__ = False  # not a test class

    numbers: bool
    figures: np.ndarray
    tokens: Sequence[int]
    addresses: Sequence[str]
    labels: Sequence[str]
    columns: dict[str, Sequence[str]]


def slices_of_test(
    config: Config, data: Data, figures: np.ndarray, tokens: Mapping[int, int]
) -> dict[str, list[SliceRow]]:
    """The slices that a recipe asks for, from the `figures` (N,) of the test rows in their order
    and their `tokens` by row; empty where it asks for none."""
    if not config.eval.slices:
        return {}
    rows, single, columns = data.splits["test"], data.kind == "single", slice_columns(config)
    values = zip(*rows["slices"], strict=True) if columns else ()
    known = TestRows(
        numbers=data.kind == "regression",
        figures=figures,
        tokens=[tokens[row] for row in rows["row"]],
        addresses=list(rows["address"]),
        labels=[data.label_names[label] for label in rows["label"]] if single else [],
        columns=dict(zip(columns, values, strict=True)),
    )
    return slice_rows(config.eval.slices, known)


def slice_rows(names: Sequence[str], rows: TestRows) -> dict[str, list[SliceRow]]:
    """The slices by each of `names`. Where all are looked at together, those are "worse" whose p is
    small enough for so many of them (Holm 1979): by chance alone one of twenty such reports names
    any."""
    slices = {name: slice_by(name, rows) for name in names}
    flat = [row for own in slices.values() for row in own]
    known = [row.p for row in flat if row.p is not None]
    sure = dict(zip((id(r) for r in flat if r.p is not None), holm(known, LEVEL), strict=True))
    return {
        name: [replace(row, worse=sure.get(id(row), False)) for row in own]
        for name, own in slices.items()
    }


def slice_by(name: str, rows: TestRows) -> list[SliceRow]:
    """The slices by one name: bands of length in their order, labels and values by their rows."""
    if name == LENGTH:
        bands = length_bands(rows.tokens, rows.addresses)
        return [one_slice(band, places, rows) for band, places in bands]
    values = rows.labels if name == LABEL else rows.columns[name]
    order = sorted(Counter(values).items(), key=lambda item: (-item[1], item[0]))
    kept = [value for value, _ in order[:MOST_VALUES]]
    if len(order) == MOST_VALUES + 1:  # one value more needs no name for the rest
        kept.append(order[-1][0])
    held: dict[str, list[int]] = {value: [] for value in kept}
    rest: list[int] = []
    for place, value in enumerate(values):
        held.get(value, rest).append(place)
    made = [one_slice(value, places, rows) for value, places in held.items()]
    if rest:
        made.append(replace(one_slice("", rest, rows), values=len(order) - len(kept)))
    return made


def one_slice(value: str, places: Sequence[int], rows: TestRows) -> SliceRow:
    """The figure of the rows at `places`, and how likely chance makes them so much worse than all
    others: by Fisher's exact test, of numbers by the ranks of their errors."""
    inside = np.zeros(len(rows.figures), dtype=bool)
    inside[places] = True
    own, others = rows.figures[inside], rows.figures[~inside]
    if rows.numbers:
        figure, low, high = paired_interval(own, np.zeros_like(own), root=True)
        beside = float(np.sqrt(others.mean())) if len(others) else None
        p = rank_sum(own, others) if len(others) else None
        return SliceRow(value, len(own), "rmse", figure, max(0.0, low), high, None, beside, p)
    right, elsewhere = int(own.sum()), int(others.sum())
    beside = float(others.mean()) if len(others) else None
    p = fisher(right, len(own), elsewhere, len(others)) if len(others) else None
    low, high = wilson_interval(right, len(own))
    return SliceRow(
        value, len(own), "accuracy", right / len(own), low, high, right, beside, p
    )  # fmt: skip
