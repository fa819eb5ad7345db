"""README says what is there: the head it shows trains, its file tree and commands are true."""

import re
import shlex
import tomllib
from pathlib import Path

import pytest
from shipped import list_shipped

import check
import compare
import predict
import serve
import train

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PACKAGES = (
    "benchmarks",
    "configs",
    "data",
    "data/chat",
    "data/checks",
    "data/labels",
    "data/reading",
    "data/stream",
    "engine",
    "job",
    "job/tasks",
    "job/chatting",
    "job/training",
    "job/testing",
    "job/parallel",
    "job/predicting",
    "job/reporting",
    "job/checking",
    "job/exporting",
    "job/serving",
    "job/tuning",
    "models",
)
PACKAGES += (
    "files",
    "models/methods",
    "models/ngrams",
    "models/fast",
    "models/fast/cpu",
    "models/fast/cuda",
    "report",
    "report/page",
)
PACKAGES += ("examples", "benchmarks/architectures")
PACKAGES += ("benchmarks/gpu_steps", "benchmarks/gpu_steps/bare", "docs/launch")
ENDS = (".py", ".toml", ".cpp", ".h", ".sh", ".sbatch", ".yaml")
BASH = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
COMMANDS = [
    line.split("#")[0].strip()
    for block in BASH
    for line in block.replace("\\\n", " ").splitlines()
    if line.startswith(
        (
            "python train.py",
            "python predict.py",
            "python serve.py",
            "python compare.py",
            "python check.py",
        )
    )
]


def shown_head():
    return re.search(r"<!-- head -->\n```python\n(.*?)```", README, re.DOTALL).group(1)


def test_the_head_in_the_readme_has_at_most_fifteen_lines_of_code():
    assert len([line for line in shown_head().splitlines() if line.strip()]) <= 15


def test_the_head_in_the_readme_trains_and_predicts(recipe, tmp_path):
    (tmp_path / "my_head.py").write_text(shown_head(), encoding="utf-8")
    words = [f"head.kind={tmp_path / 'my_head.py'}:AttentionPool", "head.args={width = 32}"]
    words += ["--unset", "head.pool", "--allow-code", "train.max_steps=2"]
    assert train.main(["--config", str(recipe()), *words]) == 0
    run = tmp_path / "runs" / "tiny"
    assert predict.load_run(run, allow_code=True)(["good film"])[0].label in ("neg", "pos")
    with pytest.raises(ValueError, match="allow"):
        predict.load_run(run)


def test_the_method_in_the_readme_is_the_example_and_has_at_most_twenty_five_lines():
    shown = re.search(r"<!-- method -->\n```python\n(.*?)```", README, re.DOTALL).group(1)
    example = (ROOT / "examples/own_method.py").read_text(encoding="utf-8")
    assert example.endswith('"""\n\n' + shown)
    assert len([line for line in shown.splitlines() if line.strip()]) <= 25


def test_the_loss_in_the_readme_is_the_example_and_trains(recipe, tmp_path):
    shown = re.search(r"<!-- loss -->\n```python\n(.*?)```", README, re.DOTALL).group(1)
    example = (ROOT / "examples/own_loss.py").read_text(encoding="utf-8")
    assert shown[shown.index("GAMMA") :] in example
    (tmp_path / "my_loss.py").write_text(shown, encoding="utf-8")
    words = [f"train.loss={tmp_path / 'my_loss.py'}:focal_loss", "train.max_steps=2"]
    assert train.main(["--config", str(recipe()), *words, "--allow-code"]) == 0


def test_the_file_tree_names_every_source_file_once_and_no_other():
    tree = README.split("## All files")[1].split("```")[1]
    folder, named = "", []
    for line in tree.strip().splitlines():
        name = line.split()[0]
        if name.endswith("/") and not line.startswith(" "):
            folder = name
        elif name.endswith(ENDS):
            named.append(folder + name if line.startswith(" ") else name)
    there = ["train.py", "predict.py", "serve.py", "compare.py", "check.py", "openloop.py"]
    there.append("pyproject.toml")
    shipped = list_shipped("configs/*", "examples/*")
    for package in PACKAGES:
        files = [path for end in ENDS for path in (ROOT / package).glob(f"*{end}")]
        if package in ("configs", "examples"):  # where a user's own recipes and programs land
            files = [path for path in files if path in shipped]
        there += [f"{package}/{path.name}" for path in files if path.name != "__init__.py"]
    assert sorted(named) == sorted(there)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_readme_is_understood(command):
    words = shlex.split(command.split("|")[-1])
    modules = {
        "train": train, "predict": predict, "serve": serve, "compare": compare, "check": check,
    }  # fmt: skip
    options = modules[words[1].removesuffix(".py")].parse_arguments(words[2:])
    if getattr(options, "config", None):
        assert (ROOT / options.config).exists()


def test_the_plain_pip_line_names_what_a_run_needs():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extra = project["optional-dependencies"]["baseline"]
    needed = {re.split(r"[<>=]", line)[0] for line in [*project["dependencies"], *extra]}
    line = next(line for line in README.splitlines() if line.startswith("pip install -c"))
    assert set(line.split()[4:]) == needed
