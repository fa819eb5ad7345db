"""Charts as SVG, drawn from plain numbers: no script, no font, no request.

A chart has a title and a description for who cannot see it. Series differ in colour and in the
shape of their points; the colours are those of Okabe and Ito, which colour-blind people tell apart.
They stand in attributes, so that a chart is whole by itself, each with a class by which a page can
put others in their place.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#767676")
SHAPES = (  # around (0, 0), about 8 wide
    '<circle r="3.6"/>',
    '<rect x="-3.3" y="-3.3" width="6.6" height="6.6"/>',
    '<path d="M0-4.5 4.3 3.3H-4.3Z"/>',
    '<path d="M0-4.7 4.7 0 0 4.7-4.7 0Z"/>',
    '<path d="M-4.3-3.3H4.3L0 4.5Z"/>',
)
LETTER = 6.9  # width of a letter of the legend, about
Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Frame:
    """The sheet, and how far the plot stays from its edges. The legend stands right of the plot
    (`beside`), or above it."""

    width: int
    height: int
    left: int = 66
    right: int = 16
    top: int = 40
    bottom: int = 48
    beside: bool = False


WIDE = Frame(760, 420, right=190, beside=True)  # a picture by itself
SMALL = Frame(380, 270, left=62)  # one of many: letters are read on a phone


@dataclass(frozen=True)
class Series:
    """Points (x, y) under a name, in their order. `bounds` are the ends (low, high) of an interval
    for each. With `line` they are joined, with `marks` each has a shape; `faint` is drawn thin and
    pale, behind what it is the raw form of. With `bars`, at points of equal distance, a bar stands
    from low to high, or from 0 to the point, in place of all that."""

    name: str
    points: Points
    bounds: Sequence[tuple[float, float]] = ()
    line: bool = True
    marks: bool = True
    faint: bool = False
    bars: bool = False


def line_chart(
    lines: Mapping[str, Points], title: str, x_label: str, y_label: str, log_x: bool = False
) -> str:
    """One line a name, as chart() has it. The legend goes by the last value, highest first."""
    ends = sorted((name for name in lines if lines[name]), key=lambda name: -lines[name][-1][1])
    return chart([Series(name, lines[name]) for name in ends], title, x_label, y_label, log_x)


def chart(
    series: Sequence[Series], title: str, x_label: str, y_label: str, log_x: bool = False,
    rules: Mapping[str, float] | None = None, diagonal: bool = False,
    x_range: tuple[float, float] | None = None, y_range: tuple[float, float] | None = None,
    frame: Frame = WIDE,
) -> str:  # fmt: skip
    """A chart of some series. `rules` are upright lines: a name and its x. `diagonal` draws y = x,
    on which what is promised and what came are the same. `log_x` spaces x by its logarithm. The
    axes go as far as the points, or over `x_range` and `y_range` too.

    Raises ValueError where there is no point, a number is not finite, or log_x meets an x that is
    not positive.
    """
    rules = rules or {}
    points = [point for one in series for point in one.points]
    bounds = [bound for one in series for pair in one.bounds for bound in pair]
    numbers = [*(n for point in points for n in point), *bounds, *rules.values()]
    if not points or not all(map(math.isfinite, numbers)):
        raise ValueError(f"{title}: a chart needs points, all of finite numbers")
    xs = [*(x for x, _ in points), *rules.values(), *(x_range or ())]
    if log_x and min(xs) <= 0:
        raise ValueError(f"{title}: on a logarithmic axis every x must be more than 0")
    ys = [*(y for _, y in points), *bounds, *(y_range or ())]
    letters = max(len(_word(tick)) for tick in Scale(ys, 0.0, 1.0, False).ticks)
    # room for the numbers beside the axis' name
    frame = replace(frame, left=max(frame.left, round(30 + LETTER * letters)))
    frame, rows = _legend([one.name for one in series], frame)
    place_y = Scale(ys, frame.height - frame.bottom, frame.top, False)
    place_x = Scale(xs, frame.left, frame.width - frame.right, log_x)
    about = "; ".join(f"{one.name}: {one.points[-1][1]:.4g}" for one in series if one.points)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {frame.width} {frame.height}" '
        'role="img" font-family="system-ui, sans-serif" font-size="12" fill="#333" class="chart">',
        f"<title>{escape(title)}</title>",
        f"<desc>{escape(f'{y_label} over {x_label}. At the end of each line: {about}')}</desc>",
        f'<rect width="{frame.width}" height="{frame.height}" fill="#fff" class="paper"/>',
        f'<text x="{frame.left}" y="22" font-size="15" font-weight="600">{escape(title)}</text>',
        *_axes(place_x, place_y, x_label, y_label, frame),
        *(_rule(name, place_x(x), frame) for name, x in rules.items()),
        *([_diagonal(place_x, place_y)] if diagonal else []),
    ]
    for number, one in enumerate(series):
        if one.points:
            parts += _series(one, number, place_x, place_y, rows[number] if rows else None)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _legend(names: Sequence[str], frame: Frame) -> tuple[Frame, list[tuple[float, float]]]:
    """Where each name's row of the legend stands (x, y), and the frame with room for them. One
    series alone is named by the title and the axis."""
    if len(names) < 2 and not frame.beside:
        return frame, []
    if frame.beside:
        left = frame.width - frame.right + 16
        return frame, [(left, frame.top + 18 * number + 6) for number in range(len(names))]
    rows, x, y = list[tuple[float, float]](), float(frame.left), frame.top
    for name in names:
        width = 30 + LETTER * len(name) + 14
        if x > frame.left and x + width > frame.width:
            x, y = frame.left, y + 18
        rows.append((round(x, 1), y))
        x += width
    return replace(frame, top=y + 18), rows


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
    """1, 2, 5, 10, 20, … as far as they lie within; below a factor of ten all of 1 to 9, and of
    more than two decades the powers of ten alone."""
    powers = range(math.floor(math.log10(least)), math.ceil(math.log10(most)) + 1)
    digits: Sequence[int] = (1, 2, 5) if most > 10 * least else range(1, 10)
    if most > 200 * least:
        digits = (1,)
    return [round(d * 10.0**p, 12) for p in powers for d in digits]


def _axes(place_x: Scale, place_y: Scale, x_label: str, y_label: str, frame: Frame) -> list[str]:
    left, right, bottom = frame.left, frame.width - frame.right, frame.height - frame.bottom
    parts = []
    for tick in place_y.ticks:
        y = place_y(tick)
        parts.append(f'<path d="M{left} {y}H{right}" stroke="#ddd" class="grid"/>')
        parts.append(f'<text x="{left - 8}" y="{y + 4}" text-anchor="end">{_word(tick)}</text>')
    for tick in place_x.ticks:
        x = place_x(tick)
        parts.append(f'<path d="M{x} {bottom}v5" stroke="#888" class="axis"/>')
        parts.append(f'<text x="{x}" y="{bottom + 18}" text-anchor="middle">{_word(tick)}</text>')
    middle_x, middle_y = (left + right) / 2, (frame.top + bottom) / 2
    return [
        *parts,
        f'<path d="M{left} {bottom}H{right}" stroke="#888" class="axis"/>',
        f'<text x="{middle_x}" y="{frame.height - 10}" text-anchor="middle">{escape(x_label)}'
        "</text>",
        f'<text x="14" y="{middle_y}" text-anchor="middle" '
        f'transform="rotate(-90 14 {middle_y})">{escape(y_label)}</text>',
    ]


def _word(tick: float) -> str:
    """A number at an axis."""
    return f"{tick:,.0f}" if 1000 <= abs(tick) < 1e6 and tick == int(tick) else f"{tick:g}"


def _rule(name: str, x: float, frame: Frame) -> str:
    """An upright line with its name, on the side where there is room."""
    right = frame.width - frame.right
    side = "end" if x + LETTER * len(name) > right else "start"
    place = x - 4 if side == "end" else x + 4
    return (
        f'<path d="M{x} {frame.top}V{frame.height - frame.bottom}" stroke="#888" '
        f'stroke-dasharray="2 3" class="axis"/><text x="{place}" y="{frame.top + 10}" '
        f'text-anchor="{side}">{escape(name)}</text>'
    )


def _diagonal(place_x: Scale, place_y: Scale) -> str:
    low, high = max(place_x.start, place_y.start), min(place_x.end, place_y.end)
    ends = f"M{place_x(low)} {place_y(low)}L{place_x(high)} {place_y(high)}"
    return f'<path d="{ends}" stroke="#888" stroke-dasharray="6 4" class="axis"/>'


def _bars(one: Series, place_x: Scale, place_y: Scale) -> list[str]:
    """An upright bar at each point."""
    xs = [place_x(x) for x, _ in one.points]
    width = 0.8 * abs(xs[1] - xs[0]) if len(xs) > 1 else 20.0
    ends = one.bounds or [(0.0, y) for _, y in one.points]
    return [
        f'<rect x="{x - width / 2:.1f}" y="{place_y(high)}" width="{width:.1f}" '
        f'height="{place_y(low) - place_y(high):.1f}"/>'
        for x, (low, high) in zip(xs, ends, strict=True)
    ]


def _series(
    one: Series, number: int, place_x: Scale, place_y: Scale, row: tuple[float, float] | None
) -> list[str]:
    """A series, and its row of the legend."""
    colour, shape = COLOURS[number % len(COLOURS)], SHAPES[number % len(SHAPES)]
    dashes = ' stroke-dasharray="5 3"' if number >= len(COLOURS) else ""
    width = ' stroke-width="1" opacity="0.45"' if one.faint else ' stroke-width="1.8"'
    style = f'fill="none" stroke="{colour}"{width}{dashes}'
    places = [(place_x(x), place_y(y)) for x, y in one.points]
    parts = [f'<g fill="{colour}" class="s{number % len(COLOURS)}">']
    if one.bars:
        return [*parts, *_bars(one, place_x, place_y), *_legend_row(one, shape, style, row)]
    if one.line:
        parts.append(f'<path d="M{"L".join(f"{x} {y}" for x, y in places)}" {style}/>')
    for (x, _), (low, high) in zip(places, one.bounds, strict=False):
        parts.append(f'<path d="M{x} {place_y(low)}V{place_y(high)}" {style}/>')
    if one.marks:
        parts += [f'<g transform="translate({x} {y})">{shape}</g>' for x, y in places]
    return [*parts, *_legend_row(one, shape, style, row)]


def _legend_row(one: Series, shape: str, style: str, row: tuple[float, float] | None) -> list[str]:
    """The end of a series' group: its row of the legend, if it has one."""
    if row is None:
        return ["</g>"]
    x, y = row
    parts = []
    if one.bars:
        parts.append(f'<rect x="{x + 6}" y="{y - 5}" width="10" height="10"/>')
    elif one.line:
        parts.append(f'<path d="M{x} {y}h22" {style}/>')
    if one.marks:
        parts.append(f'<g transform="translate({x + 11} {y})">{shape}</g>')
    return [*parts, "</g>", f'<text x="{x + 30}" y="{y + 4}">{escape(one.name)}</text>']
