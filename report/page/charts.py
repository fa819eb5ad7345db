"""Charts as SVG, drawn from plain numbers: no script, no font, no request.

A chart has a title and a description for who cannot see it. Series differ in colour and in the
shape of their points; the colours are those of Okabe and Ito, which colour-blind people tell apart.
They stand in attributes, so that a chart is whole by itself, each with a class by which a page can
put others in their place.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#767676")
SHAPES = (  # around (0, 0), about 8 wide
    '<circle r="3.6"/>',
    '<rect x="-3.3" y="-3.3" width="6.6" height="6.6"/>',
    '<path d="M0-4.5 4.3 3.3H-4.3Z"/>',
    '<path d="M0-4.7 4.7 0 0 4.7-4.7 0Z"/>',
    '<path d="M-4.3-3.3H4.3L0 4.5Z"/>',
)
WIDTH, HEIGHT = 760, 420
LEFT, TOP, BOTTOM = 62, 46, 52
LEGEND = 190  # right of the plot
Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Series:
    """Points (x, y) under a name, in their order. `bounds` are the ends (low, high) of an interval
    for each. With `line` they are joined, with `marks` each has a shape; `faint` is drawn thin and
    pale, behind what it is the raw form of."""

    name: str
    points: Points
    bounds: Sequence[tuple[float, float]] = ()
    line: bool = True
    marks: bool = True
    faint: bool = False


def line_chart(
    lines: Mapping[str, Points], title: str, x_label: str, y_label: str, log_x: bool = False
) -> str:
    """One line a name, as chart() has it. The legend goes by the last value, highest first."""
    ends = sorted((name for name in lines if lines[name]), key=lambda name: -lines[name][-1][1])
    return chart([Series(name, lines[name]) for name in ends], title, x_label, y_label, log_x)


def chart(
    series: Sequence[Series], title: str, x_label: str, y_label: str, log_x: bool = False,
    rules: Mapping[str, float] | None = None, diagonal: bool = False,
    y_range: tuple[float, float] | None = None,
) -> str:  # fmt: skip
    """A chart of some series. `rules` are upright lines: a name and its x. `diagonal` draws y = x,
    on which what is promised and what came are the same. `log_x` spaces x by its logarithm. The y
    axis goes as far as the points, or over `y_range`.

    Raises ValueError where there is no point, a number is not finite, or log_x meets an x that is
    not positive.
    """
    rules = rules or {}
    points = [point for one in series for point in one.points]
    bounds = [bound for one in series for pair in one.bounds for bound in pair]
    numbers = [*(n for point in points for n in point), *bounds, *rules.values()]
    if not points or not all(map(math.isfinite, numbers)):
        raise ValueError(f"{title}: a chart needs points, all of finite numbers")
    xs = [*(x for x, _ in points), *rules.values()]
    if log_x and min(xs) <= 0:
        raise ValueError(f"{title}: on a logarithmic axis every x must be more than 0")
    place_x = Scale(xs, LEFT, WIDTH - LEGEND, log_x)
    place_y = Scale(
        [*(y for _, y in points), *bounds, *(y_range or ())], HEIGHT - BOTTOM, TOP, False
    )
    about = "; ".join(f"{one.name}: {one.points[-1][1]:.4g}" for one in series if one.points)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        'font-family="system-ui, sans-serif" font-size="12" fill="#333" class="chart">',
        f"<title>{escape(title)}</title>",
        f"<desc>{escape(f'{y_label} over {x_label}. At the end of each line: {about}')}</desc>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff" class="paper"/>',
        f'<text x="{LEFT}" y="24" font-size="15" font-weight="600">{escape(title)}</text>',
        *_axes(place_x, place_y, x_label, y_label),
        *(_rule(name, x, place_x) for name, x in rules.items()),
        *([_diagonal(place_x, place_y)] if diagonal else []),
        *(
            part
            for number, one in enumerate(series)
            if one.points
            for part in _series(one, number, place_x, place_y)
        ),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


class Scale:
    """From numbers to places on the page between `low` and `high`."""

    def __init__(self, values: Sequence[float], low: float, high: float, log: bool) -> None:
        self.low, self.high, self.log = low, high, log
        least, most = min(values), max(values)
        if log:
            self.ticks = _log_ticks(least, most)
            self.start, self.end = math.log(least) - 0.05, math.log(most) + 0.05
        else:
            self.ticks = _ticks(least, most)
            step = self.ticks[1] - self.ticks[0]
            self.start = min(least, self.ticks[0]) if least >= self.ticks[0] else least - step / 4
            self.end = most + step / 4
        self.ticks = [tick for tick in self.ticks if self.start <= self._at(tick) <= self.end]

    def _at(self, value: float) -> float:
        return math.log(value) if self.log else value

    def __call__(self, value: float) -> float:
        share = (self._at(value) - self.start) / (self.end - self.start)
        return round(self.low + share * (self.high - self.low), 1)


def _ticks(least: float, most: float) -> list[float]:
    """About six round numbers from below the least to the most."""
    span = (most - least) or abs(most) or 1.0
    power = 10 ** math.floor(math.log10(span / 5))
    step = next(s * power for s in (1, 2, 2.5, 5, 10) if span / (s * power) <= 6)
    first = math.floor(least / step)
    return [round((first + n) * step, 12) for n in range(math.ceil(span / step) + 2)]


def _log_ticks(least: float, most: float) -> list[float]:
    """1, 2, 5, 10, 20, … as far as they lie within; below a factor of ten all of 1 to 9."""
    powers = range(math.floor(math.log10(least)), math.ceil(math.log10(most)) + 1)
    digits = (1, 2, 5) if most > 10 * least else range(1, 10)
    return [round(d * 10.0**p, 12) for p in powers for d in digits]


def _axes(place_x: Scale, place_y: Scale, x_label: str, y_label: str) -> list[str]:
    right, bottom = WIDTH - LEGEND, HEIGHT - BOTTOM
    parts = []
    for tick in place_y.ticks:
        y = place_y(tick)
        parts.append(f'<path d="M{LEFT} {y}H{right}" stroke="#ddd" class="grid"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4}" text-anchor="end">{tick:g}</text>')
    for tick in place_x.ticks:
        x = place_x(tick)
        parts.append(f'<path d="M{x} {bottom}v5" stroke="#888" class="axis"/>')
        parts.append(f'<text x="{x}" y="{bottom + 19}" text-anchor="middle">{tick:g}</text>')
    middle_x, middle_y = (LEFT + right) / 2, (TOP + bottom) / 2
    return [
        *parts,
        f'<path d="M{LEFT} {bottom}H{right}" stroke="#888" class="axis"/>',
        f'<text x="{middle_x}" y="{HEIGHT - 12}" text-anchor="middle">{escape(x_label)}</text>',
        f'<text x="16" y="{middle_y}" text-anchor="middle" '
        f'transform="rotate(-90 16 {middle_y})">{escape(y_label)}</text>',
    ]


def _rule(name: str, x: float, place_x: Scale) -> str:
    place = place_x(x)
    return (
        f'<path d="M{place} {TOP}V{HEIGHT - BOTTOM}" stroke="#888" stroke-dasharray="2 3" '
        f'class="axis"/><text x="{place + 4}" y="{TOP + 10}">{escape(name)}</text>'
    )


def _diagonal(place_x: Scale, place_y: Scale) -> str:
    low, high = max(place_x.start, place_y.start), min(place_x.end, place_y.end)
    ends = f"M{place_x(low)} {place_y(low)}L{place_x(high)} {place_y(high)}"
    return f'<path d="{ends}" stroke="#888" stroke-dasharray="6 4" class="axis"/>'


def _series(one: Series, number: int, place_x: Scale, place_y: Scale) -> list[str]:
    """A series, and its row of the legend."""
    colour, shape = COLOURS[number % len(COLOURS)], SHAPES[number % len(SHAPES)]
    dashes = ' stroke-dasharray="5 3"' if number >= len(COLOURS) else ""
    width = ' stroke-width="1" opacity="0.45"' if one.faint else ' stroke-width="1.8"'
    style = f'fill="none" stroke="{colour}"{width}{dashes}'
    places = [(place_x(x), place_y(y)) for x, y in one.points]
    row_y, row_x = TOP + 18 * number + 6, WIDTH - LEGEND + 16
    parts = [f'<g fill="{colour}" class="s{number % len(COLOURS)}">']
    if one.line:
        parts.append(f'<path d="M{"L".join(f"{x} {y}" for x, y in places)}" {style}/>')
        parts.append(f'<path d="M{row_x} {row_y}h22" {style}/>')
    for (x, _), (low, high) in zip(places, one.bounds, strict=False):
        parts.append(f'<path d="M{x} {place_y(low)}V{place_y(high)}" {style}/>')
    if one.marks:
        parts += [f'<g transform="translate({x} {y})">{shape}</g>' for x, y in places]
        parts.append(f'<g transform="translate({row_x + 11} {row_y})">{shape}</g>')
    return [*parts, "</g>", f'<text x="{row_x + 30}" y="{row_y + 4}">{escape(one.name)}</text>']
