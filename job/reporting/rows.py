"""Test rows as a run's page shows them: mistakes, cells of the confusion matrix, the slider."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.intervals import wilson_interval
from job.reporting.decided import cut_text, heaviest, to_slice
from job.reporting.figures import suspects, thresholds
from job.reporting.predictions import Line, name_of, text_at
from report.format import format_share
from report.page.page import Cell, Example, Slice
from report.slices import SliceRow

MISTAKES, SUSPECTS, IN_CELL = 20, 20, 10  # rows that are shown
MOST_IN_CELLS = 300  # of all cells together
MOST_TEXT = 20_000  # characters of a text; a longer one is cut
MOST_CLASSES = 30  # of a confusion matrix that can be looked at


@dataclass(frozen=True)
class Shower:
    """Makes an Example of a line, its text read from the file; without it unless `texts`."""

    file: Path
    texts: bool
    explained: Mapping[str, Sequence[Mapping[str, Any]]]  # pieces of a text, by the row's address

    def example(self, one: Line, note: str = "") -> Example:
        label, predicted = name_of(one.label), name_of(one.answer)
        share = one.sure if isinstance(one.label, str) else None
        if not self.texts:
            return Example(one.address, None, label, predicted, share, None, note)
        text = text_at(self.file, one)
        shown = text if len(text) <= MOST_TEXT else text[:MOST_TEXT] + "…"
        line = {"row": one.address, "text": shown, "label": one.label, "predicted": one.predicted}
        pieces = self.explained.get(one.address, [])
        return Example(
            one.address, shown, label, predicted, share, json.dumps(line, ensure_ascii=False),
            note, cut_text(shown, pieces), heaviest(pieces),
        )  # fmt: skip


def mistakes(lines: Sequence[Line]) -> list[Line]:
    """The rows that are answered worst, the worst first: of a class a row the surest mistakes, of
    several classes those furthest from their labels, of numbers the largest errors."""
    wrong = [(distance(x), x) for x in lines if not x.right]
    return [x for _, x in sorted(wrong, key=lambda pair: (-pair[0], pair[1].address))][:MISTAKES]


def distance(line: Line) -> float:
    """How far a wrong answer is from the label."""
    if isinstance(line.label, str):
        return line.sure
    if isinstance(line.label, list):
        return sum(abs(share - (name in line.label)) for name, share in line.shares.items())
    return abs(float(line.predicted) - line.label)


def matrix(lines: Sequence[Line], names: Sequence[str], shower: Shower) -> list[list[Cell]]:
    """The confusion matrix, rows of it the truth. The commonest cells, those of errors first, show
    their surest rows."""
    held: dict[tuple[str, str], list[Line]] = {}
    for one in lines:
        held.setdefault((one.label, one.predicted), []).append(one)
    order = sorted(held, key=lambda cell: (cell[0] == cell[1], -len(held[cell]), cell))
    shown = {cell: surest(held[cell]) for cell in order[: MOST_IN_CELLS // IN_CELL]}
    rows = []
    for truth in names:
        total = sum(len(held.get((truth, answer), [])) for answer in names)
        row = []
        for answer in names:
            count = len(held.get((truth, answer), []))
            examples = [shower.example(x) for x in shown.get((truth, answer), [])]
            row.append(Cell(truth, answer, count, count / max(1, total), examples))
        rows.append(row)
    return rows


def surest(lines: Sequence[Line]) -> list[Line]:
    """The first rows of a cell."""
    return sorted(lines, key=lambda x: (-x.sure, x.address))[:IN_CELL]


def slider_values(lines: Sequence[Line], names: Sequence[str], limit: float) -> dict[str, Any]:
    """What the slider shows at each of its steps; it starts at `limit`."""
    held = dict.fromkeys(names, 0)
    for one in lines:
        held[one.label] += 1
    steps = [[t.answered, t.right, t.classes] for t in thresholds(lines, names)]
    return {
        "rows": len(lines), "names": list(names), "held": list(held.values()), "steps": steps,
        "start": math.ceil(100 * limit),
    }  # fmt: skip


def slider_rows(slider: dict[str, Any]) -> list[list[str]]:
    """The same as a table, from a half on."""
    if not slider:
        return []
    rows = []
    for percent in (0, 50, 60, 70, 80, 90, 95, 99):
        answered, right, _ = slider["steps"][percent]
        share = format_share(right, answered)
        coverage = format_share(answered, slider["rows"])
        rows.append([f"{percent} %", f"{answered:,}", coverage, share])
    return rows


def label_slices(lines: Sequence[Line]) -> list[tuple[str, str, list[Slice]]]:
    """Rows of each label."""
    held: dict[str, list[Line]] = {}
    for one in lines:
        held.setdefault(one.label, []).append(one)
    rows = []
    for name, own in list(held.items())[:MOST_CLASSES]:
        right = sum(x.right for x in own)
        low, high = wilson_interval(right, len(own))
        row = SliceRow(name, len(own), "accuracy", right / len(own), low, high, right, None, None)
        rows.append(row)
    return [("label", "accuracy", [to_slice(one, rows) for one in rows])]


def suspect_rows(lines: Sequence[Line], shower: Shower, above: Sequence[Line]) -> list[Example]:
    """Rows whose label may be wrong. Those that stand `above` among the mistakes are named."""
    numbers = {one.address: number for number, one in enumerate(above, start=1)}
    rows = []
    for _, one, name in suspects(lines)[:SUSPECTS]:
        note = "" if name == one.predicted else f"{name} {format_share(one.shares[name], 1)}"
        if (number := numbers.get(one.address)) is None:
            rows.append(shower.example(one, note))
        else:
            seen = "; ".join(filter(None, (note, f"number {number} of the mistakes")))
            rows.append(Example(one.address, None, one.label, one.predicted, one.sure, None, seen))
    return rows
