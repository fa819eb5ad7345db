"""A user's own classes in files of theirs, named as "my_file.py:MyClass": heads, LoRA variants.

Such a file is run, so it needs --allow-code. What ran is kept as bytes and travels with the model.
"""

import importlib.util
import sys
import traceback
from pathlib import Path

from torch import nn

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


def load_class(setting: str, name: str, parent: type[nn.Module]) -> type[nn.Module]:
    """The class that "my_file.py:MyClass" names, by running the file: ask check_allowed before.

    Raises ValueError for a missing file, for what its code raises, and where it has no class of
    that name below `parent`.
    """
    path, title = code_file(name), name.rpartition(":")[2]
    assert path is not None
    if not path.is_file():
        raise ValueError(f"{setting} {name!r}: there is no file {path}")
    code = path.read_bytes()
    spec = importlib.util.spec_from_file_location(f"code_{sha256(path)[:12]}", path)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    module.code = code  # type: ignore[attr-defined]  # for the export: the file may change
    sys.modules[spec.name] = module  # dataclasses in the file look their module up
    try:
        exec(compile(code, path, "exec"), vars(module))
    except Exception as error:  # whatever the user's own code raises
        if meets_limit(error):
            raise
        raise ValueError(f"{setting} {name!r}: {where_raised(error, path)}") from error
    found = getattr(module, title, None)
    if not (isinstance(found, type) and issubclass(found, parent)):
        classes = [
            n
            for n, v in vars(module).items()
            if isinstance(v, type) and v.__module__ == module.__name__
        ]
        kind = "nn.Module" if parent is nn.Module else parent.__name__
        raise ValueError(
            f"{setting} {name!r}: {path} has no {kind} class {title!r}; "
            f"its classes are {', '.join(classes) or 'none'}"
        )
    return found


def code_that_ran(cls: type) -> bytes:
    """The bytes of the file that defined a class of load_class, whatever it holds by now."""
    return sys.modules[cls.__module__].code


def where_raised(error: Exception, path: Path) -> str:
    """An error of the user's own code as one line: file, line, kind and message."""
    line = getattr(error, "lineno", None)  # of a SyntaxError
    for frame in traceback.extract_tb(error.__traceback__):
        if frame.filename == str(path):
            line = frame.lineno
    return f"{path}:{line}: {type(error).__name__}: {error}"
