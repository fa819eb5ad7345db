"""The run card: the `README.md` of a run folder, for whoever finds the model later.

Whatever comes from data (texts, labels, addresses) is escaped: it shows as it is and is never read
as Markdown or HTML. The card holds no date, so that the same run writes the same card.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from report.distill import Side, side_table
from report.expect import Expected, count_line, expectation_cells
from report.format import (
    NONE,
    clean_line,
    format_bytes,
    format_count,
    format_number,
    format_seconds,
    join_names,
)
from report.markdown import (
    bullets,
    code_block,
    code_span,
    escape_markdown,
    markdown_table,
    section,
)
from report.slices import SliceRow, slice_cells

TEXT_CHARACTERS = 300  # a mistake's text is cut here
MOST_CLASSES = 20  # a confusion matrix of more classes cannot be read in Markdown


@dataclass(frozen=True)
class Result:
    """One figure with what it rests on; `low` and `high` bound its 95 % interval."""

    metric: str
    value: float
    rows: int
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class ClassScore:
    """How one class was recognised."""

    label: str
    precision: float | None  # None where the class was never predicted
    recall: float | None  # None where it never occurred
    f1: float | None
    rows: int


@dataclass(frozen=True)
class Mistake:
    """A row whose predicted label is not its own."""

    address: str
    text: str
    label: str
    predicted: str
    probability: float  # of the predicted label


@dataclass(frozen=True)
class Compared:
    """What the plan estimated beside what the run measured; None where there is no figure."""

    estimated: float | None
    measured: float | None


@dataclass(frozen=True)
class Card:
    """All that a run card says."""

    name: str
    command: str  # with which the run is repeated
    predict_command: str
    load_run: str  # Python that opens the run with openloop
    elsewhere: str  # what that takes, in words
    snippet: str  # Python that loads the exported model elsewhere
    data: Sequence[str]  # the data report's lines
    settings: Mapping[str, object]  # dotted key -> value
    defaults: Mapping[str, object]  # the same where nothing is set; None where something must be
    results: Sequence[Result]
    compared: str  # the test figure beside its baselines
    classes: Sequence[ClassScore]
    confusion: Sequence[Sequence[int]]  # [own label][predicted label], in the order of `classes`
    mistakes: Sequence[Mistake]  # the most confident ones, the worst first
    memory: Compared  # bytes
    seconds: Compared
    caveats: Sequence[str]
    sides: Sequence[Side] = ()  # a teacher and its student
    parts: Mapping[str, Result] = field(default_factory=dict)  # an encoder, a bag, and both
    joined: str = ""  # how these answer together
    slices: Mapping[str, Sequence[SliceRow]] = field(default_factory=dict)
    expectations: Sequence[Expected] = ()
    decided: Sequence[str] = ()  # how logits become answers, and what that does
    replies: str = ""  # of a language model, before and after training, and their figures
    train_on_command: str = ""  # with which its weights are trained further


def _figures(result: Result) -> tuple[str, str]:
    """The value, and its interval where there is one."""
    if result.low is None or result.high is None:
        return format_number(result.value), NONE
    interval = f"{format_number(result.low)} to {format_number(result.high)}"
    return format_number(result.value), interval


def _result_lines(results: Sequence[Result], compared: str) -> list[str]:
    if not results:
        return []
    rows = []
    for result in results:
        rows.append((code_span(result.metric), *_figures(result), format_count(result.rows)))
    table = markdown_table(("metric", "value", "95 % interval", "n"), rows, numbers=3)
    return [*table, "", f"On the same rows: {escape_markdown(compared)}."] if compared else table


def _side_lines(sides: Sequence[Side]) -> list[str]:
    if not sides:
        return []
    header, *rows = [[escape_markdown(cell) for cell in row] for row in side_table(sides)]
    note = "Measured in one process, in turns on the same test rows, from the text to the answer."
    return [*markdown_table(header, rows, numbers=4), "", note]


def _part_lines(parts: Mapping[str, Result], joined: str) -> list[str]:
    lines = [f"{escape_markdown(joined)}."] if joined else []
    if not parts:
        return lines
    rows = [
        (escape_markdown(name), *_figures(result), format_count(result.rows))
        for name, result in parts.items()
    ]
    header = ("", code_span(next(iter(parts.values())).metric), "95 % interval", "n")
    return [*markdown_table(header, rows, numbers=3), "", *lines]


def _class_lines(classes: Sequence[ClassScore]) -> list[str]:
    if not classes:
        return []
    rows = []
    for score in classes:
        figures = [format_number(x) for x in (score.precision, score.recall, score.f1)]
        rows.append((escape_markdown(score.label), *figures, format_count(score.rows)))
    return markdown_table(("label", "precision", "recall", "F1", "n"), rows, numbers=4)


def _confusion_lines(classes: Sequence[ClassScore], counts: Sequence[Sequence[int]]) -> list[str]:
    if not counts:
        return []
    if len(classes) > MOST_CLASSES:
        return [f"Left out: {len(classes)} classes are too many for a table."]
    labels = [escape_markdown(score.label) for score in classes]
    header = ("own label ↓ predicted →", *labels)
    rows = [(label, *map(format_count, row)) for label, row in zip(labels, counts, strict=True)]
    return markdown_table(header, rows, numbers=len(labels))


def _mistake_lines(mistakes: Sequence[Mistake]) -> list[str]:
    if not mistakes:
        return []
    rows = []
    for mistake in mistakes:
        text = clean_line(mistake.text)
        if len(text) > TEXT_CHARACTERS:
            text = text[:TEXT_CHARACTERS].rstrip() + "…"
        predicted = f"{escape_markdown(mistake.predicted)} ({100 * mistake.probability:.1f} %)"
        own = escape_markdown(mistake.label)
        rows.append((code_span(mistake.address), own, predicted, escape_markdown(text)))
    return markdown_table(("row", "own label", "predicted", "text"), rows)


def _slice_lines(slices: Mapping[str, Sequence[SliceRow]]) -> list[str]:
    if not slices:
        return []
    header, *rows = [[*map(escape_markdown, row[:2]), *row[2:]] for row in slice_cells(slices)]
    return markdown_table(header, rows, numbers=4)


def _expectation_lines(expectations: Sequence[Expected]) -> list[str]:
    if not expectations:
        return []
    header, *rows = [
        (met, escape_markdown(expected), share, escape_markdown(got), escape_markdown(text))
        for met, expected, share, got, text in expectation_cells(expectations)
    ]
    return [f"{count_line(expectations).capitalize()}.", "", *markdown_table(header, rows)]


def _estimate_lines(memory: Compared, seconds: Compared) -> list[str]:
    size = [format_bytes(x if x is None else round(x)) for x in (memory.estimated, memory.measured)]
    time = [format_seconds(x) for x in (seconds.estimated, seconds.measured)]
    return markdown_table(
        ("", "estimated", "measured"), [("peak memory", *size), ("time", *time)], 2
    )


def _show_setting(value: object) -> str:
    if value is None:
        return "unset"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{join_names([_show_setting(item) for item in value])}]"
    return str(value)


def _setting_lines(values: Mapping[str, object], defaults: Mapping[str, object]) -> list[str]:
    """First the settings that are not the defaults, then those that are."""
    changed, usual = [], []
    for key, value in values.items():
        cells = (code_span(key), code_span(_show_setting(value)))
        default = defaults.get(key)
        if value == default:
            usual.append(cells)
        else:
            changed.append((*cells, code_span(_show_setting(default))))
    lines = []
    if changed:
        lines += [
            "Not the defaults:",
            "",
            *markdown_table(("key", "value", "default"), changed),
            "",
        ]
    if usual:
        lines += ["The defaults:", "", *markdown_table(("key", "value"), usual)]
    return lines


def run_card(card: Card) -> str:
    """The Markdown text of a run's `README.md`. Sections without content are left out."""
    use = [
        "From the command line:",
        "",
        *code_block(card.predict_command, "bash"),
        "",
        "From Python, in the folder of openloop:",
        "",
        *code_block(card.load_run, "python"),
        "",
        card.elsewhere,
        "",
        *code_block(card.snippet, "python"),
    ]
    if card.train_on_command:
        use += [
            "",
            "To train on from these weights, as a run of its own with a schedule of its own:",
        ]
        use += ["", *code_block(card.train_on_command, "bash")]
    lines = [
        f"# {escape_markdown(card.name)}",
        "",
        "A run of openloop. It is repeated, with --fresh or another run.name, by:",
        "",
        *code_block(card.command, "bash"),
        "",
        *section("Results", _result_lines(card.results, card.compared)),
        *section("Encoder and bag of n-grams", _part_lines(card.parts, card.joined)),
        *section("Replies", code_block(card.replies, "text") if card.replies else []),
        *section("Teacher and student", _side_lines(card.sides)),
        *section("How to use the model", use),
        *section("What to keep in mind", bullets(card.caveats)),
        *section("What it has to answer", _expectation_lines(card.expectations)),
        *section("From logits to an answer", bullets(card.decided)),
        *section("Per class", _class_lines(card.classes)),
        *section("Slices", _slice_lines(card.slices)),
        *section("Confusion matrix", _confusion_lines(card.classes, card.confusion)),
        *section("Most confident mistakes", _mistake_lines(card.mistakes)),
        *section("Data", bullets(card.data)),
        *section("Memory and time", _estimate_lines(card.memory, card.seconds)),
        *section("Settings", _setting_lines(card.settings, card.defaults)),
    ]
    return "\n".join(lines).rstrip("\n") + "\n"
