"""The front matter of a model card: plain values as YAML that a hub reads.

Texts are written in double quotes, with escapes for what does not print: whatever stands in one, a
reader of YAML gets it back. Numbers are finite.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any


def front_matter(values: Mapping[str, Any]) -> str:
    """`values` between two lines of dashes; keys without a value are left out."""
    return "\n".join(["---", *yaml_lines(values), "---"]) + "\n"


def yaml_lines(values: Mapping[str, Any], indent: str = "") -> list[str]:
    """A line for each key, those of what it holds below it. None and empty values are left out."""
    lines: list[str] = []
    for key, value in values.items():
        if value is None or value in ("", [], (), {}):
            continue
        if isinstance(value, Mapping):
            lines += [f"{indent}{key}:", *yaml_lines(value, indent + "  ")]
        elif isinstance(value, Sequence) and not isinstance(value, str):
            lines += [f"{indent}{key}:", *_items(value, indent)]
        else:
            lines.append(f"{indent}{key}: {_scalar(value)}")
    return lines


def _items(values: Sequence[Any], indent: str) -> list[str]:
    lines = []
    for value in values:
        if isinstance(value, Mapping):
            first, *rest = yaml_lines(value, indent + "  ")
            lines += [f"{indent}- {first.strip()}", *rest]
        else:
            lines.append(f"{indent}- {_scalar(value)}")
    return lines


def _scalar(value: str | float | bool) -> str:
    """A value as YAML 1.1 and 1.2 read it alike."""
    if isinstance(value, str):
        text = json.dumps(value, ensure_ascii=False)
        return "".join(c if c.isprintable() else _escape(ord(c)) for c in text)
    text = json.dumps(value)
    mantissa, e, exponent = text.partition("e")
    whole = isinstance(value, float) and e and "." not in mantissa  # 1e-05 would be a text
    return f"{mantissa}.0{e}{exponent}" if whole else text


def _escape(point: int) -> str:
    return f"\\u{point:04x}" if point <= 0xFFFF else f"\\U{point:08x}"
