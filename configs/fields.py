"""All settings as one flat table, taken from the schema: key path -> what it allows and means.

Errors, overrides and the reference all read this table, so that a field is described once,
in schema.py.
"""

import difflib
import json
from dataclasses import dataclass
from functools import cache
from typing import Any

from configs.schema import Config


@dataclass(frozen=True)
class Setting:
    key: str  # dotted: "train.lr"
    shape: dict[str, Any]  # its JSON schema
    required: bool

    @property
    def section(self) -> str:
        return self.key.rpartition(".")[0]

    @property
    def sentence(self) -> str:
        return self.shape["description"]

    @property
    def trajectory(self) -> bool:
        return self.shape["trajectory"]

    @property
    def default(self) -> Any:
        return self.shape.get("default")

    @property
    def allowed(self) -> str:
        return describe(self.shape)

    @property
    def kinds(self) -> set[str]:
        """JSON types a value may have: {"number"}, {"string", "array"}, ..."""
        return kinds_of(self.shape)


@cache
def list_settings() -> dict[str, Setting]:
    """Every setting by its dotted key, in the schema's order; inner sections after the outer."""
    schema = Config.model_json_schema()
    settings: dict[str, Setting] = {}

    def walk(section: dict[str, Any], prefix: str) -> None:
        for name, shape in sorted(section["properties"].items(), key=lambda item: _rank(item[1])):
            inner = _section_of(shape)
            if inner is not None:
                walk(schema["$defs"][inner], f"{prefix}{name}.")
            else:
                required = name in section.get("required", [])
                settings[prefix + name] = Setting(prefix + name, shape, required)

    walk(schema, "")
    return settings


@cache
def list_sections() -> tuple[str, ...]:
    """Names of the sections, each before those inside it: ..., "data", "data.clean", ..."""
    names: dict[str, None] = {}
    for key in list_settings():
        parts = key.split(".")[:-1]
        for depth in range(len(parts)):
            names[".".join(parts[: depth + 1])] = None
    return tuple(names)


@cache
def optional_sections() -> tuple[str, ...]:
    """Sections that a recipe has or has not, and that mean something by being there, as the tables
    of the methods do."""
    return tuple(name for name, field in Config.model_fields.items() if field.default is None)


def begins(key: str, prefix: str) -> bool:
    """Is `key` the dotted `prefix`, or something inside it?"""
    return f"{key}.".startswith(f"{prefix}.")


def first_key(section: str) -> str:
    return next(key for key in list_settings() if begins(key, section))


# What other trainers call things: spelled right, so likeness alone would not find ours.
_OTHER_NAMES = {
    "learning_rate": "train.lr",
    "batch_size": "train.micro_batch_size",
    "per_device_train_batch_size": "train.micro_batch_size",
    "gradient_accumulation_steps": "train.accumulate",
    "r": "lora.rank",
    "target_modules": "lora.targets",
}


def explain_unknown(key: str, is_table: bool = False) -> str:
    """Says that there is no such key or section, and which one is most like it.

    The last name counts most, so that train.rank finds lora.rank; the section counts a little.
    """
    top_section = is_table and "." not in key
    word = "section" if top_section else "key"
    keys = [] if top_section else list(list_settings())
    known = [*list_sections(), *keys] if is_table else keys
    last = key.rpartition(".")[2]

    def likeness(candidate: str) -> float:
        names = difflib.SequenceMatcher(None, last, candidate.rpartition(".")[2]).ratio()
        return names + 0.2 * difflib.SequenceMatcher(None, key, candidate).ratio()

    near = max(known, key=likeness)
    if not is_table and not key.startswith("eval."):
        near = _OTHER_NAMES.get(last, near)
    return f"unknown {word}; the nearest is {near}"


def _rank(shape: dict[str, Any]) -> int:
    """Settings of a section come first, then the sections inside it, then lists of tables."""
    if "$ref" in shape.get("items", {}):
        return 2
    return 0 if _section_of(shape) is None else 1


def _section_of(shape: dict[str, Any]) -> str | None:
    for option in shape.get("anyOf", [shape]):
        if "$ref" in option:
            return option["$ref"].rpartition("/")[2]
    return None


def kinds_of(shape: dict[str, Any]) -> set[str]:
    """The JSON types a schema admits, "null" left out."""
    if "anyOf" in shape:
        return set().union(*(kinds_of(option) for option in shape["anyOf"]))
    return {shape["type"]} - {"null"}


def describe(shape: dict[str, Any]) -> str:
    """What a schema admits, in words: 'number above 0', '"epoch" or integer from 1'."""
    if "allowed" in shape:
        return shape["allowed"]
    if "anyOf" in shape:
        options = [option for option in shape["anyOf"] if option.get("type") != "null"]
        return " or ".join(describe(option) for option in options)
    if "enum" in shape or "const" in shape:
        words = [json.dumps(word) for word in shape.get("enum", [shape.get("const")])]
        return " or ".join([", ".join(words[:-1]), words[-1]] if words[1:] else words)
    return _DESCRIBE[shape["type"]](shape)


def _describe_number(shape: dict[str, Any]) -> str:
    words = [shape["type"]]
    words += [f"above {shape['exclusiveMinimum']}"] if "exclusiveMinimum" in shape else []
    words += [f"from {shape['minimum']}"] if "minimum" in shape else []
    words += [f"below {shape['exclusiveMaximum']}"] if "exclusiveMaximum" in shape else []
    words += [f"up to {shape['maximum']}"] if "maximum" in shape else []
    return " ".join(words)


def _describe_list(shape: dict[str, Any]) -> str:
    least, most = shape.get("minItems", 0), shape.get("maxItems")
    count = f"{least} " if least == most else f"{least} or more " if least > 1 else ""
    count = f"{least} to {most} " if most and most != least else count
    item = describe(shape["items"])
    return f"list of {count}" + (f"({item})" if count or " " in item else item)


def _describe_table(shape: dict[str, Any]) -> str:
    keys = shape.get("propertyNames", {}).get("enum", ["NAME"])
    return f"table {{{' / '.join(keys)} = {describe(shape['additionalProperties'])}}}"


_DESCRIBE = {
    "string": lambda shape: "text",
    "boolean": lambda shape: "true or false",
    "integer": _describe_number,
    "number": _describe_number,
    "array": _describe_list,
    "object": _describe_table,
}
