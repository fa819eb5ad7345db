"""The run card's command that trains on: it runs, and begins where the run ended."""

import re
import shlex
from dataclasses import replace

import pytest

import train
from openloop import load_run

SETTINGS = {
    "run": {"keep": 1},
    "train": {"epochs": 1, "lr": 0.02},
    "eval": {"baseline": False},
    "speed": {"native": "off"},
    "samples": None,
}
TEXTS = ["a superb, charming film", "an awful, tedious film"]
TEACHER = ["distill.teacher={runs}/teacher", "--unset", "model.source"]
BAG = ["--unset", "lora", "--unset", "head", "train.lr=0.1"]
RUNS = {
    "LoRA": [],
    "every weight": ["--unset", "lora"],
    "layers of a teacher": [*TEACHER, "distill.student=layers:2", "--unset", "lora"],
    "LoRA on layers of a teacher": [*TEACHER, "distill.student=layers:2"],
    "n-grams of a teacher": [*TEACHER, "distill.student=ngrams", *BAG],
    "n-grams": ["model.source=ngrams", *BAG],
    "n-grams beside": ["bag.rows=train"],
}


def command_of(run):
    """The words of the card's command, without the program."""
    card = (run / "README.md").read_text(encoding="utf-8")
    found = re.search(r"To train on from these weights.*?```bash\n(.*?)```", card, re.DOTALL)
    return None if found is None else shlex.split(found[1])[2:]


def answers(run):
    """Shares of the model itself, without a bag beside it."""
    model = replace(load_run(run), fusion=None)
    return [share for p in model(TEXTS) for share in p.probabilities.values()]


@pytest.mark.parametrize("kind", RUNS)
def test_the_command_of_the_card_begins_where_the_run_ended(start, kind):
    words = RUNS[kind]
    if TEACHER[0] in words:
        start("teacher")
    run, _ = start("one", *words)
    still = ["train.lr=1e-30", "train.max_steps=1"]
    command = command_of(run)
    assert train.main([*command, *still]) == 0
    assert answers(run.parent / "one_more") == pytest.approx(answers(run), abs=1e-5)
    anew, _ = start("anew", *words, *still)
    assert answers(anew) != pytest.approx(answers(run), abs=1e-3)
    _, said = start("one", *words, "train.epochs=3", "--resume", code=2)
    assert shlex.join(["train.py", *command]).replace("epochs=1", "epochs=2") in said


WITHOUT = {
    "adapter": ["adapter.size=2"],
    "prompt": ["prompt.tokens=2"],
    "prefix": ["prefix.tokens=2"],
}


@pytest.mark.parametrize("method", WITHOUT)
def test_no_such_command_is_shown_for_what_cannot_be_merged(start, method):
    words = ["--unset", "lora", *WITHOUT[method]]
    run, _ = start("one", *words)
    assert command_of(run) is None
    _, printed = start("one", *words, "train.epochs=3", "--resume", code=2)
    assert "To train on" not in printed


@pytest.mark.parametrize("source", ["run:{runs}/one", "{runs}/one/model"])
def test_a_run_cannot_start_from_its_own_model(start, source):
    run, _ = start("one")
    _, printed = start("one", f"model.source={source}", "--fresh", code=2)
    assert "which is this run itself" in printed
    assert (run / "result.json").is_file()
    assert not run.with_name("one.old-1").exists()
