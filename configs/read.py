"""From a TOML file and overrides to a Config, with all errors at once.

    read_config(Path("configs/imdb_lora.toml"), ["train.lr=3e-4"], unset=["lora"])

The way of a value: file -> --unset -> overrides -> field by field -> relations. Nothing stops at
the first error: each key is reported once, and a relation speaks wherever its keys are valid.
Nothing heavy is imported here, so that a typo is answered at once.
"""

import copy
import difflib
import json
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import ValidationError

from configs.expect import explain_fault
from configs.fields import (
    begins,
    explain_unknown,
    first_key,
    list_sections,
    list_settings,
    optional_sections,
)
from configs.overrides import apply_override, remove_key
from configs.relations import broken_relations
from configs.schema import Config
from files.read import MOST_DEPTH, depth
from files.write import save_text

MANY_PARTS = re.compile(r"""(?<![\w-])(?:(?:[\w-]+|"[^"\n]*"|'[^'\n]*')[ \t]*\.[ \t]*){64}""")
Values = dict[str, Any]  # as tomllib gives them: sections of keys
Problems = dict[str, str]  # key path -> message; the first word about a key stands


class ConfigError(ValueError):
    """Everything wrong with a config, one line a key: path, what was got, what is allowed."""


class NoTomlError(ConfigError):
    """There is no file, or what it holds is no TOML: no key of it can be spoken of."""


def read_config(
    path: str | Path | None, overrides: Sequence[str] = (), unset: Sequence[str] = ()
) -> Config:
    """Read a TOML file (None: start from nothing), drop `unset`, apply "key=value" overrides.

    Raises ConfigError naming every key that is wrong, or where the file is not TOML.
    """
    values = {} if path is None else read_toml(Path(path))
    return parse_config(values, "the settings" if path is None else str(path), overrides, unset)


def parse_config(
    values: Values,
    origin: str = "the settings",
    overrides: Sequence[str] = (),
    unset: Sequence[str] = (),
) -> Config:
    """A Config from nested tables such as {"run": {"name": "x"}, ...}; errors as read_config."""
    values = copy.deepcopy(values)
    problems: Problems = {}
    for key in unset:
        remove_key(values, key, problems)
    for override in overrides:
        apply_override(values, override, problems)
    return _build(values, problems, origin)


def read_toml(path: Path) -> Values:
    """The tables of a TOML file. Raises NoTomlError, which names the nearest file, or line and
    column; ConfigError where the file is there and cannot be read."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
        if MANY_PARTS.search(text):  # whose reading takes time with the square of them
            raise RecursionError
        values = tomllib.loads(text)
        if depth(values) > MOST_DEPTH:
            raise RecursionError
        return values
    except UnicodeDecodeError as error:
        place = _place(error.object[: error.start].decode("utf-8"))
        raise NoTomlError(f"{path}, {place}: this byte is not UTF-8; save it as UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        reason, _, position = str(error).partition(" (at ")
        place = _place(text) if "end of document" in position else position.rstrip(")")
        raise NoTomlError(f"{path}, {place}: not TOML: {reason}") from None
    except RecursionError:
        raise NoTomlError(f"{path}: not read: its keys or values are nested too deep") from None
    except ValueError as error:  # a number of thousands of digits
        raise NoTomlError(f"{path}: not TOML: {error}") from None
    except FileNotFoundError as error:
        raise NoTomlError(f"{path}: {_explain_missing(path, error)}") from None
    except OSError as error:
        raise ConfigError(f"{path}: {_explain_missing(path, error)}") from None


def _place(text_before: str) -> str:
    lines = text_before.split("\n")
    return f"line {len(lines)}, column {len(lines[-1]) + 1}"


def _explain_missing(path: Path, error: OSError) -> str:
    if path.exists():
        return f"cannot be read as a file: {error.strerror}"
    if not path.parent.is_dir():
        return f"there is no folder {path.parent}"
    names = sorted(entry.name for entry in path.parent.iterdir() if entry.suffix == ".toml")
    near = difflib.get_close_matches(path.name, names, n=1, cutoff=0.0)
    return "there is no such file" + (f"; the nearest is {path.parent / near[0]}" if near else "")


# ---- checking --------------------------------------------------------------------------------


def _build(values: Values, problems: Problems, origin: str) -> Config:
    _check_sections(values, problems)
    student = _look_up(values, "distill.student")
    if student == "ngrams":  # which starts from nothing
        values["model"].setdefault("source", "ngrams")
    elif student:  # from layers of the teacher, which is missed by its own key
        values["model"].setdefault("source", _look_up(values, "distill.teacher") or "of it")
    config = None
    try:
        config = Config.model_validate(values)
    except ValidationError as error:
        for item in error.errors(include_url=False):
            _report(item["type"], [str(part) for part in item["loc"]], values, problems)
    messages = [f"{key}: {message}" for key, message in problems.items()]
    messages += broken_relations(_valid_settings(values, problems))
    if messages or config is None:
        count = "1 error" if len(messages) == 1 else f"{len(messages)} errors"
        raise ConfigError("\n  ".join([f"{origin}: {count}", *messages]))
    return config


def check_as_bag(config: Config) -> None:
    """Raise ConfigError where settings do not go with a model.source that turned out to be a bag of
    n-grams: by the rules for model.source = "ngrams"."""
    settings = _valid_settings(config.model_dump(exclude_none=True), {})
    if messages := broken_relations({**settings, "ngrams": True}):
        raise ConfigError("\n".join(messages))


def _check_sections(values: Values, problems: Problems) -> None:
    """Every section but the optional one is there, and is a table."""
    for section in list_sections():
        parent, (*outer, name) = values, section.split(".")
        for part in outer:
            parent = parent[part]
        if name in parent and not isinstance(parent[name], dict):
            got, example = _show(parent.pop(name)), first_key(section)
            problems[section] = f"got {got}; allowed: a section [{section}], as in {example}"
        if section not in optional_sections():
            parent.setdefault(name, {})


def _report(kind: str, path: list[str], values: Values, problems: Problems) -> None:
    """Put one finding of pydantic in our words; several about one key are one."""
    key = ".".join(path)
    if path[0] == "expect" and len(path) > 1:  # its tables have no keys of their own among settings
        number = int(path[1])
        fault = explain_fault(path[2:], values["expect"][number])
        problems.setdefault("expect", f"table {number + 1}: {fault}")
        return
    if kind == "extra_forbidden":
        got = _look_up(values, key)
        problems.setdefault(key, f"{explain_unknown(key, isinstance(got, dict))}; got {_show(got)}")
        return
    setting = next(s for s in list_settings().values() if begins(key, s.key))
    if any(begins(setting.key, told) for told in problems):
        return  # its section, or the override that meant to set it, is reported already
    if kind == "missing" and setting.required and key == setting.key:
        message = f"missing; allowed: {setting.allowed}. {setting.sentence}"
    else:
        message = f"got {_show(_look_up(values, setting.key))}; allowed: {setting.allowed}"
    problems[setting.key] = message


def _valid_settings(values: Values, problems: Problems) -> dict[str, Any]:
    """Flat settings, defaults filled in, without those that `problems` speak of."""
    valid: dict[str, Any] = {name: name in values for name in optional_sections()}
    for key, setting in list_settings().items():
        wrong = any(begins(key, told) or begins(told, key) for told in problems)
        if not wrong:
            valid[key] = _look_up(values, key, setting.default)
    valid["ngrams"] = valid.get("model.source") == "ngrams"
    return valid


def _look_up(values: Values, key: str, default: Any = None) -> Any:
    for part in key.split("."):
        if part not in values:
            return default
        values = values[part]
    return values


def _show(value: Any) -> str:
    """A value as it would stand in JSON, cut to a line."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else f"{text[:77]}..."


# ---- writing and comparing -------------------------------------------------------------------


def write_config(config: Config, path: Path) -> None:
    """Write every setting, defaults included; read_config gives back an equal Config. A file that
    holds this already is left alone."""
    text = tomli_w.dumps(config.model_dump(exclude_none=True))
    save_text(path, f"# Every setting of this run, defaults included.\n{text}")


def trajectory(config: Config) -> dict[str, Any]:
    """The settings that decide what is trained and measured: dotted key -> JSON value."""
    known = list_settings()
    return {key: value for key, value in all_settings(config).items() if known[key].trajectory}


def all_settings(config: Config) -> dict[str, Any]:
    """Every setting, but those of sections that a recipe may lack and lacks: dotted key -> JSON
    value."""
    values = config.model_dump(exclude_none=True)
    absent = [name for name in optional_sections() if name not in values]
    keys = (key for key in list_settings() if not any(begins(key, name) for name in absent))
    return {key: _look_up(values, key) for key in keys}


def difference(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Lines "train.lr: 0.001 -> 0.0003" for what differs between two trajectories.

    A key that is missing and one that is not set are the same.
    """

    def word(value: Any) -> str:
        return "not set" if value is None else _show(value)

    keys = [*old, *(key for key in new if key not in old)]
    return [
        f"{key}: {word(old.get(key))} -> {word(new.get(key))}"
        for key in keys
        if old.get(key) != new.get(key)
    ]
