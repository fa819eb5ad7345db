"""What a run's page says of its decision, its slices, its expectations and what its mistakes rest
on: from result.json and explanations.jsonl, whatever of them an older run has."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from job.reporting.predictions import read_lines
from report.expect import Expected, expectation_cells
from report.format import format_number, format_share
from report.page.page import Slice
from report.slices import SliceRow, name_value, show_figure

MOST_WORDS = 8  # that an answer is said to rest on
LEAST = 0.25  # of the strongest weight: a weaker piece is not marked
EXPLANATIONS = "explanations.jsonl"  # what a run's mistakes rest on, a line a row
MOST_LABELS = 8  # whose thresholds are shown


def decided_figures(calibration: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Temperature, thresholds and the limit below which an answer is unsure."""
    if not calibration:
        return []
    temperature = calibration["temperature"]
    rows = [("temperature", "none" if temperature == 1 else format_number(temperature))]
    thresholds = list(calibration.get("thresholds", {}).items())
    rows += [(f"threshold of {name}", f"{share:.3f}") for name, share in thresholds[:MOST_LABELS]]
    if unsure := calibration.get("unsure"):
        rows.append(("right in at least", f"{100 * unsure['min_precision']:g} %"))
        limit = unsure["limit"]
        below = ("unsure", "every answer"), ("unsure below", format_share(limit or 0, 1))
        rows.append(below[limit is not None])
    return rows


def slider_start(calibration: Mapping[str, Any]) -> float:
    """The share from which an answer is given; one half where nobody asked, or where none is."""
    limit = (calibration.get("unsure") or {}).get("limit")
    return 0.5 if limit is None else float(limit)


def known_figures(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Those that are no NaN and not infinite; in a file null stands for these."""
    return {
        name: figure
        for name, figure in figures.items()
        if figure is not None and not (isinstance(figure, float) and not math.isfinite(figure))
    }


def trusted_table(calibration: Mapping[str, Any]) -> list[list[str]]:
    """How far probabilities can be trusted before and after the temperature."""
    head = ["rows", "n", "−log p", "with temperature", "calibration error", "with temperature"]
    rows = []
    for name in ("validation", "test"):
        if not (own := calibration.get(name)):
            continue
        keys = ("nll_before", "nll_after", "ece_before", "ece_after")
        row = [name, f"{own['n']:,}", *(f"{own[key]:.4f}" for key in keys)]
        if "answered" in own:
            share = format_share(own["right"], own["answered"])
            row += [f"{own['answered']:,}", share]
        rows.append(row)
    if rows and len(rows[0]) > len(head):
        head += ["answered", "right among them"]
    return [head, *rows] if rows else []


def expectation_table(rows: Sequence[Mapping[str, Any]], texts: bool) -> list[list[str]]:
    """What was expected beside what came; without the texts unless `texts`."""
    known = [Expected(**row) for row in rows]
    cells = [list(row) for row in expectation_cells(known)] if known else []
    places = ["", *(one.place for one in known)]
    if texts:
        return [[row[4], *row[1:4], row[0]] for row in cells]
    return [[place, *row[1:4], row[0]] for place, row in zip(places, cells, strict=False)]


def result_slices(result: Mapping[str, Any]) -> list[tuple[str, str, list[Slice]]]:
    """The slices that eval.slices asked for."""
    names = {one.name for one in fields(SliceRow)}
    tables = []
    for title, rows in (result.get("slices") or {}).items():
        known = [
            SliceRow(**{k: v for k, v in row.items() if k in names})
            for row in rows
            if known_figures(row).keys() >= {"figure", "low", "high"}
        ]
        if known:
            tables.append((title, known[0].metric, [to_slice(one, known) for one in known]))
    return tables


def to_slice(one: SliceRow, rows: Sequence[SliceRow]) -> Slice:
    """Drawn on a line from the least end of an interval of the `rows` to the largest."""
    least, most = min(row.low for row in rows), max(row.high for row in rows)
    span = (most - least) or 1.0
    words = [show_figure(value, one.metric) for value in (one.figure, one.low, one.high)]
    low, middle, high = ((value - least) / span for value in (one.low, one.figure, one.high))
    interval = f"{words[1]} to {words[2]}"
    return Slice(name_value(one), one.n, words[0], interval, low, middle, high, one.worse)


def read_explanations(path: Path) -> dict[str, list[dict[str, Any]]]:
    """The pieces of each explained row, by its address; none where there is no such file."""
    return {values["row"]: values["explanation"] for _, _, values in read_lines(path, torn=True)}


def heaviest(pieces: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """The words that weigh most, with their weights; sentences where no word is known."""
    words = [piece for piece in pieces if piece["unit"] == "word"] or pieces
    shown = [words[place] for place in strongest([piece["weight"] for piece in words])]
    return [(piece["text"].strip(), f"{piece['weight']:+.2f}".replace("-", "−")) for piece in shown]


def strongest(weights: Sequence[float]) -> list[int]:
    """The places of the weights that are shown, on the page and on the console, the heaviest first:
    at most MOST_WORDS, and none below LEAST of the heaviest."""
    order = sorted(range(len(weights)), key=lambda place: -abs(weights[place]))[:MOST_WORDS]
    return [n for n in order if abs(weights[n]) >= LEAST * abs(weights[order[0]]) > 0]


def top(pieces: Sequence[Mapping[str, Any]]) -> float:
    """The strongest weight of a word."""
    words = [piece for piece in pieces if piece["unit"] == "word"] or pieces
    return max((abs(piece["weight"]) for piece in words), default=0.0)


def cut_text(text: str, pieces: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """The text in pieces, in order, each with the class of its mark. Of a pair nothing is marked:
    its text here is both in one."""
    if any("side" in piece for piece in pieces) or not (most := top(pieces)):
        return []
    parts, place = [], 0
    words = [piece for piece in pieces if piece["unit"] == "word"]
    marked = [words[place] for place in strongest([piece["weight"] for piece in words])]
    for piece in sorted(marked, key=lambda piece: piece["start"]):
        start, end, share = piece["start"], piece["end"], abs(piece["weight"]) / most
        if start < place or text[start:end] != piece["text"]:
            continue
        strength = 1 + (share > 0.45) + (share > 0.75)
        name = "for" if piece["weight"] > 0 else "against"
        parts += [(text[place:start], ""), (text[start:end], f"{name}{strength}")]
        place = end
    return [*parts, (text[place:], "")] if parts else []
