"""The method that CONTRIBUTING adds, added: its very text is a method that trains and travels."""

import inspect
import re
import shutil
import subprocess
import sys
import textwrap
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from shipped import list_shipped

import models.methods
from configs import schema
from examples.own_method import Scaled
from models.export import export_model, load_exported
from models.methods.method import added_modules
from tests.models import test_methods as contract

TEXT = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text(encoding="utf-8")
PART = TEXT.split("## Adding a method")[1].split("## Landing")[0]
BLOCKS = [textwrap.dedent(b) for b in re.findall(r"```python\n(.*?)```", PART, re.DOTALL)]


def test_the_method_of_the_page_trains_and_travels(
    make, stir, encode, logits_of, tmp_path, monkeypatch
):
    names = {"Scaled": Scaled, "__name__": "models.methods.scale"}
    exec(BLOCKS[0], names)
    scale = names["Scale"]
    monkeypatch.setitem(models.methods.METHODS, "scale", scale)
    built, args, tokenizer = make("bert", method=scale(**scale.small["scale"]))
    assert added_modules(built.model)
    stir(built.model)
    export_model(built, args, tokenizer, tmp_path)
    model, _, again = load_exported(tmp_path)
    batch = encode(tokenizer)
    assert again.method == scale()
    assert torch.equal(logits_of(model, batch), logits_of(built.model, batch))


CONTRACT = [
    test for name, test in vars(contract).items()
    if name.startswith("test_") and {"row", "built"} & inspect.signature(test).parameters.keys()
]  # fmt: skip


@pytest.mark.parametrize("test", CONTRACT, ids=lambda test: test.__name__)
def test_the_contract_tries_it_without_a_line_of_its_own(test, make, request, monkeypatch):
    exec(BLOCKS[0], names := {"Scaled": Scaled, "__name__": "models.methods.scale"})
    monkeypatch.setitem(models.methods.METHODS, "scale", names["Scale"])
    monkeypatch.setitem(contract.ROWS, "scale", names["Scale"])
    given = {"row": "scale", "own": True}
    words = inspect.signature(test).parameters
    if "built" in words:
        given["built"] = make("bert", seed=3, method=names["Scale"](), allow_code=True)
    test(**{n: given[n] if n in given else request.getfixturevalue(n) for n in words})


def test_the_section_of_the_page_has_the_settings_of_its_method():
    names = dict(vars(schema))
    exec(BLOCKS[0], method := {"__name__": "models.methods.scale"})
    exec(BLOCKS[1], names)
    section, own = names["Scale"], fields(method["Scale"])
    assert set(section.model_fields) == {field.name for field in own}
    assert section().targets == method["Scale"]().targets


def test_the_page_names_the_row_that_is_there():
    text = (Path(__file__).parents[2] / "models/methods/__init__.py").read_text(encoding="utf-8")
    assert "for method in (LoRA, Adapter," in text


def put_in(path, place, text):
    """Write `text` before `place` of a file."""
    before = path.read_text(encoding="utf-8")
    assert before.count(place) == 1, place
    path.write_text(before.replace(place, text + place), encoding="utf-8")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_steps_of_the_page_are_enough_for_the_tests_of_every_method(tmp_path):
    """Taken in a copy of the tree, whose own tests then try the method: runs killed and resumed
    too."""
    root = Path(__file__).parents[2]
    for path in list_shipped("*"):
        copy = tmp_path / path.relative_to(root)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    code = f"from examples.own_method import Scaled\n{BLOCKS[0]}"
    methods = tmp_path / "models/methods"
    (methods / "scale.py").write_text(code, encoding="utf-8")
    put_in(methods / "__init__.py", "\n__all__", "from models.methods.scale import Scale\n")
    put_in(methods / "__init__.py", "Prompt, PrefixTuning, OwnMethod", "Scale, ")
    schema_file = tmp_path / "configs/schema.py"
    put_in(schema_file, "class Prompt(Section)", f"{BLOCKS[1]}\n\n")
    put_in(schema_file, '"prompt", "prefix", "method")', '"scale", ')
    put_in(schema_file, "    prompt: Prompt |", "    scale: Scale | None = None\n")
    subprocess.run([sys.executable, "-m", "configs.reference"], cwd=tmp_path, check=True)
    tests = ["tests/models/test_methods.py", "tests/test_methods_run.py", "-k", "scale"]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stdout[-4000:]
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) > 20
