"""The rules that a test can read: which way imports go, and how long things may get."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import shipped
from shipped import list_shipped

ROOT = Path(__file__).parent.parent
PACKAGES = ("configs", "data", "engine", "files", "job", "models", "report")
ENTRIES = (
    "openloop",
    "train",
    "predict",
    "serve",
    "compare",
    "check",
)  # files that know all packages
MAY_IMPORT = {entry: {*PACKAGES, "openloop"} for entry in ENTRIES}
MAY_IMPORT |= {package: {"files"} for package in PACKAGES}
MAY_IMPORT["files"] = set()
MAY_IMPORT["examples"] = {*PACKAGES, "openloop"}  # programs of a user's, who may import all
MAY_IMPORT["job"] = set(PACKAGES)
NO_SOURCE = {"benchmarks", "build", "dist", "docs", "runs", "tests"}  # folders outside these rules

# package -> what it may import besides the standard library and itself
THIRD_PARTY = {
    "configs": {"pydantic", "tomli_w"},
    "data": {
        "charset_normalizer",
        "datasets",
        "jinja2",  # whose errors templates raise; transformers' own dependency
        "numpy",
        "openpyxl",
        "pyarrow",
        "tokenizers",
        "torch",
        "transformers",
    },
    "engine": {"PIL", "numpy", "safetensors", "tensorboard", "torch", "tqdm"},
    "files": set(),
    "job": {"numpy", "torch", "tqdm"},
    "models": {"huggingface_hub", "numpy", "safetensors", "torch", "transformers"},
    "report": {"jinja2"},  # which torch brings
}
EXTRAS = {  # (file, package): each extra is imported in few files, and only when it is asked for
    ("job/testing/baseline.py", "sklearn"),
    ("job/checking/labels.py", "sklearn"),
    ("job/checking/labels.py", "cleanlab"),
    ("data/checks/near.py", "datasketch"),
    ("job/serving/app.py", "fastapi"),
    ("job/serving/app.py", "starlette"),  # fastapi is made of it
    ("job/serving/listen.py", "uvicorn"),
}
RUN_TIME = {"datasets", "numpy", "pydantic", "safetensors", "tensorboard", "tomli_w", "torch"}
RUN_TIME |= {"tqdm", "transformers"}
PICKLES = {"cloudpickle", "dill", "joblib", "marshal", "pickle", "shelve"}  # code in disguise

BATCH_WAY = (  # the files that one batch passes, in order
    "data/encode.py",
    "data/loaders.py",
    "engine/feed.py",
    "engine/loop.py",
    "models/methods/lora_layers.py",
    "models/heads.py",
    "engine/losses.py",
    "engine/optim.py",
)
DECLARATIVE = {"configs/schema.py"}  # one entry after the other, read by looking one up
MOST_FUNCTION_LINES, MOST_FILE_LINES, MOST_BATCH_WAY_LINES = 60, 300, 1500


def list_sources() -> list[str]:
    """Paths from the repository's root: the entries, then every file of every package."""
    paths = [f"{entry}.py" for entry in ENTRIES if (ROOT / f"{entry}.py").exists()]
    for package in PACKAGES:
        paths += sorted(
            path.relative_to(ROOT).as_posix() for path in (ROOT / package).rglob("*.py")
        )
    paths += [path.relative_to(ROOT).as_posix() for path in list_shipped("examples/*.py")]
    return paths


SOURCES = list_sources()


def read(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def find_imports(path: str, source: str) -> list[tuple[int, str]]:
    """(line, dotted name) of every import in the file, those inside functions included."""
    package = Path(path).parts[:-1]
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else ()
            base = ".".join([*above, *filter(None, [node.module])])
            found += [(node.lineno, f"{base}.{alias.name}".strip(".")) for alias in node.names]
        elif isinstance(node, ast.Call) and node.args:
            called = ast.unparse(node.func).split(".")[-1]
            name = node.args[0]
            by_name = called in ("import_module", "__import__") and isinstance(name, ast.Constant)
            if by_name and isinstance(name.value, str):
                found.append((node.lineno, name.value))
    return found


def is_allowed(package: str, name: str) -> bool:
    """Whether a file of `package` (a package, or a script such as "train") may import `name`."""
    top = name.split(".")[0]
    if top in PICKLES or name in ("torch.save", "torch.load"):
        return False
    if top in MAY_IMPORT:
        return top == package or top in MAY_IMPORT[package]
    return top in sys.stdlib_module_names or top in THIRD_PARTY.get(package, RUN_TIME)


def find_breaches(path: str, source: str) -> list[str]:
    """What in a file goes against the directions, the allowlist or the ban on pickle."""
    package = Path(path).parts[0].removesuffix(".py")
    breaches = [
        f"{path}:{line}: {package} may not import {name}"
        for line, name in find_imports(path, source)
        if not is_allowed(package, name) and (path, name.split(".")[0]) not in EXTRAS
    ]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and ast.unparse(node) in ("torch.save", "torch.load"):
            breaches.append(f"{path}:{node.lineno}: {ast.unparse(node)} goes through pickle")
    return breaches


def measure_functions(source: str) -> list[tuple[str, int]]:
    """(name, lines) of every function, its docstring included."""
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return [
        (node.name, node.end_lineno - node.lineno + 1)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, functions) and node.end_lineno is not None
    ]


@pytest.mark.parametrize("path", SOURCES)
def test_imports_go_one_way(path):
    assert find_breaches(path, read(path)) == []


OPENERS = {"open", "fdopen", "read_text", "write_text", "TextIOWrapper", "NamedTemporaryFile"}
NO_TEXT = {"Image.open", "os.open", "tarfile.open", "zipfile.open"}
PROCESSES = {"run", "Popen", "check_output"}
MODE = re.compile("[rwax+bt]{1,3}")


def find_unencoded(source: str) -> list[int]:
    """Lines where text is read or written in whatever encoding the machine happens to have."""
    lines = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        full = ast.unparse(node.func)
        called = full.split(".")[-1]
        given = {word.arg: word.value for word in node.keywords}
        constants = [v.value for v in (*node.args, *given.values()) if isinstance(v, ast.Constant)]
        modes = [v for v in constants if isinstance(v, str) and MODE.fullmatch(v)]
        text = called in OPENERS and full not in NO_TEXT and not any("b" in mode for mode in modes)
        text |= called in PROCESSES and not given.keys().isdisjoint({"text", "universal_newlines"})
        if text and "encoding" not in given:
            lines.append(node.lineno)
    return lines


def test_every_text_is_opened_with_its_encoding():
    paths = list_shipped("*.py")
    assert len(paths) > len(SOURCES)  # tests and benchmarks included
    found = {str(path): find_unencoded(path.read_text(encoding="utf-8")) for path in paths}
    assert {path: lines for path, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ("open(p)", [1]), ("p.open('w')", [1]), ("p.read_text()", [1]), ("p.write_text(t)", [1]),
        ("gzip.open(p, 'rt')", [1]), ("io.TextIOWrapper(f)", [1]), ("os.fdopen(1, 'a')", [1]),
        ("subprocess.run(c, text=True)", [1]), ("p.open('rb')", []), ("open(p, mode='wb')", []),
        ("p.read_text(encoding='utf-8')", []), ("os.open(p, os.O_RDONLY)", []), ("run(c)", []),
    ],
)  # fmt: skip
def test_a_text_without_an_encoding_is_found(source, lines):
    assert find_unencoded(source) == lines


@pytest.mark.parametrize("path", SOURCES)
def test_file_and_its_functions_keep_the_budget(path):
    source = read(path)
    if path not in DECLARATIVE:
        assert len(source.splitlines()) <= MOST_FILE_LINES
    too_long = [(name, n) for name, n in measure_functions(source) if n > MOST_FUNCTION_LINES]
    assert too_long == []


def test_the_way_of_a_batch_is_an_evenings_read():
    lines = {path: len(read(path).splitlines()) for path in BATCH_WAY}
    assert sum(lines.values()) <= MOST_BATCH_WAY_LINES, lines


def test_no_file_is_named_utils():
    assert [path for path in SOURCES if "util" in Path(path).name] == []


def test_no_source_stands_outside_the_rooms():
    paths = [path.relative_to(ROOT).as_posix() for path in list_shipped("*.py")]
    unknown = [path for path in paths if path not in SOURCES]
    assert [path for path in unknown if path.split("/")[0] not in NO_SOURCE] == []


def test_an_install_puts_nothing_of_ours_in_the_way_of_other_peoples_packages():
    installed = tomllib.loads(read("pyproject.toml"))["tool"]["setuptools"]
    assert installed == {"py-modules": [], "packages": []}


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("engine/loop.py", "import models"),
        ("engine/loop.py", "from models.methods.lora import LoRALinear"),
        ("engine/loop.py", "def later():\n    import data.loaders"),
        ("engine/loop.py", "if TYPE_CHECKING:\n    from configs.schema import Config"),
        ("engine/loop.py", "import transformers"),
        ("models/methods/lora.py", "import train"),
        ("models/fast/cpu/attention.py", "from ....engine import loop"),
        ("models/build.py", "from configs.schema import Config"),
        ("models/build.py", "import importlib\nimportlib.import_module('engine.loop')"),
        ("models/methods/lora.py", "import peft"),
        ("data/splits.py", "from sklearn.model_selection import train_test_split"),
        ("job/testing/judge.py", "from sklearn.linear_model import Ridge"),
        ("job/testing/baseline.py", "import cleanlab"),
        ("job/serving/queue.py", "from fastapi import Request"),
        ("data/splits.py", "from datasketch import MinHash"),
        ("data/clean.py", "__import__('report.card')"),
        ("data/sources.py", "import pandas"),
        ("report/card.py", "import torch"),
        ("report/card.py", "from engine.metrics import Counter"),
        ("configs/schema.py", "import numpy"),
        ("configs/schema.py", "from train import main"),
        ("engine/loop.py", "import predict"),
        ("predict.py", "import train"),
        ("train.py", "import predict"),
        ("train.py", "import accelerate"),
        ("files/write.py", "import numpy"),
        ("files/read.py", "from engine.storage import steps_on_disk"),
        ("engine/checkpoint.py", "import pickle"),
        ("engine/checkpoint.py", "from torch import save"),
        ("engine/checkpoint.py", "import torch\ntorch.load('x')"),
        ("engine/checkpoint.py", "import torch\nwrite = torch.save"),
    ],
)
def test_a_planted_breach_is_found(path, source):
    assert len(find_breaches(path, source)) == 1


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("engine/loop.py", "from engine.losses import cross_entropy\nfrom . import optim"),
        ("report/card.py", "from files.write import save_text"),
        ("engine/loop.py", "import math, torch\nfrom torch.utils.tensorboard import SummaryWriter"),
        ("models/fast/cpu/attention.py", "from ..lora import LoRALinear"),
        ("data/loaders.py", "from tokenizers import models"),
        ("train.py", "def main():\n    from engine.loop import fit\n    import configs.read"),
        ("predict.py", "import report.samples, torch"),
        ("engine/checkpoint.py", "from safetensors.torch import load_file, save_file"),
    ],
)
def test_a_lawful_import_passes(path, source):
    assert find_breaches(path, source) == []


def test_functions_are_measured_with_their_docstrings_and_nested():
    source = 'class A:\n    def f(self):\n        """One\n        two."""\n        def g(): ...\n'
    assert measure_functions(source) == [("f", 4), ("g", 1)]


def test_what_a_user_leaves_beside_the_sources_is_theirs(tmp_path, monkeypatch):
    (tmp_path / "configs").mkdir()
    for name in ("train.py", "my_head.py", "configs/ours.toml", "configs/mine.toml"):
        (tmp_path / name).write_text("", encoding="utf-8")
    for words in (["init", "-q"], ["add", "train.py", "configs/ours.toml"]):
        subprocess.run(["git", "-C", str(tmp_path), *words], check=True)
    monkeypatch.setattr(shipped, "ROOT", tmp_path)
    assert list_shipped("*.py") == [tmp_path / "train.py"]
    assert list_shipped("configs/*.toml") == [tmp_path / "configs/ours.toml"]


def test_a_tree_without_git_is_read_whole(tmp_path, monkeypatch):
    (tmp_path / "models").mkdir()
    (tmp_path / "models/load.py").write_text("", encoding="utf-8")
    monkeypatch.setattr(shipped, "ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert list_shipped("*.py") == [tmp_path / "models/load.py"]
