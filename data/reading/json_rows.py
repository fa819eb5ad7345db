"""JSON as people keep it: an object a line, one list, pretty-printed, a list inside an object, or
an object whose values are the records.

One object a line is read line by line, so that a broken line costs that line alone. Everything else
goes through a cursor that holds one object at a time.
"""

import json
from collections.abc import Generator, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from data.reading.json_cursor import Cursor, read_constant
from data.reading.lines import Lines
from data.reading.rows import BadRow, Row, with_nested

PEEK = 1 << 20  # characters in which a first object must end to be taken for a row


def read_json(
    path: Path, name: str, needed: Sequence[str], encoding: str = "utf-8", start: int = 0
) -> Iterator[Row | BadRow]:
    """Every record of a JSON file, from number `start` on; dotted names in `needed` reach into
    objects.

    Raises ValueError with the file's own line where JSON that is not line by line is broken: where
    the next record begins cannot be told then.
    """
    lines = Lines(path, encoding)
    first, second = [*islice((line.strip() for line in lines if line.strip()), 2), "", ""][:2]
    by_line = _is_one_object(first) or (first[:1] == "{" and _is_whole_object(second))
    by_line = by_line and bool(second)
    by_line |= not second and not first.startswith(("[", "{"))  # a single line that is broken
    lines = Lines(path, encoding)
    if by_line:
        records = _read_lines(lines, name, start)
    else:
        records = islice(_read_stream(lines, name, needed), start, None)
    for record in records:
        if isinstance(record, Row):
            record = Row(record.address, with_nested(record.values, needed))
        yield record


def _is_one_object(first: str) -> bool:
    """Whether a first line is meant to be a record, whole or broken: all but the lines that open
    a list, or an object which goes on below."""
    if first.startswith("["):
        return False
    if not first.startswith("{"):
        return True
    try:
        json.loads(first)
    except json.JSONDecodeError as error:
        return error.pos < len(first) and error.msg != "Unterminated string starting at"
    except (ValueError, RecursionError):
        pass
    return True


def _is_whole_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _read_lines(lines: Lines, name: str, start: int) -> Iterator[Row | BadRow]:
    for line in lines:
        if start and (lines.bad or line.strip()):
            start -= 1
            lines.bad.clear()
            continue
        address = f"{name}:{lines.number}"
        if lines.bad:
            yield BadRow(address, "bad_encoding", "; ".join(lines.bad))
            lines.bad.clear()
            continue
        if not line.strip():
            continue
        try:
            values = json.loads(line, parse_constant=read_constant)
        except (ValueError, RecursionError) as error:
            hint = " (a Python dict? write it with json.dumps)" if line.startswith("{'") else ""
            yield BadRow(address, "broken_json", f"broken JSON: {error}{hint}")
            continue
        yield _make_row(address, values)


def _make_row(address: str, values: Any) -> Row | BadRow:
    if isinstance(values, dict):
        return Row(address, values)
    got = type(values).__name__
    return BadRow(address, "broken_json", f"expected a JSON object as a row, got a {got}")


def _read_stream(lines: Lines, name: str, needed: Sequence[str]) -> Iterator[Row | BadRow]:
    cursor = Cursor(lines)
    if cursor.peek() == "[":
        yield from _read_list(cursor, name)
    elif cursor.peek() == "{":
        cursor = yield from _read_objects(cursor, name, needed)
    if cursor.peek():
        raise ValueError(f"{lines.path}:{cursor.line}: broken JSON: text after the end of the rows")


def _take_row(cursor: Cursor, address: str, values: Any) -> Row | BadRow:
    """A row that was just read; a bad one where its letters could not be."""
    if not cursor.lines.bad:
        return _make_row(address, values)
    message = "; ".join(cursor.lines.bad)
    cursor.lines.bad.clear()
    return BadRow(address, "bad_encoding", message)


def _ends(cursor: Cursor, closing: str, what: str) -> bool:
    """Take what stands behind a row: whether it ends the rows. Raises ValueError where it is
    neither `closing` nor a comma."""
    following = cursor.take()
    if following not in (closing, ","):
        there = repr(following) if following else "the end of the file"
        raise ValueError(
            f"{cursor.lines.path}:{cursor.line}: broken JSON: {there} where {what} goes on with "
            f"',' or ends with {closing!r}"
        )
    return following == closing


def _read_list(cursor: Cursor, name: str) -> Iterator[Row | BadRow]:
    """The elements of the list that opens here."""
    cursor.take()
    if cursor.peek() == "]":
        cursor.take()
        return
    while True:
        cursor.peek()
        line = cursor.line
        values = cursor.decode()
        yield _take_row(cursor, f"{name}:{line}", values)
        if _ends(cursor, "]", "a list of rows"):
            return


def _read_objects(
    cursor: Cursor, name: str, needed: Sequence[str]
) -> Generator[Row | BadRow, None, Cursor]:
    """Objects one after the other, each a row; or a single one that holds the rows. Returns the
    cursor that stands behind the last."""
    line = cursor.line
    try:
        values = cursor.decode(at_most=PEEK)
        wrapped = not cursor.peek() and not _is_row(values) and not _holds_list(values, needed)
    except EOFError:
        wrapped = True
    if not wrapped:
        yield _make_row(f"{name}:{line}", values)
        while cursor.peek():
            line = cursor.line
            yield _make_row(f"{name}:{line}", cursor.decode())
        return cursor
    # Read again from the start: the rows inside may be more than memory should hold.
    whole = Cursor(Lines(cursor.lines.path, cursor.lines.encoding))
    yield from _read_wrapped(whole, name, needed)
    return whole


def _is_row(values: dict[str, Any]) -> bool:
    """Whether a file's only object is a row: it holds no list of objects, and not all of it are
    objects or lists, which would be columns."""
    if any(isinstance(v, list) and v and isinstance(v[0], dict) for v in values.values()):
        return False
    return not values or not all(isinstance(v, dict | list) for v in values.values())


def _holds_list(values: dict[str, Any], needed: Sequence[str]) -> bool:
    """Whether one of the columns needed is a list, as the turns of a single conversation are."""
    inside = with_nested(values, needed)
    return any(isinstance(inside.get(name), list) for name in needed)


def _read_wrapped(cursor: Cursor, name: str, needed: Sequence[str]) -> Iterator[Row | BadRow]:
    """The rows of {"version": …, "data": [{…}, …]}: the elements of its one list of objects. Or of
    {"a7": {…}, "b2": {…}}, where the first value has a field that is needed: its values."""
    path = cursor.lines.path
    cursor.take()
    rows_under: str | None = None
    keys = []
    while cursor.peek() not in ("}", ""):
        key = cursor.decode()
        keys.append(str(key))
        _take_colon(cursor, key)
        if cursor.peek() == "[" and _opens_objects(cursor):
            if rows_under is not None:
                raise ValueError(
                    f"{path}: an object with two lists of rows, {rows_under!r} and {key!r}; write "
                    "each to a file of its own"
                )
            rows_under = str(key)
            yield from _read_list(cursor, name)
        else:
            value = cursor.decode()
            if len(keys) == 1 and _is_record(value, needed):
                yield from _read_named(cursor, name, str(key), value)
                return
        if cursor.peek() == ",":
            cursor.take()
    cursor.take()
    if rows_under is None:
        raise ValueError(
            f"{path}: one JSON object that holds no list of rows (its fields: "
            f"{', '.join(keys[:8])}); expected a list of objects, or one object a line (pandas "
            'writes them with df.to_json(path, orient="records", lines=True))'
        )


def _is_record(value: Any, needed: Sequence[str]) -> bool:
    """Whether a value is an object with a field that is needed."""
    names = {name.partition(".")[0] for name in needed} | set(needed)
    return isinstance(value, dict) and not names.isdisjoint(value)


def _read_named(cursor: Cursor, name: str, key: str, value: Any) -> Iterator[Row | BadRow]:
    """The rows of an object whose values are the records, from the first on, which was read; each
    is called by its key."""
    while True:
        yield _take_row(cursor, f"{name}:{key}", value)
        if _ends(cursor, "}", "an object of rows"):
            return
        key = str(cursor.decode())
        _take_colon(cursor, key)
        value = cursor.decode()


def _take_colon(cursor: Cursor, key: Any) -> None:
    if cursor.take() != ":":
        raise ValueError(f"{cursor.lines.path}:{cursor.line}: broken JSON: no ':' behind {key!r}")


def _opens_objects(cursor: Cursor) -> bool:
    """Whether the list that opens here has an object for its first element."""
    at = cursor.at + 1
    while True:
        rest = cursor.text[at:].lstrip()
        if rest:
            return rest.startswith("{")
        before = cursor.at
        if not cursor.more():
            return False
        at -= before
