"""A loss of a user's own in a recipe: train.loss."""

import json
import re
from pathlib import Path

import pytest
import torch
from conftest import figures
from safetensors.torch import load_file

import train
from openloop import load_run
from configs.read import read_config
from examples import own_loss
from tests.killed import kill_after_save

ROOT = Path(__file__).parent.parent
FOCAL = (ROOT / "examples/own_loss.py").read_text(encoding="utf-8")


@pytest.fixture
def focal(tmp_path):
    path = tmp_path / "focal.py"
    path.write_text(FOCAL, encoding="utf-8")
    return path


@pytest.fixture
def words(recipe, focal):
    path = recipe(train={"max_steps": 4}, speed={"native": "off"}, eval={"baseline": False})
    return ["--config", str(path), f"train.loss={focal}:focal_loss", "--allow-code"]


def test_it_trains_and_evaluates_as_the_program_of_the_examples_does(words, tmp_path, capsys):
    assert train.main(words) == 0
    out = capsys.readouterr().out
    assert "focal.py:focal_loss,sha256" in "".join(out.split())  # a long path is broken anywhere
    own_loss.main([words[1], "run.name=program"])
    assert figures(tmp_path / "runs/tiny") == figures(tmp_path / "runs/program")
    train.main([*words[:2], "run.name=plain"])
    assert figures(tmp_path / "runs/plain") != figures(tmp_path / "runs/program")
    card = (tmp_path / "runs/tiny/README.md").read_text(encoding="utf-8")
    assert "The loss is code of" in card
    assert load_run(tmp_path / "runs/tiny")(["good film"])[0].label in ("neg", "pos")


def test_it_runs_with_permission_alone(words, capsys):
    assert train.main(words[:-1]) == 2
    assert "focal.py; allow it with --allow-code" in capsys.readouterr().err


def test_a_killed_run_goes_on_to_the_same_bits_and_not_with_another_loss(
    words, focal, tmp_path, capsys
):
    save = ["run.save_every=1", "run.keep=9"]
    assert train.main([*words, *save, "run.name=whole"]) == 0
    kill_after_save(2, lambda: train.main([*words, *save]))
    focal.write_text(FOCAL.replace("GAMMA = 2.0", "GAMMA = 3.0"), encoding="utf-8")
    assert train.main([*words, *save, "--resume"]) == 2
    assert "train.loss: 'focal_loss, sha256" in capsys.readouterr().err
    focal.write_text(FOCAL, encoding="utf-8")
    assert train.main([*words, *save, "--resume"]) == 0
    first, second = (tmp_path / "runs" / name for name in ("whole", "tiny"))
    assert figures(first) == figures(second)
    one, two = (load_file(run / "model/adapter_model.safetensors") for run in (first, second))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_scoring_again_says_which_loss_it_reports(words, focal, tmp_path, capsys):
    assert train.main(words) == 0
    then = json.loads((tmp_path / "runs/tiny/result.json").read_text(encoding="utf-8"))
    capsys.readouterr()
    assert train.main([*words, "--eval-only"]) == 0
    out = capsys.readouterr().out
    loss = then["test"]["loss"]
    assert f"loss {loss:.4f}, by code of {focal}:focal_loss, sha256" in out
    assert "has changed" not in out
    focal.write_text(FOCAL.replace("GAMMA = 2.0", "GAMMA = 3.0"), encoding="utf-8")
    assert train.main([*words, "--eval-only"]) == 0
    assert "has changed since the training" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (
            "def focal(logits, labels): pass",
            "has no function 'focal_loss'; its functions are focal",
        ),
        ("def focal_loss(logits, labels):\n    return 1 / 0", r"focal.py:2: ZeroDivisionError"),
        (
            "def focal_loss(logits, labels):\n    return logits",
            r"it gave \(\d+, 2\); expected their",
        ),
        ("def focal_loss(logits, labels):\n    return 1.0", r"it gave a float; expected their sum"),
        ("raise KeyError('x')", "focal.py:1: KeyError"),
    ],
)
def test_what_is_no_loss_is_refused_before_step_1(words, focal, capsys, tmp_path, code, message):
    focal.write_text(code, encoding="utf-8")
    assert train.main(words) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "runs/tiny/metrics.jsonl").exists()


def test_a_mean_is_warned_of(words, focal, capsys):
    focal.write_text(FOCAL.replace("* log_p).sum()", "* log_p).mean()"), encoding="utf-8")
    assert train.main(words) == 0
    assert "times as large for twice the rows, expected 2" in capsys.readouterr().out


def test_weights_of_classes_do_not_go_with_it(words):
    with pytest.raises(ValueError, match=r"train.class_weights: got 'balanced' beside train.loss"):
        read_config(words[1], [words[2], "train.class_weights=balanced"])


def test_a_regression_gives_labels_in_the_unit_of_the_answers():
    from engine.targets import Target
    from job.training.loss import own_loss as make

    name = f"{ROOT / 'tests/test_own_loss.py'}:squared"
    loss_fn, _ = make(name, "regression", Target(10.0, 2.0), allow_code=True)
    logits, labels = torch.tensor([[1.0], [0.0]]), torch.tensor([12.0, 14.0])
    assert loss_fn(logits, labels).item() == 4.0


def squared(logits, labels):
    return (logits.squeeze(-1) - labels).square().sum()
