"""Whole runs on texts longer than the model reads, and what is made of them elsewhere."""

import json
import re

import pytest

import train
from openloop import load_run

HEAD_TAIL = ["data.max_length=10", "data.long=head_tail", "data.head_tokens=3"]


@pytest.fixture
def start(recipe, tmp_path, capsys):
    """start("name", "setting=value", …) -> (run folder, what was printed)."""
    path = recipe(speed={"native": "off"}, eval={"baseline": False})

    def run(name, *words, code=0):
        assert train.main(["--config", str(path), *words, f"run.name={name}"]) == code
        captured = capsys.readouterr()
        return tmp_path / "runs" / name, captured.out + captured.err

    return run


def list_answers(folder):
    """(text, label, probabilities) of each test row, as the run itself found them."""
    lines = (folder / "test_predictions.jsonl").read_text(encoding="utf-8").splitlines()
    rows = map(json.loads, lines)
    return [(row["text"], row["predicted"], row["probabilities"]) for row in rows]


def check_uses(folder, start, words):
    """Everything that asks a finished run reads a long text as the training did."""
    rows = list_answers(folder)
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    samples = json.loads((folder / "samples.json").read_text(encoding="utf-8"))
    answers = load_run(folder)([text for text, _, _ in rows])
    for (_, label, probabilities), answer in zip(rows, answers, strict=True):
        assert answer.label == label
        assert answer.probabilities == pytest.approx(probabilities, abs=1e-6)
    _, said = start(folder.name, *words, "--eval-only")
    assert f"Test accuracy {result['test']['accuracy']:.4f}" in said
    assert samples.keys() == {"good film", "bad film"}
    card = (folder / "README.md").read_text(encoding="utf-8")
    snippet = next(s for s in re.findall(r"```python\n(.*?)```", card, re.S) if "logits" in s)
    for text, _, probabilities in rows:
        names = {}
        exec(snippet.replace('"It was good.", "Not a fan."', f"{text!r}, 'a film'"), names)
        shares = names["logits"].softmax(-1)[0].tolist()
        assert shares == pytest.approx(list(probabilities.values()), abs=1e-5)
    return card


def test_both_ends_are_read_in_training_and_by_whoever_asks(start):
    words = [*HEAD_TAIL, "--unset", "lora", "train.max_steps=4"]
    folder, said = start("ends", *words)
    assert "of longer ones the first 3 and the last 5" in " ".join(said.split())
    card = check_uses(folder, start, words)
    sentence = "Of a text longer than 10 tokens the first 3 and the last 5 are read."
    assert sentence in " ".join(card.split())
    assert sentence in (folder / "model/README.md").read_text(encoding="utf-8")
    record = json.loads((folder / "model/openloop.json").read_text(encoding="utf-8"))
    assert record["texts"]["ends"] == [3, 5]


def test_an_adapter_of_a_run_on_both_ends_opens_elsewhere(start):
    words = [*HEAD_TAIL, "train.max_steps=4"]
    folder, _ = start("adapter", *words)
    check_uses(folder, start, words)


def test_left_truncation_is_said_to_lose_the_beginning(start):
    _, said = start("left", "data.truncation=left", "--dry-run")
    assert "longer ones lose their beginning" in said


def test_an_export_of_texts_that_are_cut_has_nothing_to_say(start):
    folder, _ = start("cut", "data.max_length=10", "train.max_steps=1")
    assert not (folder / "model/README.md").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data.long=head_tail", "data.truncation=left"], "data.truncation: got"),
        (["data.head_tokens=4"], 'data.head_tokens: got 4 beside data.long = "cut"'),
        (["data.long=head_tail", "data.head_tokens=32"], "data.head_tokens: got 32 beside"),
        (["data.long=head_tail", 'data.text=["text", "other"]'], 'data.long: got "head_tail"'),
        (["data.long=head_tail", "data.head_tokens=30"], "expected 1 to 29"),
    ],
)
def test_settings_that_do_not_go_together_are_told(start, words, message):
    _, said = start("wrong", *words, code=2)
    assert message in said
