"""The columns that a run looks at: whether tables and rows have them, and what the filter says."""

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from data.filters import Filter
from data.labels.reader import RowError
from data.reading.delimited import repeated_names, suggest_delimiter
from data.reading.detect import looks_like_row
from data.reading.rows import Row, has_column, list_columns, nearest
from data.tables import Table

MOST_NAMED = 8  # columns of a row in a message


def check_columns(tables: Mapping[str, Sequence[Table]], needed: Mapping[str, str]) -> None:
    """Raise ValueError naming every column of `needed` (column -> the config key that asks for it)
    that a table's header lacks."""
    errors = [
        f"{key}: {table.path} has no column {column!r}{nearest(column, table.columns)}; its "
        f"columns are {list_columns(table.columns)}{_header_hint(table)}"
        for table in (table for parts in tables.values() for table in parts)
        if table.columns is not None
        for column, key in needed.items()
        if not has_column(column, table.columns)
    ]
    errors += [
        f"{key}: {table.path} has two columns {column!r}; give one of them another name"
        for table in (table for parts in tables.values() for table in parts)
        for column, key in needed.items()
        if column in repeated_names(table.columns or ())
    ]
    if errors:
        raise ValueError("\n".join(errors))


def _header_hint(table: Table) -> str:
    """What may be wrong with a header that lacks a column: it is a row, or is not taken apart."""
    names = table.columns or ()
    rows = [row for row in islice(table.rows(()), 200) if isinstance(row, Row)]
    cells = [[str(row.values.get(name, "")) for name in names] for row in rows]
    if "".join(names).startswith("{"):
        return ". This first line looks like JSON: let the file's name end in .jsonl"
    if looks_like_row(names, cells):
        return (
            ". This first line looks like a row: name the columns with data.header = "
            f'[{", ".join(["…"] * len(names))}], or set data.header = "none" '
            "(column_1, column_2, …)"
        )
    if len(names) == 1 and (mark := suggest_delimiter(names[0])):
        return f". The names seem to be separated by {mark!r}: set data.delimiter = {mark!r}"
    return ""


def require_columns(values: Mapping[str, Any], columns: Sequence[str]) -> None:
    """Raise RowError, with the nearest name, for the first column that a row lacks."""
    for column in columns:
        if column not in values:
            names = ", ".join(map(str, list(values)[:MOST_NAMED]))
            near = nearest(column, list(values)) or (f"; it has {names}" if names else "")
            raise RowError("missing_column", column, f"the row has no such field{near}")


def is_kept(values: Mapping[str, Any], kept_by: Filter | None) -> bool:
    """Whether the filter, if there is one, keeps a row. Raises RowError where it cannot tell."""
    if kept_by is None:
        return True
    require_columns(values, kept_by.columns)
    try:
        return kept_by.keep(values)
    except ValueError as error:
        columns = ", ".join(kept_by.columns)
        raise RowError("bad_filter_value", columns, f"{error}") from None
