"""For the person with nothing but a file: which column is the text, which the label, and why."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.labels.guess import Columns, describe, guess_label, is_named
from data.labels.numbers import is_number
from data.labels.settle import Kind
from data.reading.delimited import repeated_names, suggest_delimiter
from data.reading.detect import detect_format
from data.reading.formats import Format
from data.reading.rows import BadRow, Row, dotted_values, list_columns
from data.sources import find_files
from data.tables import Table, open_table

TEXT_NAMES = {"text", "review", "sentence", "content", "comment", "body", "message", "tweet"}
PAIR_NAMES = (
    ("premise", "hypothesis"), ("question", "answer"), ("question", "passage"),
    ("question", "context"),
    ("question", "sentence"), ("src", "tgt"), ("query", "document"), ("query", "passage"),
    ("query", "product"),
    ("claim", "evidence"), ("headline", "body"), ("anchor", "positive"), ("source", "target"),
    ("original", "paraphrase"), ("context", "response"), ("article", "summary"),
)  # fmt: skip
UNNAMED = "column_"  # what columns are called where there is no header
ENDINGS = {"1": "2", "a": "b", "left": "right", "first": "second"}  # of the names of a pair
LOOKED_AT = 2000  # rows of a sample, at least (of longer files), and less than twice as many


@dataclass(frozen=True)
class Guess:
    """What a file seems to hold, as settings of [data], and one sentence a finding."""

    text: tuple[str, ...]  # two columns: pairs of texts
    label: tuple[str, ...]  # several columns of 0 and 1: several labels
    kind: Kind | None  # where it has to be set
    separator: str | None  # of several labels in a cell
    format: Format
    reasons: list[str]


def guess_columns(path: str | Path) -> Guess:
    """Guess how a file is written, its text and its label columns.

    Texts are long and differ, labels are few and repeat; a telling column name decides between
    several. Raises ValueError, naming what each column looks like, where nothing fits.
    """
    file = find_files(str(path))[0]
    detected = detect_format(file)
    table = open_table(file, file.name, detected.format)
    columns = _read_columns(table, path)
    try:
        text, text_reasons = _guess_text(columns, path)
        label, kind, separator, label_reasons = guess_label(columns, text, path)
    except ValueError as error:
        if repeated := repeated_names(table.columns or ()) - {""}:
            twice = " and ".join(map(repr, sorted(repeated)))
            raise ValueError(f"{error}; {twice} names several columns: rename them") from None
        raise
    reasons = [*detected.reasons, *text_reasons, *label_reasons]
    if unused := [name for name in columns if name not in (*text, *label)]:
        reasons.append(f"not used: {list_columns(unused)}")
    return Guess(text, label, kind, separator, detected.format, reasons)


def _read_columns(table: Table, path: str | Path) -> Columns:
    counts: Counter[type] = Counter()
    rows = _counted(table.rows(table.columns or ()), counts)
    sample = spread_sample(row.values for row in rows if isinstance(row, Row))
    if counts[BadRow] >= counts[Row]:
        what = "few readable rows" if sample else "no readable row"
        raise ValueError(f"{path}: {what} to guess columns from{_first_fault(table)}")
    if table.columns is None:
        sample = [dotted_values(row) for row in sample]
    names = table.columns or tuple(dict.fromkeys(name for row in sample for name in row))
    unusable = repeated_names(names) | {""}
    return {
        name: [value for row in sample if (value := row.get(name)) is not None]
        for name in names
        if name not in unusable
    }


def _counted(rows: Iterable[Row | BadRow], counts: Counter[type]) -> Iterator[Row | BadRow]:
    for row in rows:
        counts[type(row)] += 1
        yield row


def spread_sample(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every n-th row, n as the length asks for: files are often sorted by label, so the first rows
    would show one label only."""
    sample: list[dict[str, Any]] = []
    every = 1
    for i, row in enumerate(rows):
        if i % every == 0:
            sample.append(row)
        if len(sample) == 2 * LOOKED_AT:
            sample, every = sample[::2], 2 * every
    return sample


def _first_fault(table: Table) -> str:
    """Why the first bad row is bad, and the likely way out."""
    bad = next((row for row in table.rows(table.columns or ()) if isinstance(row, BadRow)), None)
    fault = f"; {bad.address}: {bad.message}" if bad else "; it has none"
    header = (table.columns or ("",))[0]
    if len(table.columns or ()) == 1 and (mark := suggest_delimiter(header)):
        fault += f". The header seems to be separated by {mark!r}: set data.delimiter in a recipe"
    if bad and bad.reason == "ragged_row" and len(table.columns or ()) == 1:
        fault += ". Where a title or a remark stands above the column names, delete it"
    return fault


# The text


def _guess_text(columns: Columns, path: str | Path) -> tuple[tuple[str, ...], list[str]]:
    """The column of the texts, or the two of pairs."""
    lengths = {
        name: sum(map(len, values)) / len(values)
        for name in columns
        if (values := columns[name])
        and all(isinstance(value, str) for value in values)
        and len(set(values)) > 1
        and not all(map(is_number, values))
    }
    if not lengths:
        looks = "; ".join(
            f"{list_columns([n])}: {describe(columns[n])}" for n in list(columns)[:12]
        )
        raise ValueError(f"{path}: no column holds texts ({looks})")
    if pair := find_pair([n for n in lengths if _are_sentences(columns[n])]):
        first, second = pair
        return pair, [f"text = {first!r} and {second!r}: pairs of texts, by their names"]
    text = max(lengths, key=lambda name: lengths[name] * (2 if is_named(name, TEXT_NAMES) else 1))
    reasons = [
        f"text = {text!r}: {lengths[text]:.0f} characters a row on average"
        + (", and named like a text" if is_named(text, TEXT_NAMES) else "")
    ]
    long = [n for n in lengths if n != text and lengths[n] > 40 and _mean_words(columns[n]) > 3]
    if long:
        reasons.append(
            f"holds texts too: {', '.join(long)}; for pairs of texts set data.text = "
            f'["{text}", "{long[0]}"]'
        )
    return (text,), reasons


def find_pair(names: Sequence[str]) -> tuple[str, str] | None:
    """Two columns whose names say that they belong together: premise and hypothesis, sentence1 and
    sentence2, text_a and text_b."""
    folded = {name.casefold(): name for name in names}
    for first, second in PAIR_NAMES:
        if first in folded and second in folded:
            return folded[first], folded[second]
    for name in names:
        for first, second in ENDINGS.items():
            stem, ending = name[: -len(first)], name[-len(first) :]
            other = stem + (second.upper() if ending.isupper() else second)
            if ending.casefold() == first and other in names and not name.startswith(UNNAMED):
                return name, other
    return None


def _are_sentences(values: list[Any]) -> bool:
    """Whether values are texts of a pair: of several words (or letters, where there are no blanks),
    and more than a handful."""
    several = _mean_words(values) >= 2 or sum(map(len, values)) >= 8 * len(values)
    return several and len(set(values)) > max(2, len(values) // 10)


def _mean_words(values: list[Any]) -> float:
    return sum(len(str(value).split()) for value in values) / max(1, len(values))
