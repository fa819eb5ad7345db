"""Class weights, for one class a row and for several: worked out, named, refused with a reason."""

import json

import pytest
import torch

import train
from configs.read import parse_config
from engine.targets import IDENTITY
from job.training.loss import choose_loss

CPU = torch.device("cpu")


def write_several(path, labels):
    rows = [{"text": f"film {i} {' '.join(each)}", "label": each} for i, each in enumerate(labels)]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def rare(i):
    """ "fun" on every fifth row, "long" on every row, "dull" on half of them."""
    return ["fun"] * (i % 5 == 0) + ["long"] + ["dull"] * (i % 2)


def test_balanced_weights_of_several_labels_are_named_and_used(recipe, tmp_path, capsys):
    table = write_several(tmp_path / "several.jsonl", map(rare, range(60)))
    path = recipe(
        data={"source": str(table), "validation": {}, "test": {}} | {"validation": 10, "test": 10},
        train={"class_weights": "balanced", "max_steps": 3},
    )
    assert train.main(["--config", str(path)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    sentence = said.partition("positive weights: ")[2].split("Steps")[0]
    assert sentence.startswith("dull ")
    assert "long 1," not in sentence.partition("long")[0]
    assert "long 1 " in sentence + " "
    assert float(sentence.partition("fun ")[2].split(",")[0]) == pytest.approx(4, abs=1)


def test_eval_only_weighs_as_training_did(recipe, tmp_path, capsys):
    table = write_several(tmp_path / "several.jsonl", map(rare, range(60)))
    path = recipe(
        data={"source": str(table), "validation": 10, "test": 10},
        train={"class_weights": "balanced", "max_steps": 3},
    )
    assert train.main(["--config", str(path)]) == 0
    folder = tmp_path / "runs" / "tiny"
    test = json.loads((folder / "result.json").read_text(encoding="utf-8"))["test"]
    from configs.read import read_config
    from job.testing.score import score_finished

    again = score_finished(read_config(path))
    assert again["test"]["loss"] == pytest.approx(test["loss"], rel=1e-6)
    capsys.readouterr()


@pytest.mark.parametrize(
    "labels",
    [
        lambda i: ["neg", "pos"][i % 2],
        lambda i: [["neg"], ["pos"], ["neg", "pos"]][i % 3],
    ],
    ids=["one class", "several"],
)
def test_a_class_without_training_rows_is_named(recipe, tmp_path, capsys, labels):
    rows = [{"text": f"film {i}", "label": labels(i)} for i in range(40)]
    table = tmp_path / "t.jsonl"
    table.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    path = recipe(
        data={"source": str(table), "labels": ["neg", "pos", "mixed"]},
        train={"class_weights": "balanced"},
    )
    assert train.main(["--config", str(path)]) == 2
    said = capsys.readouterr().err
    assert "'mixed'" in said
    assert "as a list" in said


def test_weights_of_another_number_name_the_classes(recipe, tmp_path, capsys):
    path = recipe(train={"class_weights": [1.0, 2.0, 3.0]})
    assert train.main(["--config", str(path)]) == 2
    assert "expected 2, one for each of neg, pos" in capsys.readouterr().err


class Rows:
    """Data of many classes, as far as the loss reads it."""

    def __init__(self, count, kind):
        self.kind, self.label_names = kind, tuple(f"class{i:02}" for i in range(count))


@pytest.mark.parametrize(("kind", "what"), [("single", "class"), ("multi", "positive")])
def test_the_weights_stand_in_the_plan_by_name_and_are_cut_after_twelve(kind, what, recipe):
    from configs.read import read_config

    config = read_config(recipe(train={"class_weights": [1.5] * 15}))
    _, sentence = choose_loss(
        config=config, data=Rows(15, kind), target=IDENTITY, device=CPU, allow_code=False
    )
    assert f"{what} weights: class00 1.5, class01 1.5" in sentence
    assert sentence.endswith("class11 1.5 and 3 more")


def test_a_regression_has_no_weights(recipe):
    config = parse_config(
        {"run": {"name": "x"}, "model": {"source": "x"}, "data": {"source": "x"},
         "train": {"class_weights": "balanced"}}, "test", [],
    )  # fmt: skip
    _, sentence = choose_loss(
        config=config, data=Rows(0, "regression"), target=IDENTITY, device=CPU, allow_code=False
    )
    assert "weights" not in sentence
