"""What an examination of data found: lines for people, objects for programs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from report.format import COLUMNS, clean_line, format_count, pad, shorten, wrap

Level = Literal["error", "warning"]
MARKS = {"fine": "✔", "warning": "⚠", "error": "✘", "left out": "–"}
NAME = 16  # columns of a check's name
INDENT = " " * (NAME + 3)
EXAMPLES = 3  # of a check
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
