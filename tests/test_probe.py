"""A head of a user's own is tried before step 1: what it gives wrongly is said with head, file and
shapes, and a right one is left as it was."""

import re

import pytest

import train

HEAD = """
import torch
from torch import nn


class Head(nn.Module):
    def __init__(self, hidden_size, num_labels, dropout):
        super().__init__()
        self.out = nn.Linear(hidden_size, num_labels)
        self.wide = nn.Linear(hidden_size, 2 * num_labels)
        self.narrow = nn.Linear(hidden_size + 1, num_labels)
        self.seen = 0

    def forward(self, hidden, mask):
        self.seen += 1
        return BODY
"""
GIVEN = r"forward\(hidden \(3, \d+, 32\), mask \(3, \d+\) of int64\)"


@pytest.fixture
def start(recipe, tmp_path, capsys):
    """(exit status, what is said) of a start with a head whose forward returns `body`."""

    def start(body, *words):
        path = tmp_path / "my_head.py"
        path.write_text(HEAD.replace("BODY", body), encoding="utf-8")
        recipe_path = recipe(train={"max_steps": 1}, speed={"native": "off"})
        words = [f"head.kind={path}:Head", "--unset", "head.pool", "--allow-code", *words]
        code = train.main(["--config", str(recipe_path), *words])
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    return start


@pytest.mark.parametrize(
    ("body", "got"),
    [
        ("self.out(hidden)", r"\(3, \d+, 2\)"),  # a class for each token: no pooling
        ("hidden[:, 0]", r"\(3, 32\)"),  # no layer to the classes
        ("self.wide(hidden[:, 0])", r"\(3, 4\)"),
        ("self.out(hidden[:, 0]).T", r"\(2, 3\)"),
        ("self.out(hidden[:, 0])[:, 0]", r"\(3,\)"),
        ("self.out(hidden[:, 0]).mean(0)", r"\(2,\)"),
        ("self.out(hidden[:, 0]).argmax(1)", r"\(3,\) of int64"),
        ("(self.out(hidden[:, 0]) > 0)", r"\(3, 2\) of bool"),
    ],
)
def test_logits_of_another_shape_are_said_with_file_and_shapes(start, tmp_path, body, got):
    code, printed = start(body)
    assert code == 2
    message = printed[printed.index("train.py: ") :]
    assert f"{tmp_path / 'my_head.py'}:Head" in message
    assert re.search(GIVEN + " returned " + got, message), message
    assert "expected logits (B, C), here (3, 2)" in message
    assert "Traceback" not in printed
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "body", ["None", "(self.out(hidden[:, 0]),)", "self.out(hidden[:, 0]).tolist()"]
)
def test_what_is_no_tensor_is_said_by_its_type(start, body):
    code, printed = start(body)
    assert code == 2
    assert any(f"returned a {kind}" in printed for kind in ("NoneType", "tuple", "list"))


@pytest.mark.parametrize(
    ("body", "error"),
    [("self.narrow(hidden[:, 0])", "RuntimeError"), ("self.gone(hidden)", "AttributeError")],
)
def test_a_head_that_fails_is_said_with_its_line(start, tmp_path, body, error):
    code, printed = start(body)
    assert code == 2
    assert f"failed: {tmp_path / 'my_head.py'}:16: {error}: " in printed
    assert "Traceback" not in printed


def test_a_number_is_one_column(start, tmp_path):
    table = tmp_path / "numbers.csv"
    rows = "\n".join(f"film {i},{i / 7}" for i in range(60))
    table.write_text(f"text,label\n{rows}\n", encoding="utf-8")
    words = [f"data.source={table}", "data.kind=regression"]
    code, printed = start("self.out(hidden[:, 0])[:, 0]", *words)
    assert code == 2
    assert "returned (3,); expected logits (B, C), here (3, 1)" in " ".join(printed.split())
    assert start("self.out(hidden[:, 0])", *words)[0] == 0
