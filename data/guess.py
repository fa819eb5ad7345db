"""For the person with nothing but a file: which column is the text, which the label, and why."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.labels import MOST_NAMES, NUMBER
from data.sources import find_files
from data.tables import BadRow, Row, Table, open_table

TEXT_NAMES = {"text", "review", "sentence", "content", "comment", "body", "message", "tweet"}
LABEL_NAMES = {"label", "labels", "sentiment", "class", "category", "target", "rating", "stars"}
LOOKED_AT = 2000  # rows of a sample, at least (of longer files), and less than twice as many


@dataclass(frozen=True)
class Guess:
    """The columns guessed, and one sentence a finding."""

    text: str
    label: str
    reasons: list[str]


def guess_columns(path: str | Path) -> Guess:
    """Guess the text and the label column from rows all over a file.

    Texts are long and differ, labels are few and repeat; a telling column name decides between
    several. Raises ValueError, naming what each column looks like, where nothing fits.
    """
    file = find_files(str(path))[0]
    table = open_table(file, file.name)
    sample = _spread_sample(
        row.values for row in table.rows(table.columns or ()) if isinstance(row, Row)
    )
    if not sample:
        raise ValueError(f"{path}: no readable row to guess columns from{_first_fault(table)}")
    columns = table.columns or tuple(dict.fromkeys(name for row in sample for name in row))
    found = {name: [row.get(name) for row in sample] for name in columns}
    lengths = {
        name: sum(len(str(value)) for value in values) / len(values)
        for name, values in found.items()
        if all(isinstance(value, str) for value in values) and len(set(values)) > 1
    }
    if not lengths:
        raise ValueError(f"{path}: no column holds texts; its columns are {', '.join(columns)}")
    text = max(lengths, key=lambda name: lengths[name] * (2 if _is_named(name, TEXT_NAMES) else 1))
    labels = [name for name in columns if name != text and _looks_like_labels(name, found[name])]
    if not labels:
        looks = "; ".join(f"{name}: {_describe(found[name])}" for name in columns)
        raise ValueError(
            f"{path}: no column beside {text!r} looks like labels ({looks}); name the columns in a "
            "config: data.text, data.label"
        )
    label = min(
        labels, key=lambda name: (not _is_named(name, LABEL_NAMES), len(_distinct(found[name])))
    )
    reasons = [
        f"text = {text!r}: {lengths[text]:.0f} characters a row on average"
        + (", and named like a text" if _is_named(text, TEXT_NAMES) else ""),
        f"label = {label!r}: {_describe(found[label])}"
        + (", and named like a label" if _is_named(label, LABEL_NAMES) else ""),
    ]
    if others := [name for name in labels if name != label]:
        reasons.append(f"could be labels too, not used: {', '.join(others)}")
    if unused := [name for name in columns if name not in (text, *labels)]:
        reasons.append(f"not used: {', '.join(unused)}")
    return Guess(text, label, reasons)


def _spread_sample(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
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
    said = f"; {bad.address}: {bad.message}" if bad else "; it has none"
    header = (table.columns or ("",))[0]
    if len(table.columns or ()) == 1 and (mark := next((m for m in ";\t|" if m in header), None)):
        said += f". The header seems to be separated by {mark!r}: save it with commas, or as .tsv"
    if bad and bad.reason == "bad_utf8":
        said += '. Save the file as UTF-8 (in Excel: "CSV UTF-8")'
    return said


def _is_named(column: str, names: set[str]) -> bool:
    words = column.casefold().replace("-", "_").replace(" ", "_").split("_")
    return not names.isdisjoint(words)


def _distinct(values: list[Any]) -> set[str]:
    """Different values as text; the items of lists count one by one."""
    items = [item for value in values for item in (value if isinstance(value, list) else [value])]
    return {str(item).strip() for item in items if item is not None}


def _looks_like_labels(name: str, values: list[Any]) -> bool:
    """Few values that repeat; numbers may be many where the name says that they are labels."""
    distinct = _distinct(values)
    if _is_named(name, LABEL_NAMES) and all(NUMBER.fullmatch(value) for value in distinct):
        return len(distinct) > 1
    return 2 <= len(distinct) <= MOST_NAMES and len(distinct) <= max(2, len(values) // 2)


def _describe(values: list[Any]) -> str:
    distinct = sorted(_distinct(values))
    shown = ", ".join(value[:20] for value in distinct[:4]) + (", …" if len(distinct) > 4 else "")
    return f"{len(distinct)} different values in {len(values)} rows ({shown})"
