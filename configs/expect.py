"""What a model is expected to answer: a table [[expect]] of a recipe, or a line of a file."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from configs.fields import describe
from configs.relations_eval import fault_of
from configs.schema import Expect


def parse_expectation(values: Any, origin: str) -> Expect:
    """An expectation from its keys, as in [[expect]]. Raises ValueError, beginning with `origin`,
    for the first key that is wrong."""
    try:
        one = Expect.model_validate(values)
    except ValidationError as error:
        reason = explain_fault(error.errors(include_url=False)[0]["loc"], values)
        raise ValueError(f"{origin}: {reason}") from None
    if fault := fault_of(values):
        raise ValueError(f"{origin}: {fault}")
    return one


def explain_fault(path: tuple[int | str, ...] | list[str], values: Any) -> str:
    """What is wrong with the key at `path` inside an expectation's keys."""
    shapes = Expect.model_json_schema()["properties"]
    if not path or not isinstance(values, Mapping):
        return f"got {values!r:.80}; allowed: a table of {', '.join(shapes)}"
    name = str(path[0])
    if strange := next((key for key in values if key not in shapes), ""):  # why another is missing
        return f"unknown key {strange!r}; allowed: {', '.join(shapes)}"
    if name not in values:
        return f"{name} is missing"
    return f"{name}: got {values[name]!r:.80}; allowed: {describe(shapes[name])}"
