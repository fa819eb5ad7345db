"""What an examination of data found: lines for people, objects for programs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from report.format import (
    COLUMNS,
    align_table,
    clean_line,
    format_count,
    pad,
    shorten,
    wrap,
)

Level = Literal["error", "warning"]
MARKS = {"fine": "✔", "warning": "⚠", "error": "✘", "left out": "–"}
NAME = 16  # columns of a check's name
INDENT = " " * (NAME + 3)
EXAMPLES = 3  # of a check
SHOWN = 10  # rows of a choice
EXCERPT = 200  # characters of a row that a finding holds


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong. `rows` are addresses to look at, `drop` those that
    `data.drop_rows` leaves out where a person agrees, `setting` what mends it."""

    kind: str
    level: Level
    message: str
    rows: Sequence[str]
    setting: str
    drop: Sequence[str] = ()
    details: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The same as JSON-able values: the details stand beside the rest."""
        values = {**asdict(self), "rows": list(self.rows), "drop": list(self.drop)}
        return values | values.pop("details")


@dataclass(frozen=True)
class Check:
    """One question put to the data: `headline` is the answer. `left_out`: it could not be put.
    `mend` is what to do where something was found."""

    name: str
    headline: str
    findings: Sequence[Finding] = ()
    mend: str = ""
    left_out: bool = False

    @property
    def state(self) -> str:
        """The worst level of what was found, "fine", or "left out"."""
        if self.left_out:
            return "left out"
        levels = {finding.level for finding in self.findings}
        return "error" if "error" in levels else "warning" if levels else "fine"


@dataclass(frozen=True)
class Chosen:
    """A row for a person to label: where it stands, its text by column, what the model answers, and
    how far ahead that is of the next answer, 0 to 1."""

    row: str
    texts: Mapping[str, str]
    predicted: str
    margin: float

    def as_dict(self) -> dict[str, Any]:
        """The same as JSON-able values."""
        return {
            "row": self.row, **self.texts, "predicted": self.predicted,
            "margin": round(self.margin, 4),
        }  # fmt: skip


@dataclass(frozen=True)
class CurvePoint:
    """A run's test figure with so many training rows, and what it gained by the doubling from the
    point before: estimate, low, high; None for the first."""

    rows: int
    metric: str
    value: float
    gain: tuple[float, float, float] | None

    def as_dict(self) -> dict[str, Any]:
        """The same as JSON-able values."""
        return asdict(self)


def curve_lines(points: Sequence[CurvePoint]) -> list[str]:
    """The points as a table, and in words what the last doubling was worth."""
    metric = points[-1].metric
    table = [("training rows", f"test {metric}", "by the doubling", "95 % interval")]
    for point in points:
        cells = [format_count(point.rows), f"{point.value:.4f}", "", ""]
        if point.gain is not None:
            estimate, low, high = point.gain
            cells[2:] = f"{estimate:+.4f}", f"{low:+.4f} to {high:+.4f}"
        table.append((cells[0], cells[1], cells[2], cells[3]))
    lines = align_table(table, right=(0, 1, 2))
    if points[-1].gain is not None:
        lines += wrap(_doubling_line(points[-1].rows, metric, points[-1].gain), COLUMNS)
    return lines


def _doubling_line(rows: int, metric: str, gain: tuple[float, float, float]) -> str:
    estimate, low, high = gain
    told = f"{estimate:+.4f} ({low:+.4f} to {high:+.4f}) of test {metric}"
    fewer = metric in ("rmse", "mae", "loss")
    better, worse = (high < 0, low > 0) if fewer else (low > 0, high < 0)
    if better:
        end = "more rows are worth their labels; the next doubling will give about that, or less"
    elif worse:
        end = "more rows of this kind make it worse: examine them (python check.py --config …)"
    else:
        end = "which chance alone may have made: another doubling is not known to help"
    return f"The last doubling, to {format_count(rows)} rows, was worth {told}: {end}."


def chosen_lines(chosen: Sequence[Chosen]) -> list[str]:
    """The first rows of a choice as a table, at most COLUMNS wide."""
    head = ("row", "answer", "ahead by", "text")
    shown = [
        (shorten(clean_line(one.row), 30), shorten(clean_line(one.predicted), 20),
         f"{one.margin:.3f}", clean_line(" | ".join(one.texts.values())))
        for one in chosen[:SHOWN]
    ]  # fmt: skip
    lines = [shorten(line, COLUMNS) for line in align_table([head, *shown], right=(2,))]
    more = len(chosen) - len(shown)
    return [*lines, f"and {format_count(more)} more"] if more > 0 else lines


def check_lines(check: Check) -> Iterator[str]:
    """✔ ⚠ ✘ and the answer, a few findings with their rows, and what mends them; at most COLUMNS
    wide."""
    first, *more = wrap(clean_line(check.headline), COLUMNS - len(INDENT))
    yield f"{MARKS[check.state]} {pad(check.name, NAME)} {first}"
    yield from (INDENT + line for line in more)
    for finding in check.findings[:EXAMPLES]:
        yield from (INDENT + line for line in _finding_lines(finding))
    if (rest := len(check.findings) - EXAMPLES) > 0:
        yield f"{INDENT}and {format_count(rest)} more"
    if check.findings and check.mend:
        for i, line in enumerate(wrap(check.mend, COLUMNS - len(INDENT) - 2)):
            yield f"{INDENT}{'  ' if i else '→ '}{line}"


def _finding_lines(finding: Finding) -> Iterator[str]:
    """What a finding says, and the beginning of each of its texts."""
    width = COLUMNS - len(INDENT)
    lines = wrap(clean_line(finding.message), width - 2)
    yield "· " + lines[0]
    yield from ("  " + line for line in lines[1:3])
    for text in finding.details.get("texts", ())[:2]:
        yield "    " + shorten(clean_line(text), width - 4)


def summary_lines(checks: Sequence[Check], seconds: str, path: str) -> list[str]:
    """How it went, where the findings are, and how rows of them are left out."""
    findings = [finding for check in checks for finding in check.findings]
    errors = sum(finding.level == "error" for finding in findings)
    line = f"examined in {seconds}: {_count(errors, 'error')}, "
    line += _count(len(findings) - errors, "warning")
    if left_out := sum(check.left_out for check in checks):
        line += f", {_count(left_out, 'check')} left out"
    lines = [line + (f"; one a line in {path}" if findings else "")]
    if any(finding.drop for finding in findings):
        lines.append(f"To leave rows out, delete the lines of {path} that you do not agree with,")
        lines.append(f'then set data.drop_rows = "{path}".')
    return [part for one in lines for part in wrap(one, COLUMNS)]


def _count(number: int, what: str) -> str:
    return f"{format_count(number)} {what}{'' if number == 1 else 's'}"
