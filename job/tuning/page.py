"""tune.html: a search as a page, from what its record holds."""

import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

from configs.fields import list_settings
from configs.overrides import parse_text
from configs.read import difference, trajectory
from files.write import save_text
from job.reporting.page import PAGE as RUN_PAGE
from job.tuning.best import behind, finalists, judged_by
from job.tuning.planned import Planned
from job.tuning.record import Line, Record
from job.tuning.show import sureness, tried_of
from job.tuning.space import WAY, Dimension
from report.format import format_seconds
from report.page.page import render_sheet
from report.page.search import Searched, search_sheet
from report.tune import show_settings

PAGE = "tune.html"


def write_page(record: Record, planned: Planned, folder: Path) -> Path:
    """Write the page into the search's folder; its path."""
    lines = list(record.of("trial"))
    best = finalists(record)
    apart = behind(best) if best else []
    winner = record.last("winner") or {"settings": {}, "trial": 0}
    done = record.last("done")
    links = []
    if done is not None:
        run = Path(done["run"])
        links = [(run.name, quote(os.path.relpath(run / RUN_PAGE, folder)))]
    searched = Searched(
        name=planned.base.run.name,
        metric=next((line["metric"] for line in lines if "metric" in line), "figure"),
        judged=judged_by(best),
        tried=[tried_of(line) for line in lines],
        values=[line.get("value") for line in lines],
        numbers={d.key: numbers_of(d, lines, planned) for d in planned.space if is_number(d)},
        choices={d.key: choices_of(d, lines) for d in planned.space if not is_number(d)},
        best=[(lines.index(line), gap) for line, gap in zip(best, apart, strict=True)],
        notes=sureness(best, apart, winner) if best else ["no two trials were compared"],
        winner=f"trial {winner['trial']}: {show_settings(winner['settings'])}",
        facts=facts_of(record, planned),
        links=links,
    )
    path = folder / PAGE
    save_text(path, render_sheet(search_sheet(searched)))
    return path


def is_number(dimension: Dimension) -> bool:
    """Whether a setting is drawn over numbers: a range, or choices that are all numbers."""
    return not dimension.choices or all(
        isinstance(typed(dimension.key, text), int | float) for text in dimension.choices
    )


def typed(key: str, text: str) -> Any:
    """The value of a setting's words; the words themselves of what is no setting."""
    return text if key == WAY else parse_text(text, list_settings()[key].kinds)


def numbers_of(dimension: Dimension, lines: list[Line], planned: Planned) -> list[float | None]:
    """A setting's number in each trial; the recipe's own where the trial left it alone."""
    own = trajectory(planned.base).get(dimension.key)
    values = [line["settings"].get(dimension.key) for line in lines]
    return [own if text is None else float(typed(dimension.key, text)) for text in values]


def choices_of(dimension: Dimension, lines: list[Line]) -> list[str | None]:
    """A setting's choice in each trial, None where it left it alone."""
    return [line["settings"].get(dimension.key) for line in lines]


def facts_of(record: Record, planned: Planned) -> list[str]:
    """Time, space and plan, and what of the recipe was changed to fit the time."""
    request = record.lines[0]
    changed = difference(request["recipe"], trajectory(planned.base))
    first = next(record.of("plan"))
    rungs = ", ".join(f"{rung['trials']} on {rung['rows']:,} rows" for rung in first["rungs"])
    return [
        f"{format_seconds(request['seconds'])} were given, "
        f"{format_seconds(record.spent)} are noted.",
        f"Settings drawn by {request['sampler']} (seed {request['seed']}) from "
        + ", ".join(dimension.words for dimension in planned.space) + ".",
        f"Planned: {rungs or 'no trial'}, then the winner in full.",
        *(f"To fit the time: {line}" for line in changed),
    ]  # fmt: skip
