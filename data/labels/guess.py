"""Which column is the label, and what kind of label it holds, guessed from its values."""

from pathlib import Path
from typing import Any

from data.labels.numbers import is_number
from data.labels.reader import MISSING, OFF, ON, WHOLE, parse_list, plain_form
from data.labels.settle import MOST_NAMES, Kind
from data.reading.rows import list_columns

Columns = dict[str, list[Any]]  # name -> values from rows all over a file, missing ones left out

LABEL_NAMES = {
    "label", "labels", "sentiment", "class", "category", "target", "rating", "stars", "score",
    "price", "emotion", "emotions", "tags", "topics", "genres", "genre", "topic",
}  # fmt: skip
MEASURE_NAMES = {"score", "price", "rating", "points", "percent", "salary", "amount", "value"}
NO_LABEL_NAMES = {"id", "index", "idx", "row", "date", "time", "timestamp", "user", "url", "key"}
WORDS_APART = str.maketrans("-_.", "   ")  # in the name of a column
SEPARATORS = (",", ";", "|", "/", "+", "&")
UNLIKELY = (";", "|")  # inside the name of a class
FEW_WORDS = 3  # a label has so many words at most
FEW_NUMBERS = 20  # whole numbers that are classes even where they do not run from 0 or 1
ALMOST_ALL = 0.95  # share of numbers in a column of numbers
SEVERAL = 3  # as many cells with several labels must there be


def guess_label(
    columns: Columns, text: tuple[str, ...], path: str | Path
) -> tuple[tuple[str, ...], Kind | None, str | None, list[str]]:
    """The label columns, their kind where it has to be set, the separator, and why."""
    names = [name for name in columns if name not in text]
    labels = [name for name in names if _looks_like_labels(name, columns[name])]
    separators = {name: _find_separator(columns[name]) for name in names}
    labels += [n for n in names if separators[n] and n not in labels]
    if not labels:
        single = [n for n in names if not any(map(_is_list, columns[n]))]  # no embeddings
        labels = [n for n in single if _has_decimals(columns[n]) or _varies(n, columns[n])]
    flags = [name for name in names if _is_flag(columns[name])]
    named = [name for name in labels if is_named(name, LABEL_NAMES)]
    if len(flags) >= 2 and not named:
        reason = f"label = {', '.join(flags)}: columns of 0 and 1, so several can hold at once"
        return tuple(flags), None, None, [reason]
    if not labels:
        looks = "; ".join(
            f"{list_columns([n])}: {describe(columns[n])}" for n in list(columns)[:12]
        )
        raise ValueError(
            f"{path}: no column beside {' and '.join(map(repr, text))} looks like labels "
            f"({looks}); "
            "if one of them is the label, call it 'label' in the file, or write a recipe that "
            "names it as data.label (as configs/imdb_quick.toml does)"
        )
    label = min(labels, key=lambda name: (
        not is_named(name, LABEL_NAMES), len(_distinct(columns[name])),
        is_named(name, NO_LABEL_NAMES),
    ))  # fmt: skip
    values = columns[label]
    like_label = ", and named like a label" if is_named(label, LABEL_NAMES) else ""
    reasons = [
        f"WARNING: {name!r} is named like a label, and all its rows hold "
        f"{min(_distinct(columns[name]))!r}: a classifier needs two"
        for name in names
        if is_named(name, LABEL_NAMES) and len(_distinct(columns[name])) == 1
    ]
    reasons.append(f"label = {label!r}: {describe(values)}{like_label}")
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
    if len(distinct := _distinct(values)) > 2 and all(map(is_number, map(str, distinct))):
        reasons.append(
            f"the {len(distinct)} numbers of {label!r} are taken for classes; where more is more, "
            "as of stars, set data.kind=regression"
        )
    return (label,), None, None, reasons


def is_named(column: str, names: set[str]) -> bool:
    return not names.isdisjoint(column.casefold().translate(WORDS_APART).split())


def _items(value: Any) -> list[Any]:
    """The labels in a cell: of a list, or of a list as text, its items."""
    if isinstance(value, str):
        listed = parse_list(value)
        return [value] if listed is None else listed
    return value if isinstance(value, list) else [value]


def _is_list(value: Any) -> bool:
    return isinstance(value, list) or (isinstance(value, str) and parse_list(value) is not None)


def _distinct(values: list[Any]) -> set[str]:
    """Different values in their plain form; the items of lists count one by one."""
    items = {plain_form(item) for value in values for item in _items(value) if item is not None}
    return items - {""} - MISSING


def _looks_like_labels(name: str, values: list[Any]) -> bool:
    """Few values that repeat; numbers may be many where the name says that they are labels."""
    distinct = _distinct(values)
    is_key = is_named(name, NO_LABEL_NAMES) and not is_named(name, LABEL_NAMES)
    if len(distinct) < 2 or is_key:
        return False
    if _are_numbers(distinct) and is_named(name, LABEL_NAMES):
        return True
    return len(distinct) <= MOST_NAMES and len(distinct) <= max(2, len(values) // 2)


def _are_numbers(distinct: set[str]) -> bool:
    """Whether all values are numbers, but for one or another that is a slip."""
    return sum(map(is_number, distinct)) >= ALMOST_ALL * len(distinct)


def _has_decimals(values: list[Any]) -> bool:
    """Whether values are numbers, and not plain whole ones, as those of a key are."""
    distinct = _distinct(values)
    return len(distinct) > 1 and _are_numbers(distinct) and not all(map(WHOLE.fullmatch, distinct))


def _varies(name: str, values: list[Any]) -> bool:
    """Whether values are whole numbers, as an age or a year, and no keys or numbers of rows."""
    if is_named(name, NO_LABEL_NAMES) or not all(map(WHOLE.fullmatch, _distinct(values))):
        return False
    numbers = [
        int(plain_form(value)) for value in values if plain_form(value) not in MISSING | {""}
    ]
    return len(set(numbers)) > 1 and numbers != sorted(set(numbers))


def _are_measures(name: str, values: list[Any]) -> bool:
    """Whether numbers are measured, and no numbers of classes, which are whole and few, or run from
    0 or 1 without a gap. (A few with decimals are taken for a regression anyway.)"""
    distinct = _distinct(values)
    if len(distinct) > FEW_NUMBERS and _has_decimals(values):
        return True  # also where one of them is a slip, or all are whole but written as 1.5e3
    if not all(map(WHOLE.fullmatch, distinct)):
        return False
    numbers = sorted(map(int, distinct))
    runs = numbers[0] in (0, 1) and numbers[-1] - numbers[0] < len(numbers)
    most = 10 if is_named(name, MEASURE_NAMES) else FEW_NUMBERS
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
            and len(distinct) < len(whole) + (separator in UNLIKELY)
            and len(distinct) <= MOST_NAMES
            and all(len(item.split()) <= FEW_WORDS for item in distinct)
        ):
            return separator
    return None


def describe(values: list[Any]) -> str:
    """How many different values a column has, and the first few."""
    distinct = sorted(_distinct(values))
    if len(distinct) < 2:
        return f"{distinct[0][:40]!r} in every row" if distinct else "no value in any row"
    shown = ", ".join(value[:20] for value in distinct[:4]) + (", …" if len(distinct) > 4 else "")
    return f"{len(distinct)} different values in {len(values)} rows ({shown})"
