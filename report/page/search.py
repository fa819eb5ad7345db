"""A search as a page: what won, how sure that is, and every trial as a dot over its settings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from report.format import format_number, format_seconds, shorten
from report.page.charts import SMALL, Series, chart
from report.page.page import Chart, Section, Sheet
from report.tune import Tried, behind_words, show_settings

WIDEST = 90  # letters of a cell
OWN = "as it was"  # a setting that a trial left to the recipe


@dataclass(frozen=True)
class Searched:
    """All of a search that is shown. `value` and `numbers` are by trial as they stand in `tried`:
    the figure (None of a failed one), and of each setting that is a number the trial's. `best`: the
    trials of the last rung by their place in `tried`, the best first, with how far each is behind.
    """

    name: str
    metric: str
    judged: str  # the figure in which trials are held against each other, row by row
    tried: Sequence[Tried]
    values: Sequence[float | None]
    numbers: Mapping[str, Sequence[float | None]]
    choices: Mapping[str, Sequence[str | None]]
    best: Sequence[tuple[int, tuple[float, float, float]]]
    notes: Sequence[str]  # how sure that is
    winner: str
    facts: Sequence[str]  # time, plan, what was changed to fit it
    links: Sequence[tuple[str, str]]


def search_sheet(searched: Searched) -> Sheet:
    """The page. Sections without content are left out."""
    sections = [
        Section(
            "winner", "What came of it", tuple(searched.notes), ranking_table(searched), words=True
        ),
        Section("dots", "Every trial over its settings", charts=setting_charts(searched)),
        Section("choices", "By choice", (CHOICES,), choice_table(searched)),
        Section("rungs", "From rung to rung", charts=rung_chart(searched)),
        Section("trials", "Trials", table=trial_table(searched), words=True),
        Section("search", "The search", tuple(searched.facts)),
    ]
    kept = [part for part in sections if part.table or part.charts or part.id == "search"]
    return Sheet(f"Search of {searched.name}", searched.winner, searched.links, kept, True)


CHOICES = (
    "Trials of the first rung, all on the same rows. Other settings differ too, so a mean says "
    "little of one alone."
)


def ranking_table(searched: Searched) -> list[list[str]]:
    """The last rung, the best first."""
    rows = [
        [str(n), str(searched.tried[place].number), searched.tried[place].figure,
         behind_words(apart) if n > 1 else "", show_settings(searched.tried[place].settings)]
        for n, (place, apart) in enumerate(searched.best, start=1)
    ]  # fmt: skip
    head = ["", "trial", searched.metric, f"{searched.judged} to the first (95 %)", "settings"]
    return [head, *rows] if rows else []


def rung_names(searched: Searched) -> dict[int, str]:
    """How each rung is called: by its rows."""
    return {one.rung: f"{one.rows:,} rows" for one in searched.tried}


def setting_charts(searched: Searched) -> list[Chart]:
    """A chart for each setting that is a number: trials as dots, those of a rung in a colour."""
    charts = []
    for key, numbers in searched.numbers.items():
        series = []
        for rung, name in rung_names(searched).items():
            points = [
                (x, y)
                for one, x, y in zip(searched.tried, numbers, searched.values, strict=True)
                if one.rung == rung and x is not None and y is not None
            ]
            series.append(Series(name, sorted(points), line=False))
        series = [one for one in series if one.points]
        xs = [x for one in series for x, _ in one.points]
        if len(set(xs)) < 2:
            continue
        drawing = chart(
            series, key, key, searched.metric, log_x=min(xs) > 0 and max(xs) > 8 * min(xs),
            frame=SMALL,
        )  # fmt: skip
        rows = [[one.name, format_number(x), f"{y:.4f}"] for one in series for x, y in one.points]
        charts.append(Chart(drawing, ["rung", key, searched.metric], rows))
    return charts


def choice_table(searched: Searched) -> list[list[str]]:
    """Of each choice of the first rung: how many trials, and their mean figure."""
    rows = []
    for key, chosen in searched.choices.items():
        groups: dict[str, list[float]] = {}
        for one, choice, value in zip(searched.tried, chosen, searched.values, strict=True):
            if one.rung == 0 and value is not None:
                groups.setdefault(choice or OWN, []).append(value)
        for choice, figures in groups.items() if len(groups) > 1 else ():
            mean = sum(figures) / len(figures)
            rows.append([key, choice, str(len(figures)), f"{mean:.4f}"])
    return [["setting", "choice", "trials", f"mean {searched.metric}"], *rows] if rows else []


def rung_chart(searched: Searched) -> list[Chart]:
    """The figure over the rows of a rung, a line for each that went on."""
    lines: dict[int, list[tuple[float, float]]] = {}
    for one, value in zip(searched.tried, searched.values, strict=True):
        if value is not None:
            lines.setdefault(one.number, []).append((float(one.rows), value))
    went_on = {number: sorted(points) for number, points in lines.items() if len(points) > 1}
    if not went_on:
        return []
    series = [Series(f"trial {number}", points) for number, points in sorted(went_on.items())]
    drawing = chart(series[:7], "Figure by rows", "training rows", searched.metric, frame=SMALL)
    rows = [[one.name, format_number(x), f"{y:.4f}"] for one in series for x, y in one.points]
    return [Chart(drawing, ["trial", "rows", searched.metric], rows)]


def trial_table(searched: Searched) -> list[list[str]]:
    """All trials in their order."""
    rows = [
        [str(one.number), f"{one.rows:,}", f"{one.validation:,}", format_seconds(one.seconds),
         "failed" if one.failed else one.figure,
         shorten("; ".join(filter(None, [show_settings(one.settings), one.failed])), WIDEST)]
        for one in searched.tried
    ]  # fmt: skip
    head = ["trial", "rows", "judged on", "time", searched.metric, "settings"]
    return [head, *rows] if rows else []
