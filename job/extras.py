"""What is installed only where it is asked for, and the one command that installs it."""

import tomllib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

HOME = Path(__file__).resolve().parent.parent  # the folder of openloop
MODULES = {  # extra -> what it is imported as
    "export": ("onnx", "onnxscript", "onnxruntime"),
    "gguf": ("gguf",),
    "peft": ("peft",),
    "sentences": ("sentence_transformers",),
    "serve": ("fastapi", "uvicorn"),
    "tune": ("optuna",),
}


def read_project() -> dict[str, Any]:
    """What pyproject.toml says of openloop: its version, what it needs."""
    text = (HOME / "pyproject.toml").read_text(encoding="utf-8")
    project: dict[str, Any] = tomllib.loads(text)["project"]
    return project


def install_command(extra: str) -> str:
    """The command that installs an extra of pyproject.toml, in the versions that are tested."""
    words = " ".join(f"'{word}'" for word in read_project()["optional-dependencies"][extra])
    return f"pip install -c {HOME / 'constraints.txt'} {words}"


def need_extra(extra: str, verb: str) -> None:
    """Raise ValueError where a package of an extra is missing that `verb` needs, naming it and the
    command that installs it. Nothing is imported."""
    missing = [name for name in MODULES[extra] if find_spec(name) is None]
    if missing:
        state, it = "which is not installed", "it"
        if len(missing) > 1:
            state, it = "which are not installed", "them"
        raise ValueError(
            f"{verb} needs {', '.join(missing)}, {state}; install {it} with\n"
            f"  {install_command(extra)}"
        )
