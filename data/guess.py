"""For the person with nothing but a file: which column is the text, which the label, and why."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.labels.numbers import is_number
from data.labels.reader import OFF, ON, WHOLE, parse_list, plain_form
from data.labels.settle import MOST_NAMES, Kind
from data.reading.delimited import repeated_names, suggest_delimiter
from data.reading.detect import detect_format
from data.reading.formats import Format
from data.reading.rows import BadRow, Row, dotted_values
from data.sources import find_files
from data.tables import Table, open_table

TEXT_NAMES = {"text", "review", "sentence", "content", "comment", "body", "message", "tweet"}
LABEL_NAMES = {
    "label", "labels", "sentiment", "class", "category", "target", "rating", "stars", "score",
    "price", "emotion", "emotions", "tags", "topics", "genres", "genre", "topic",
}  # fmt: skip
MEASURE_NAMES = {"score", "price", "rating", "points", "percent", "salary", "amount", "value"}
NO_LABEL_NAMES = {"id", "index", "idx", "row", "date", "time", "timestamp", "user", "url", "key"}
PAIR_NAMES = (
    ("premise", "hypothesis"), ("question", "answer"), ("question", "passage"),
    ("question", "context"),
    ("question", "sentence"), ("query", "document"), ("query", "passage"), ("query", "product"),
    ("claim", "evidence"), ("headline", "body"), ("anchor", "positive"), ("source", "target"),
    ("original", "paraphrase"), ("context", "response"), ("article", "summary"),
)  # fmt: skip
UNNAMED = "column_"  # what columns are called where there is no header
NUMBERED = re.compile(r"(.*?)[_ -]?(1|2|a|b|left|right|first|second)", re.I)
FIRSTS = {"1": "2", "a": "b", "left": "right", "first": "second"}
SEPARATORS = (",", ";", "|", "/", "+", "&")
LOOKED_AT = 2000  # rows of a sample, at least (of longer files), and less than twice as many
FEW_WORDS = 3  # a label has so many words at most
FEW_NUMBERS = 20  # whole numbers that are classes even where they do not run from 0 or 1
SEVERAL = 3  # as many cells with several labels must there be


@dataclass(frozen=True)
class Guess:
    """What a file seems to hold, as settings of [data], and one sentence a finding."""

    text: tuple[str, ...]  # two columns: pairs of texts
    label: tuple[str, ...]  # several columns of 0 and 1: several labels
    kind: Kind | None  # where it has to be set
    separator: str | None  # of several labels in a cell
    format: Format
    reasons: list[str]


@dataclass(frozen=True)
class Columns:
    """The values of each column that can be used, from rows all over a file."""

    values: dict[str, list[Any]]

    def of(self, name: str) -> list[Any]:
        return [value for value in self.values[name] if value is not None]


def guess_columns(path: str | Path) -> Guess:
    """Guess how a file is written, its text and its label columns.

    Texts are long and differ, labels are few and repeat; a telling column name decides between
    several. Raises ValueError, naming what each column looks like, where nothing fits.
    """
    file = find_files(str(path))[0]
    detected = detect_format(file)
    table = open_table(file, file.name, detected.format)
    columns = _read_columns(table, path)
    text, text_reasons = _guess_text(columns, path)
    label, kind, separator, label_reasons = _guess_label(columns, text, path)
    reasons = [*detected.reasons, *text_reasons, *label_reasons]
    if unused := [name for name in columns.values if name not in (*text, *label)]:
        reasons.append(f"not used: {', '.join(unused)}")
    return Guess(text, label, kind, separator, detected.format, reasons)


def _read_columns(table: Table, path: str | Path) -> Columns:
    rows = (row.values for row in table.rows(table.columns or ()) if isinstance(row, Row))
    sample = spread_sample(rows)
    if not sample:
        raise ValueError(f"{path}: no readable row to guess columns from{_first_fault(table)}")
    if table.columns is None:
        sample = [dotted_values(row) for row in sample]
    names = table.columns or tuple(dict.fromkeys(name for row in sample for name in row))
    unusable = repeated_names(names) | {""}
    return Columns({n: [row.get(n) for row in sample] for n in names if n not in unusable})


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
    return fault


# The text


def _guess_text(columns: Columns, path: str | Path) -> tuple[tuple[str, ...], list[str]]:
    """The column of the texts, or the two of pairs."""
    lengths = {
        name: sum(map(len, values)) / len(values)
        for name in columns.values
        if (values := columns.of(name))
        and all(isinstance(value, str) for value in values)
        and len(set(values)) > 1
        and not all(map(is_number, values))
    }
    if not lengths:
        names = ", ".join(columns.values)
        raise ValueError(f"{path}: no column holds texts; its columns are {names}")
    if pair := find_pair([n for n in lengths if _are_sentences(columns.of(n))]):
        first, second = pair
        return pair, [f"text = {first!r} and {second!r}: pairs of texts, by their names"]
    text = max(lengths, key=lambda name: lengths[name] * (2 if _is_named(name, TEXT_NAMES) else 1))
    reasons = [
        f"text = {text!r}: {lengths[text]:.0f} characters a row on average"
        + (", and named like a text" if _is_named(text, TEXT_NAMES) else "")
    ]
    long = [n for n in lengths if n != text and lengths[n] > 20 and _mean_words(columns.of(n)) > 3]
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
        match = NUMBERED.fullmatch(name)
        if match and (other := FIRSTS.get(match[2].casefold())):
            second = name[: match.start(2)] + (other.upper() if match[2].isupper() else other)
            if second in names and not name.startswith(UNNAMED):
                return name, second
    return None


def _are_sentences(values: list[Any]) -> bool:
    """Whether values are texts of a pair: of several words (or letters, where there are no blanks),
    and more than a handful."""
    several = _mean_words(values) >= 2 or sum(map(len, values)) >= 8 * len(values)
    return several and len(set(values)) > max(2, len(values) // 10)


def _mean_words(values: list[Any]) -> float:
    return sum(len(str(value).split()) for value in values) / max(1, len(values))


# The label


def _guess_label(
    columns: Columns, text: tuple[str, ...], path: str | Path
) -> tuple[tuple[str, ...], Kind | None, str | None, list[str]]:
    """The label columns, their kind where it has to be set, the separator, and why."""
    names = [name for name in columns.values if name not in text]
    labels = [name for name in names if _looks_like_labels(name, columns.of(name))]
    separators = {name: _find_separator(columns.of(name)) for name in names}
    labels += [n for n in names if separators[n] and n not in labels]
    flags = [name for name in names if _is_flag(columns.of(name))]
    named = [name for name in labels if _is_named(name, LABEL_NAMES)]
    if len(flags) >= 2 and not named:
        reason = f"label = {', '.join(flags)}: columns of 0 and 1, so several can hold at once"
        return tuple(flags), None, None, [reason]
    if not labels:
        looks = "; ".join(f"{name}: {_describe(columns.of(name))}" for name in columns.values)
        raise ValueError(
            f"{path}: no column beside {' and '.join(map(repr, text))} looks like labels "
            f"({looks}); "
            "name the columns in a config: data.text, data.label"
        )
    label = min(labels, key=lambda name: (
        not _is_named(name, LABEL_NAMES), len(_distinct(columns.of(name)))
    ))  # fmt: skip
    values = columns.of(label)
    like_label = ", and named like a label" if _is_named(label, LABEL_NAMES) else ""
    reasons = [f"label = {label!r}: {_describe(values)}{like_label}"]
    if others := [name for name in labels if name != label]:
        reasons.append(f"could be labels too, not used: {', '.join(others)}")
    if separator := separators[label]:
        several = sum(separator in str(value) for value in values)
        reasons.append(
            f"label_separator = {separator!r}: {several} of {len(values)} cells hold several labels"
        )
        return (label,), None, separator, reasons
    if _are_measures(label, values):
        reasons.append('kind = "regression": many different numbers')
        return (label,), "regression", None, reasons
    return (label,), None, None, reasons


def _is_named(column: str, names: set[str]) -> bool:
    words = re.split(r"[-_ .]", column.casefold())
    return not names.isdisjoint(words)


def _items(value: Any) -> list[Any]:
    """The labels in a cell: of a list, or of a list as text, its items."""
    if isinstance(value, str):
        listed = parse_list(value)
        return [value] if listed is None else listed
    return value if isinstance(value, list) else [value]


def _distinct(values: list[Any]) -> set[str]:
    """Different values in their plain form; the items of lists count one by one."""
    items = {plain_form(item) for value in values for item in _items(value) if item is not None}
    return items - {""}


def _looks_like_labels(name: str, values: list[Any]) -> bool:
    """Few values that repeat; numbers may be many where the name says that they are labels."""
    distinct = _distinct(values)
    if len(distinct) < 2 or _is_named(name, NO_LABEL_NAMES):
        return False
    if all(map(is_number, distinct)) and _is_named(name, LABEL_NAMES):
        return True
    return len(distinct) <= MOST_NAMES and len(distinct) <= max(2, len(values) // 2)


def _are_measures(name: str, values: list[Any]) -> bool:
    """Whether whole numbers are measured, and no numbers of classes, which are few or run from 0 or
    1 without a gap. (Numbers with decimals are taken for a regression anyway.)"""
    distinct = _distinct(values)
    if not all(map(WHOLE.fullmatch, distinct)):
        return False
    numbers = sorted(map(int, distinct))
    runs = numbers[0] in (0, 1) and numbers[-1] - numbers[0] < len(numbers)
    most = 10 if _is_named(name, MEASURE_NAMES) else FEW_NUMBERS
    return len(numbers) > most and not (runs and most == FEW_NUMBERS)


def _is_flag(values: list[Any]) -> bool:
    distinct = {value.lower() for value in _distinct(values)}
    return len(distinct) == 2 and distinct <= ON | OFF


def _find_separator(values: list[Any]) -> str | None:
    """What stands between the labels of a cell: taken apart there, the column has clearly fewer
    different labels, which repeat, and one of them stands alone in some cell."""
    cells = [value.strip() for value in values if isinstance(value, str) and value.strip()]
    if not cells or any(parse_list(cell) is not None for cell in cells[:50]):
        return None
    whole = set(cells)
    if all(map(is_number, whole)):
        return None  # 1,5 is a number with its decimals
    for separator in SEPARATORS:
        several = [cell for cell in cells if separator in cell]
        items = [item.strip() for cell in cells for item in cell.split(separator)]
        distinct = set(items) - {""}
        if (
            len(several) >= SEVERAL
            and not distinct.isdisjoint(whole)
            and len(distinct) < len(whole)
            and len(distinct) <= MOST_NAMES
            and all(len(item.split()) <= FEW_WORDS for item in distinct)
        ):
            return separator
    return None


def _describe(values: list[Any]) -> str:
    distinct = sorted(_distinct(values))
    shown = ", ".join(value[:20] for value in distinct[:4]) + (", …" if len(distinct) > 4 else "")
    return f"{len(distinct)} different values in {len(values)} rows ({shown})"
