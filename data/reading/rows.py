"""A record of a table, its address, and the values inside it."""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

MOST_NAMES, MOST_LETTERS = 20, 24  # of a header that is shown


class Row(NamedTuple):
    """One record; `address` is "file.csv:12" (the line where it starts) or "set/train[7]"."""

    address: str
    values: dict[str, Any]


class BadRow(NamedTuple):
    """A record that cannot be used: counted under `reason`, told by `message`; where one column is
    at fault, `column` is its name and `value` what stands there in the place of a value."""

    address: str
    reason: str
    message: str
    column: str = ""
    value: Any = ""


def nearest(name: str, names: Sequence[str]) -> str:
    """The end of an error message: " (did you mean 'label'?)", or nothing where no name is near."""
    folded = {n.casefold(): n for n in names}
    close = difflib.get_close_matches(name.casefold(), list(folded), n=1, cutoff=0.6)
    return f" (did you mean {list_columns([folded[close[0]]])!r}?)" if close else ""


def list_columns(names: Sequence[str]) -> str:
    """Column names for a message, cut to what helps: a file that is no table may come with a secret
    in its first line, or with a megabyte."""
    shown = [n if len(n) <= MOST_LETTERS else f"{n[:MOST_LETTERS]}…" for n in names[:MOST_NAMES]]
    rest = len(names) - len(shown)
    return ", ".join(shown) + (f" and {rest:,} more" if rest else "")


def is_encodable(text: str) -> bool:
    """False for text with lone surrogates (undecodable bytes, or a broken JSON escape)."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def decode_bytes(values: dict[str, Any]) -> dict[str, Any]:
    """`values` with bytes that are UTF-8 as text: some writers of Parquet do not mark texts so."""
    if not any(type(value) is bytes for value in values.values()):
        return values
    return {name: _as_text(value) for name, value in values.items()}


def _as_text(value: Any) -> Any:
    try:
        return value.decode("utf-8") if type(value) is bytes else value
    except UnicodeDecodeError:
        return value


def has_column(name: str, columns: Sequence[str]) -> bool:
    """Whether `columns` hold `name`, or the object inside which "review.text" stands."""
    return name in columns or ("." in name and name.partition(".")[0] in columns)


def with_nested(values: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """`values`, and under each dotted name ("review.text", "choices.0") what stands there inside;
    "genres.name" of a list of objects is the list of their names.

    A name whose place does not exist is left out.
    """
    nested = {}
    for name in names:
        if "." in name and name not in values:
            try:
                nested[name] = _value_inside(values, name)
            except (KeyError, IndexError):
                continue
    return {**values, **nested} if nested else values


def _value_inside(values: Mapping[str, Any], name: str) -> Any:
    inner: Any = values
    parts = name.split(".")
    for i, part in enumerate(parts):
        if inner is None:
            return None  # where the object is missing, so is what it would hold
        if isinstance(inner, Mapping):
            inner = inner[part]
        elif isinstance(inner, list) and part.isdecimal():
            inner = inner[int(part)]
        elif isinstance(inner, list) and all(isinstance(item, Mapping) for item in inner):
            return [_value_inside(item, ".".join(parts[i:])) for item in inner]
        else:
            raise KeyError(name)
    return inner


def dotted_values(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """All values with objects inside objects taken apart: {"review": {"text": t}} gives
    {"review.text": t}, and lists of objects give lists of their values."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= dotted_values(value, f"{prefix}{key}.")
        elif isinstance(value, list) and value and all(isinstance(v, Mapping) for v in value):
            for name in dict.fromkeys(name for item in value for name in item):
                flat[f"{prefix}{key}.{name}"] = [item.get(name) for item in value]
        else:
            flat[prefix + key] = value
    return flat
