"""Overrides of a config from the command line: KEY=VALUE, and --unset KEY.

What VALUE means depends on the setting: text stays as it is typed, everything else is TOML.
"""

import tomllib
from typing import Any

from configs.fields import (
    Setting,
    explain_unknown,
    first_key,
    kinds_of,
    list_sections,
    list_settings,
)

_EXAMPLES = {
    "number": "0.001",
    "integer": "3",
    "boolean": "true",
    "array": '["a", "b"] (in a shell: \'KEY=["a", "b"]\')',
    "object": "{a = 1, b = 2} (in a shell: 'KEY={a = 1, b = 2}')",
}


def remove_key(values: dict[str, Any], key: str, problems: dict[str, str]) -> None:
    """Take a section or key out of `values`; one that is known but not there is as wanted."""
    if key not in list_sections() and _setting_of(key) is None:
        problems[f"--unset {key}"] = explain_unknown(key, is_table=True)
        return
    *parents, name = key.split(".")
    for parent in parents:
        values = values.get(parent, {})
        if not isinstance(values, dict):
            return
    values.pop(name, None)


def apply_override(values: dict[str, Any], override: str, problems: dict[str, str]) -> None:
    """Set one KEY=VALUE in `values`, making its section where there is none."""
    key, equals, text = (part.strip() for part in override.partition("="))
    setting = _setting_of(key)
    if not equals:
        problems[f"override {override!r}"] = "write it KEY=VALUE, for example train.lr=3e-4"
    elif key in list_sections():
        problems[f"override {override!r}"] = (
            f"{key} is a section; set its keys one by one, for example {first_key(key)}=..."
        )
    elif setting is None:
        problems[key] = f"{explain_unknown(key)}; got {text}"
    else:
        try:
            value = parse_text(text, kinds_of(_shape_of(key, setting)))
        except ValueError as error:
            problems[key] = f"got {text}, {error}; allowed: {setting.allowed}"
            return
        *parents, name = key.split(".")
        for parent in parents:
            if not isinstance(values.get(parent), dict):
                values[parent] = {}
            values = values[parent]
        values[name] = value


def parse_text(text: str, kinds: set[str]) -> Any:
    """The value that `text` spells for a setting that takes `kinds` (JSON types).

    Where only text is taken it is the text as it is, quoted or not. Where text is one of several,
    "..." is text, [ and { begin TOML, a number or true is itself where the setting takes such,
    and anything else is text. Elsewhere it is TOML. Raises ValueError saying how to write it.
    """
    value = _toml_value(text)
    if "string" in kinds:
        if text[:1] in ("'", '"') and isinstance(value, str):
            return value
        if text[:1] in ("[", "{") and kinds & {"array", "object"}:
            if value is None:
                raise ValueError(
                    f"which is not TOML: write it like {_EXAMPLES['array']}, or put text in quotes"
                )
            return value
        if value is not None and kinds & {"integer", "number", "boolean"}:
            return value
        return text
    if value is None:
        examples = " or ".join(_EXAMPLES[kind] for kind in sorted(kinds))
        raise ValueError(f"which is not TOML: write it like {examples}")
    return value


def _toml_value(text: str) -> Any:
    """The one TOML value that `text` spells, or None (TOML itself has no null)."""
    try:
        table = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return None
    return table["value"] if len(table) == 1 else None


def _setting_of(key: str) -> Setting | None:
    """The setting of that key, or the table setting that the key is an entry of."""
    settings = list_settings()
    table = settings.get(key.rpartition(".")[0])
    return settings.get(key) or (table if table and "object" in table.kinds else None)


def _shape_of(key: str, setting: Setting) -> dict[str, Any]:
    """The JSON schema of the value at `key`: the setting's, or that of its table's entries."""
    if key == setting.key:
        return setting.shape
    options = setting.shape.get("anyOf", [setting.shape])
    return next(o for o in options if o.get("type") == "object")["additionalProperties"]
