"""A user's own code in files of theirs, named as "my_file.py:MyClass": heads, methods, losses.

Such a file is run, so it needs --allow-code. What ran is kept as bytes and travels with the model.
Nothing here loads torch.
"""

import difflib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from files.errors import meets_limit
from files.verify import sha256

# in a model folder the copies of a user's own files, beside the weights they made
HEAD_CODE, METHOD_CODE = "head_code.py", "method_code.py"


def code_file(name: str) -> Path | None:
    """The user's file in "my_file.py:MyClass"; None for a name of ours."""
    path, colon, _ = name.rpartition(":")
    return Path(path) if colon and path.endswith(".py") else None


def describe_code(name: str | None) -> dict[str, str] | None:
    """Class name and sha256 of the user's own file; None for a name of ours."""
    file = code_file(name or "")
    if file is None or name is None:
        return None
    return {"class": name.rpartition(":")[2], "sha256": sha256(file)}


def check_allowed(setting: str, name: str, allow_code: bool) -> None:
    """Raises ValueError where `name` is a user's own file and code is not allowed."""
    path = code_file(name)
    if path is not None and not allow_code:
        raise ValueError(
            f"{setting} {name!r} runs the code in {path}; allow it with --allow-code, in Python "
            "allow_code=True"
        )


def run_file(setting: str, name: str) -> ModuleType:
    """The file of "my_file.py:name", run: ask check_allowed before.

    Raises ValueError for a missing file, and for what its code raises.
    """
    path = code_file(name)
    assert path is not None
    if not path.is_file():
        raise ValueError(f"{setting} {name!r}: there is no file {path}")
    code = path.read_bytes()
    spec = importlib.util.spec_from_file_location(f"code_{sha256(path)[:12]}", path)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    module.code = code  # type: ignore[attr-defined]  # for the export: the file may change
    sys.modules[spec.name] = module  # dataclasses in the file look their module up
    with telling_place(f"{setting} {name!r}", path):
        exec(compile(code, path, "exec"), vars(module))
    return module


def load_class(setting: str, name: str, parent: type) -> type:
    """The class that "my_file.py:MyClass" names, by running the file. Raises ValueError as run_file
    does, and where it has no class of that name below `parent`."""
    module, title = run_file(setting, name), name.rpartition(":")[2]
    loaded = getattr(module, title, None)
    if not (isinstance(loaded, type) and issubclass(loaded, parent)):
        classes = [n for n, v in defined_in(module).items() if isinstance(v, type)]
        kind = "nn.Module" if parent.__name__ == "Module" else parent.__name__
        raise ValueError(
            f"{setting} {name!r}: {code_file(name)} has no {kind} class {title!r}; "
            f"its classes are {', '.join(classes) or 'none'}"
        )
    return loaded


def load_function(setting: str, name: str) -> Callable[..., Any]:
    """The function that "my_file.py:my_function" names, likewise."""
    module, title = run_file(setting, name), name.rpartition(":")[2]
    function = getattr(module, title, None)
    if isinstance(function, type) or not callable(function):
        here = [n for n, v in defined_in(module).items() if inspect.isfunction(v)]
        raise ValueError(
            f"{setting} {name!r}: {code_file(name)} has no function {title!r}; "
            f"its functions are {', '.join(here) or 'none'}"
        )
    return function


def defined_in(module: ModuleType) -> dict[str, Any]:
    """What a file itself defines, and does not import."""
    named = vars(module).items()
    return {n: v for n, v in named if getattr(v, "__module__", None) == module.__name__}


def check_arguments(
    title: str, takes: Mapping[str, inspect.Parameter], words: Collection[str], table: str,
    advice: Mapping[str, str],
) -> None:  # fmt: skip
    """Raises ValueError for an argument that a user's class does not take, naming the nearest it
    does, and for one that it needs. `table` is where a recipe gives them, `advice` what to do about
    some of them."""
    for name in words:
        if name not in takes:
            near = difflib.get_close_matches(name, takes, n=1)
            raise ValueError(
                f"{title} takes no argument {name!r} ({table}); "
                + (f"did you mean {near[0]!r}? " if near else "")
                + f"it takes {', '.join(takes) or 'none of its own'}"
                + advice.get(name, "")
            )
    missing = [n for n, p in takes.items() if p.default is p.empty and n not in words]
    if missing:
        raise ValueError(f"{title} needs {', '.join(missing)}: give them in {table}")


def code_that_ran(cls: type) -> bytes:
    """The bytes of the file that defined a class of load_class, whatever it holds by now."""
    return sys.modules[cls.__module__].code


@contextmanager
def telling_place(what: str, path: Path) -> Iterator[None]:
    """Whatever the user's own code in this file raises becomes a ValueError: `what`, the place."""
    try:
        yield
    except Exception as error:
        if meets_limit(error):
            raise
        raise ValueError(f"{what}: {where_raised(error, path)}") from error


def where_raised(error: Exception, path: Path) -> str:
    """An error of the user's own code as one line: file, line, kind and message."""
    line = getattr(error, "lineno", None)  # of a SyntaxError
    for frame in traceback.extract_tb(error.__traceback__):
        if frame.filename == str(path):
            line = frame.lineno
    return f"{path}:{line}: {type(error).__name__}: {error}"
