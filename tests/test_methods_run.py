"""Whole runs with each method of fine-tuning: killed and gone on with, asked, opened elsewhere."""

import json

import pytest
import torch
from safetensors.torch import load_file

import train
from openloop import load_run
from models.methods import METHODS
from tests.killed import kill_after_save

ROWS = {
    name: (method.kind, values)
    for method in METHODS.values()
    for name, values in method.small.items()
}


@pytest.fixture(params=ROWS)
def start(request, recipe, tmp_path):
    """start(name, *words): a run with that method; gives its folder."""
    kind, values = ROWS[request.param]
    path = recipe(**{"lora": None, kind: values} if kind != "lora" else {kind: values})

    def run(name, *words):
        words = [f"run.name={name}", "run.save_every=1", "train.max_steps=4", *words]
        words += ["--allow-code"]  # for the one of a user's own
        assert train.main(["--config", str(path), *words]) == 0
        return tmp_path / "runs" / name

    return run


def test_a_killed_run_goes_on_to_the_same_bits(start):
    whole = start("whole")
    kill_after_save(2, lambda: start("killed"))
    killed = start("killed", "--resume")
    first, second = (
        {p.name: load_file(p) for p in (run / "model").glob("*.safetensors")}
        for run in (whole, killed)
    )
    assert first.keys() == second.keys()
    for name, tensors in first.items():
        assert tensors.keys() == second[name].keys()
        assert all(torch.equal(tensor, second[name][key]) for key, tensor in tensors.items())
    one, two = (
        (run / "test_predictions.jsonl").read_text(encoding="utf-8") for run in (whole, killed)
    )
    assert one == two


def test_a_finished_run_answers_as_its_test_did_and_so_does_the_python_of_its_card(start):
    run = start("one")
    lines = (run / "test_predictions.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    model = load_run(run, allow_code=True)
    for row, answer in zip(rows, model([row["text"] for row in rows]), strict=True):
        assert answer.probabilities == pytest.approx(row["probabilities"], abs=1e-5)
    card = (run / "README.md").read_text(encoding="utf-8")
    snippet, names = card.split("```python\n")[-1].partition("```")[0], {}
    exec(snippet, names)
    asked = names["logits"].softmax(-1).amax(1).tolist()
    expected = [answer.probability for answer in model(names["texts"])]
    assert asked == pytest.approx(expected, abs=1e-6)
