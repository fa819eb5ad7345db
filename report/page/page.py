"""A run as one HTML page: it opens from a mail, asks nothing of the network, prints, and reads with
JavaScript off.

Whatever comes from data is escaped by the template (Jinja2's autoescape); numbers for the script
stand in a JSON block in which no character can end it. A Content-Security-Policy allows the page's
own style and script by their hashes, and nothing else.
"""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from report.format import format_bytes, format_count, format_number, format_seconds, format_share

HERE = Path(__file__).parent
STYLE, SCRIPT = "page.css", "page.js"


@dataclass(frozen=True)
class Chart:
    """A drawing, and the numbers behind it."""

    svg: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


@dataclass(frozen=True)
class Example:
    """A test row that is shown. `line` is its line of test_predictions.jsonl; the text is None
    where texts are left out. `parts` are the text in pieces, each with how strongly the answer
    rests on it: "for1" to "for3", "against1" to "against3" or "". `words` are those pieces that
    weigh most, with their weights."""

    address: str
    text: str | None
    label: str
    predicted: str
    share: float | None
    line: str | None
    note: str = ""
    parts: Sequence[tuple[str, str]] = ()
    words: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class Talk:
    """What was asked last in a test conversation, and what a language model said to it before and
    after training; None where that is not known. `true`: what was said there."""

    prompt: str
    before: str | None
    after: str | None
    true: str | None


@dataclass(frozen=True)
class Cell:
    """A cell of the confusion matrix: rows of one truth and one answer, the first few of which are
    shown. `weight` 0 to 1 is its share of the rows with that truth."""

    truth: str
    answer: str
    count: int
    weight: float
    examples: Sequence[Example]


@dataclass(frozen=True)
class Slice:
    """Some test rows: their figure and its 95 % interval in words, and as shares (0 to 1) of a
    line on which they are drawn; `worse` than all other rows, surely."""

    name: str
    rows: int
    figure: str
    interval: str
    low: float
    middle: float
    high: float
    worse: bool = False


@dataclass(frozen=True)
class Page:
    """All that a page says. A section without content is left out."""

    name: str
    status: str
    headline: str
    verdict: Sequence[str]  # what stands beside the figure
    warnings: Sequence[str]
    figures: Sequence[tuple[str, str]]
    curves: Sequence[Chart] = ()
    matrix: Sequence[Sequence[Cell]] = ()
    slider: Mapping[str, Any] = field(default_factory=dict)  # for the script: steps and counts
    slider_rows: Sequence[Sequence[str]] = ()
    trust: Sequence[Chart] = ()  # reliability
    lengths: Sequence[Chart] = ()
    numbers: Sequence[Chart] = ()  # of a regression
    decided: Sequence[tuple[str, str]] = ()  # temperature, thresholds, limit
    decided_lines: Sequence[str] = ()  # why so
    trusted: Sequence[Sequence[str]] = ()  # what these do, on which rows
    expectations: Sequence[Sequence[str]] = ()  # the first row is the head
    slices: Sequence[tuple[str, str, Sequence[Slice]]] = ()  # by what, which figure
    classes: Sequence[Sequence[str]] = ()  # label, rows, answers, precision, recall, F1
    mistakes_title: str = "Mistakes"
    mistakes: Sequence[Example] = ()
    suspects: Sequence[Example] = ()
    samples: Sequence[Sequence[str]] = ()
    reply_figures: Sequence[Sequence[str]] = ()  # of a language model; the first row is the head
    talks: Sequence[Talk] = ()
    splits: Sequence[Sequence[str]] = ()  # the first row is the head
    data: Sequence[str] = ()
    settings: Sequence[tuple[str, str]] = ()  # key, value; those that are not the default
    defaults: Sequence[tuple[str, str]] = ()  # and those that are
    versions: Sequence[tuple[str, str]] = ()
    costs: Sequence[tuple[str, str]] = ()  # time and memory
    command: str = ""
    texts: bool = True


@dataclass(frozen=True)
class Section:
    """A part of a sheet: lines of text, a table whose first row is its head, rows of
    data, charts."""

    id: str
    title: str
    lines: Sequence[str] = ()
    table: Sequence[Sequence[str]] = ()
    examples: Sequence[Example] = ()
    charts: Sequence[Chart] = ()
    words: bool = False  # the table is one of words, not of numbers


@dataclass(frozen=True)
class Sheet:
    """Several runs on one page. `links` are the pages of each: its name, its address."""

    title: str
    headline: str
    links: Sequence[tuple[str, str]]
    sections: Sequence[Section]
    texts: bool


def render(page: Page) -> str:
    """The page as HTML."""
    return fill("page.html", page, page.slider)


def render_sheet(sheet: Sheet) -> str:
    """The sheet as HTML."""
    return fill("sheet.html", sheet, {})


def fill(template: str, page: Page | Sheet, values: Mapping[str, Any]) -> str:
    """A template with what it shows; `values` are for the script."""
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=select_autoescape(), undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {
        "count": format_count, "number": format_number, "bytes": format_bytes,
        "seconds": format_seconds, "share": lambda share: format_share(share, 1),
    }  # fmt: skip
    style, script = ((HERE / name).read_text(encoding="utf-8") for name in (STYLE, SCRIPT))
    return environment.get_template(template).render(
        page=page, style=style, script=script, policy=policy(style, script),
        values=json_block(values),
    )  # fmt: skip


def policy(style: str, script: str) -> str:
    """The Content-Security-Policy: this style and script, by their hashes, and nothing else."""
    hashes = [
        base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        for text in (style, script)
    ]
    return (
        f"default-src 'none'; style-src 'sha256-{hashes[0]}'; script-src 'sha256-{hashes[1]}'; "
        "base-uri 'none'; form-action 'none'"
    )


def json_block(values: Any) -> str:
    """JSON for a <script> block: nothing in it can end the block or begin a comment."""
    text = json.dumps(values, separators=(",", ":"))  # ASCII: no line ends of JavaScript's own
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
