"""Charts as SVG, drawn from plain numbers: no script, no font, no request.

A chart has a title and a description for who cannot see it. Lines differ in colour and in the shape
of their points; the colours are those of Okabe and Ito, which colour-blind people tell apart.
"""

import math
from collections.abc import Mapping, Sequence
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


def line_chart(
    lines: Mapping[str, Points], title: str, x_label: str, y_label: str, log_x: bool = False
) -> str:
    """One line a name, through its points (x, y) in their order. The legend goes by the last value,
    highest first. `log_x` spaces x by its logarithm.

    Raises ValueError where there is no point, a number is not finite, or log_x meets an x that is
    not positive.
    """
    points = [point for line in lines.values() for point in line]
    if not points or not all(math.isfinite(number) for point in points for number in point):
        raise ValueError(f"{title}: a chart needs points, all of finite numbers")
    if log_x and min(x for x, _ in points) <= 0:
        raise ValueError(f"{title}: on a logarithmic axis every x must be more than 0")
    place_x = Scale([x for x, _ in points], LEFT, WIDTH - LEGEND, log_x)
    place_y = Scale([y for _, y in points], HEIGHT - BOTTOM, TOP, False)
    ends = sorted((name for name in lines if lines[name]), key=lambda name: -lines[name][-1][1])
    about = "; ".join(f"{name}: {lines[name][-1][1]:.4g}" for name in ends)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        'font-family="system-ui, sans-serif" font-size="12" fill="#333">',
        f"<title>{escape(title)}</title>",
        f"<desc>{escape(f'{y_label} over {x_label}. At the end of each line: {about}')}</desc>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        f'<text x="{LEFT}" y="24" font-size="15" font-weight="600">{escape(title)}</text>',
        *_axes(place_x, place_y, x_label, y_label),
        *(
            part
            for number, name in enumerate(ends)
            for part in _line(name, lines[name], number, place_x, place_y)
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
        parts.append(f'<path d="M{LEFT} {y}H{right}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4}" text-anchor="end">{tick:g}</text>')
    for tick in place_x.ticks:
        x = place_x(tick)
        parts.append(f'<path d="M{x} {bottom}v5" stroke="#888"/>')
        parts.append(f'<text x="{x}" y="{bottom + 19}" text-anchor="middle">{tick:g}</text>')
    middle_x, middle_y = (LEFT + right) / 2, (TOP + bottom) / 2
    return [
        *parts,
        f'<path d="M{LEFT} {bottom}H{right}" stroke="#888"/>',
        f'<text x="{middle_x}" y="{HEIGHT - 12}" text-anchor="middle">{escape(x_label)}</text>',
        f'<text x="16" y="{middle_y}" text-anchor="middle" '
        f'transform="rotate(-90 16 {middle_y})">{escape(y_label)}</text>',
    ]


def _line(name: str, points: Points, number: int, place_x: Scale, place_y: Scale) -> list[str]:
    """A line, its points and its row of the legend."""
    colour, shape = COLOURS[number % len(COLOURS)], SHAPES[number % len(SHAPES)]
    dashes = ' stroke-dasharray="5 3"' if number >= len(COLOURS) else ""
    places = [(place_x(x), place_y(y)) for x, y in points]
    path = "L".join(f"{x} {y}" for x, y in places)
    y = TOP + 18 * number + 6
    x = WIDTH - LEGEND + 16
    return [
        f'<g fill="{colour}"><path d="M{path}" fill="none" stroke="{colour}" stroke-width="1.8"'
        f"{dashes}/>",
        *(f'<g transform="translate({px} {py})">{shape}</g>' for px, py in places),
        f'<path d="M{x} {y}h22" stroke="{colour}" stroke-width="1.8"{dashes}/>',
        f'<g transform="translate({x + 11} {y})">{shape}</g></g>',
        f'<text x="{x + 30}" y="{y + 4}">{escape(name)}</text>',
    ]
