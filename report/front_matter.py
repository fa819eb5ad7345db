"""The front matter of a model card: plain values as YAML that a hub reads.

Texts are written as JSON writes them, which YAML reads as the same text, whatever stands in it.
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
    return json.dumps(value, ensure_ascii=True)
