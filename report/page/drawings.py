"""The charts of a run's page, from plain numbers."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from report.format import format_number
from report.page.charts import SMALL, Series, chart
from report.page.page import Chart

MOST_POINTS = 400  # of a line: more of them no eye tells apart
MOST_ROWS = 40  # of the table behind a line
SMOOTH = 0.9  # weight of what came before, in the smoothed loss
BARS = 20  # of a histogram


class Groups(Protocol):
    """Rows that belong together: their mean, number, those that are right, the interval."""

    @property
    def name(self) -> str: ...
    @property
    def mean(self) -> float: ...
    @property
    def rows(self) -> int: ...
    @property
    def right(self) -> int: ...
    @property
    def low(self) -> float: ...
    @property
    def high(self) -> float: ...


def thin(points: Sequence[tuple[float, float]], most: int) -> list[tuple[float, float]]:
    """At most so many of the points, evenly, the first and the last among them."""
    if len(points) <= most:
        return list(points)
    return [points[round(n * (len(points) - 1) / (most - 1))] for n in range(most)]


def smooth(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """An exponential mean, with its start taken out as Adam does (Kingma and Ba 2015)."""
    mean, weight, smoothed = 0.0, 0.0, []
    for x, y in points:
        mean, weight = SMOOTH * mean + (1 - SMOOTH) * y, SMOOTH * weight + (1 - SMOOTH)
        smoothed.append((x, mean / weight))
    return smoothed


def taken(log: Sequence[Mapping[str, Any]], key: str) -> list[tuple[float, float]]:
    """(step, value) of each line of metrics.jsonl that has it."""
    return [(line["step"], line[key]) for line in log if line.get(key) is not None]


def table_of(series: Sequence[Series], x: str) -> tuple[list[str], list[list[str]]]:
    """Columns and rows for the points of some series, thinned."""
    values: dict[float, dict[str, float]] = {}
    for one in series:
        for place, value in thin(one.points, MOST_ROWS):
            values.setdefault(place, {})[one.name] = value
    columns = [x, *(one.name for one in series)]
    rows = [
        [format_number(place), *(format_number(own.get(name)) for name in columns[1:])]
        for place, own in sorted(values.items())
    ]
    return columns, rows


def curves(log: Sequence[Mapping[str, Any]], best: int | None) -> list[Chart]:
    """Loss, what validation says, learning rate and speed over the steps."""
    loss, evaluated = taken(log, "train/loss"), taken(log, "eval/loss")
    rules = {"best": float(best)} if best else {}
    panels: list[tuple[str, str, list[Series], dict[str, float]]] = [
        (
            "Loss", "loss",
            [
                Series("training", thin(loss, MOST_POINTS), marks=False, faint=True),
                Series("training, smoothed", thin(smooth(loss), MOST_POINTS), marks=False),
                Series("validation", evaluated),
            ],
            rules,
        ),
        *(
            (f"Validation {word}", word, [Series(word, taken(log, f"eval/{key}"))], rules)
            for key, word in (("accuracy", "accuracy"), ("r2", "R²"))
        ),
        (
            "Learning rate", "rate",
            [Series("rate", thin(taken(log, "train/lr"), MOST_POINTS), marks=False)], {},
        ),
        (
            "Speed", "tokens/s",
            [Series("tokens/s", thin(taken(log, "train/tokens_per_s"), MOST_POINTS), marks=False)],
            {},
        ),
    ]  # fmt: skip
    charts = []
    for title, word, series, marks in panels:
        series = [one for one in series if one.points]
        if series and max(len(one.points) for one in series) > 1:
            drawing = chart(series, title, "step", word, rules=marks, frame=SMALL)
            charts.append(Chart(drawing, *table_of(series, "step")))
    return charts


def group_rows(groups: Sequence[Groups]) -> list[list[str]]:
    """The table behind groups of rows."""
    return [
        [g.name, f"{g.rows:,}", format_number(g.mean), f"{g.right / g.rows:.4f}",
         f"{g.low:.4f} to {g.high:.4f}"]
        for g in groups if g.rows
    ]  # fmt: skip


def trust_chart(trust: Any, single: bool) -> list[Chart]:
    """The reliability diagram: on the dashed line a probability is what it says; and how often
    which comes. Of a `single` class a row they are those of the answer, else of each label."""
    of, good, bad = ("of the answer", "right", "wrong") if single else ("of a label", "held", "not")
    series = Series(
        "test rows", [(g.mean, g.right / g.rows) for g in trust.groups if g.rows],
        [(g.low, g.high) for g in trust.groups if g.rows], line=False,
    )  # fmt: skip
    drawing = chart(
        [series], "Reliability", f"probability {of}", f"{good} among them", diagonal=True,
        x_range=(0, 1), y_range=(0, 1), frame=SMALL,
    )  # fmt: skip
    note = f"Expected calibration error {trust.ece:.4f}"
    note += "" if trust.brier is None else f", Brier score {trust.brier:.4f} (0 is best, 2 worst)"
    columns = ["probability", "rows", "mean", good, "95 %"]
    first = Chart(drawing, columns, group_rows(trust.groups), note + ".")

    centres = [(n + 0.5) / len(trust.groups) for n in range(len(trust.groups))]
    right = [(x, float(g.right)) for x, g in zip(centres, trust.groups, strict=True)]
    total = [(x, float(g.rows)) for x, g in zip(centres, trust.groups, strict=True)]
    stacked = [(low, high) for (_, low), (_, high) in zip(right, total, strict=True)]
    bars = [
        Series(good, right, line=False, marks=False, bars=True),
        Series(bad, total, stacked, line=False, marks=False, bars=True),
    ]
    title = "How sure the answers are" if single else "How sure the labels are"
    drawing = chart(
        bars, title, f"probability {of}", "test rows" if single else "labels", y_range=(0, 1),
        frame=SMALL,
    )  # fmt: skip
    rows = [[g.name, f"{g.rows:,}", f"{g.right:,}"] for g in trust.groups]
    return [first, Chart(drawing, ["probability", "rows", good], rows)]


def length_chart(groups: Sequence[Groups], limit: int) -> list[Chart]:
    """Accuracy by length, with a line where texts are cut."""
    if not groups:
        return []
    series = Series(
        "test rows", [(g.mean, g.right / g.rows) for g in groups],
        [(g.low, g.high) for g in groups], line=False,
    )  # fmt: skip
    longest = max(g.mean for g in groups)
    rules = {"max_length": float(limit)} if limit <= 1.2 * longest else {}
    drawing = chart(
        [series], "Right by length", "tokens of a text", "right", rules=rules, frame=SMALL
    )
    columns = ["tokens", "rows", "mean tokens", "right", "95 %"]
    return [Chart(drawing, columns, group_rows(groups))]


def histogram(values: Sequence[float], bars: int) -> list[tuple[float, float]]:
    """(middle, number of values) of so many groups of equal width."""
    low, high = min(values), max(values)
    width = (high - low) / bars or 1.0
    counts = [0] * bars
    for value in values:
        counts[min(bars - 1, int((value - low) / width))] += 1
    return [(low + (n + 0.5) * width, float(count)) for n, count in enumerate(counts)]


def lengths_chart(tokens: Sequence[int], limit: int) -> list[Chart]:
    """How many test rows have which length; nothing where none is known."""
    if not tokens:
        return []
    bars = histogram(tokens, BARS)
    drawing = chart(
        [Series("test rows", bars, line=False, marks=False, bars=True)], "Rows by length",
        "tokens of a text", "test rows", y_range=(0, 1), frame=SMALL,
        rules={"max_length": float(limit)} if limit <= max(tokens) else {},
    )  # fmt: skip
    rows = [[format_number(x), f"{int(y):,}"] for x, y in bars]
    return [Chart(drawing, ["tokens", "rows"], rows)]


def number_charts(pairs: Sequence[tuple[float, float]]) -> list[Chart]:
    """Of a regression: predicted against true, and how often which error comes."""
    ordered = sorted(pairs)
    shown = thin(ordered, MOST_POINTS)
    first = chart(
        [Series("test rows", shown, line=False)], "Predicted and true", "true", "predicted",
        diagonal=True, frame=SMALL,
    )  # fmt: skip
    rows = [[format_number(t), format_number(p), format_number(p - t)] for t, p in
            thin(ordered, MOST_ROWS)]  # fmt: skip
    bars = histogram([predicted - true for true, predicted in pairs], BARS)
    second = chart(
        [Series("test rows", bars)],
        "Errors",
        "predicted less true",
        "rows",
        y_range=(0, 1),
        frame=SMALL,
    )
    return [
        Chart(first, ["true", "predicted", "error"], rows),
        Chart(second, ["error", "rows"], [[format_number(x), f"{int(y):,}"] for x, y in bars]),
    ]
