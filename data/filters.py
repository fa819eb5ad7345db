"""Row filters: a small, safe expression language over the columns of a table.

    source == "imdb" and (stars >= 4 or stars <= 2) and not language in ["fr", "de"]

Comparisons, `and`, `or`, `not`, `in`, literals and column names; a column whose name is no Python
name is written row["Review Text"]. Python's own parser reads it, nothing of it is ever executed.
"""

import ast
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Values = Mapping[str, Any]
Part = Callable[[Values], Any]

ORDER: dict[type, Callable[[Any, Any], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}


@dataclass(frozen=True)
class Filter:
    """`keep(values)` says whether a row stays; `columns` are the columns it looks at.

    `keep` raises ValueError where a row's value cannot be compared (text against a number), and
    KeyError where the row lacks a column.
    """

    columns: tuple[str, ...]
    keep: Callable[[Values], bool]


def parse_filter(expression: str) -> Filter:
    """Read a filter expression. Raises ValueError, naming the part that is not understood."""
    try:
        tree = ast.parse(expression.strip(), mode="eval")
    except (SyntaxError, ValueError) as error:
        raise ValueError(
            f"data.filter: {expression!r} cannot be read ({error}); expected something like "
            'source == "imdb" and stars >= 4; a column whose name Python does not read as one, '
            'such as class, is written row["class"]'
        ) from None
    columns: dict[str, None] = {}
    part = _compile(tree.body, columns, expression)
    if not columns:
        raise ValueError(f"data.filter: {expression!r} names no column")
    return Filter(tuple(columns), lambda values: bool(part(values)))


def _compile(node: ast.expr, columns: dict[str, None], expression: str) -> Part:
    """Turn one node into a function of the row; column names met on the way land in `columns`."""
    match node:
        case ast.BoolOp(op=op, values=nodes):
            parts = [_compile(n, columns, expression) for n in nodes]
            if isinstance(op, ast.And):
                return lambda values: all(part(values) for part in parts)
            return lambda values: any(part(values) for part in parts)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            inner = _compile(operand, columns, expression)
            return lambda values: not inner(values)
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
            return lambda values: -number
        case ast.Compare(left=left, ops=ops, comparators=comparators):
            parts = [_compile(n, columns, expression) for n in [left, *comparators]]
            tests = [_comparison(op) for op in ops]
            return lambda values: all(
                test(parts[i](values), parts[i + 1](values)) for i, test in enumerate(tests)
            )
        case ast.List(elts=elements) | ast.Tuple(elts=elements) | ast.Set(elts=elements):
            parts = [_compile(n, columns, expression) for n in elements]
            return lambda values: [part(values) for part in parts]
        case ast.Constant(value=str() | int() | float() | None as literal):
            return lambda values: literal
        case ast.Name(id=name):
            columns[name] = None
            return operator.itemgetter(name)
        case ast.Attribute() if (dotted := _dotted_name(node)) is not None:
            columns[dotted] = None
            return operator.itemgetter(dotted)
        case ast.Subscript(value=ast.Name(id="row"), slice=ast.Constant(value=str() as name)):
            columns[name] = None
            return operator.itemgetter(name)
    got = ast.get_source_segment(expression.strip(), node) or type(node).__name__
    raise ValueError(
        f"data.filter: {got!r} in {expression!r} is not understood; a filter is made of column "
        'names, row["column name"], literals, comparisons, in, and, or, not'
    )


def _dotted_name(node: ast.expr) -> str | None:
    """ "review.stars": a name of nested fields."""
    if isinstance(node, ast.Attribute):
        inner = _dotted_name(node.value)
        return None if inner is None else f"{inner}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else None


def _comparison(op: ast.cmpop) -> Callable[[Any, Any], bool]:
    if isinstance(op, ast.Eq):
        return _equal
    if isinstance(op, ast.NotEq):
        return lambda a, b: not _equal(a, b)
    if isinstance(op, ast.In):
        return _contains
    if isinstance(op, ast.NotIn):
        return lambda a, b: not _contains(a, b)
    if type(op) in ORDER:
        test = ORDER[type(op)]
        return lambda a, b: _ordered(test, a, b)
    raise ValueError(f"data.filter: {type(op).__name__} is not understood; use == or !=")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{text[:40]!r} is compared with a number, and is none") from None


def _equal(a: Any, b: Any) -> bool:
    """Equality; the columns of a CSV are text, so a number, True and False equal the text that
    spells them. A value that is missing, as an empty cell of a CSV is, equals the empty text in
    every format."""
    if a == "" or b == "":
        a, b = ("" if value is None or value != value else value for value in (a, b))
    if isinstance(a, str):
        a, b = b, a
    if isinstance(a, bool) and isinstance(b, str):
        return str(a).lower() == b.strip().lower()
    if _is_number(a) and isinstance(b, str):
        try:
            return bool(a == float(b))
        except ValueError:
            return False
    return bool(a == b)


def _ordered(test: Callable[[Any, Any], bool], a: Any, b: Any) -> bool:
    if isinstance(a, str) and _is_number(b):
        a = _number(a)
    elif _is_number(a) and isinstance(b, str):
        b = _number(b)
    try:
        return test(a, b)
    except TypeError:
        raise ValueError(f"{a!r} and {b!r} cannot be ordered by the filter") from None


def _contains(item: Any, container: Any) -> bool:
    if isinstance(container, str):
        return str(item) in container  # "good" in text
    if isinstance(container, list):
        return any(_equal(item, other) for other in container)
    raise ValueError(f"{container!r} is neither a list nor a text, and the filter looks in it")
