"""The method that CONTRIBUTING adds, added: its very text is a method that trains and travels."""

import re
import textwrap
from dataclasses import fields
from pathlib import Path

import torch

import models.methods
from configs import schema
from examples.own_method import Scaled
from models.export import export_model, load_exported
from models.methods.method import added_modules

TEXT = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text(encoding="utf-8")
PART = TEXT.split("## Adding a method")[1].split("## Landing")[0]
BLOCKS = [textwrap.dedent(b) for b in re.findall(r"```python\n(.*?)```", PART, re.DOTALL)]
IMPORTS = """
from dataclasses import dataclass
from typing import Any, ClassVar, Literal
from models.methods.linears import choose_layers, linears_of, replace_layers
from models.methods.method import Method
from models.methods.own_files import read_own, write_own
"""


def test_the_method_of_the_page_trains_and_travels(
    make, stir, encode, logits_of, tmp_path, monkeypatch
):
    names = {"Scaled": Scaled, "__name__": "models.methods.scale"}
    exec(IMPORTS + BLOCKS[0], names)
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


def test_the_section_of_the_page_has_the_settings_of_its_method():
    names = dict(vars(schema))
    exec(IMPORTS + BLOCKS[0], method := {"__name__": "models.methods.scale"})
    exec(BLOCKS[1], names)
    section, own = names["Scale"], fields(method["Scale"])
    assert set(section.model_fields) == {field.name for field in own}
    assert section().targets == method["Scale"]().targets


def test_the_page_names_the_row_that_is_there():
    text = (Path(__file__).parents[2] / "models/methods/__init__.py").read_text(encoding="utf-8")
    assert "for method in (LoRA, Adapter," in text
