"""Whole runs with a prompt or a prefix: what is refused before step 1, and pairs of texts."""

import pytest
import torch

import train
from openloop import load_run


@pytest.mark.parametrize("method", ["prompt", "prefix"])
def test_a_length_that_leaves_no_room_is_refused_with_the_count(method, recipe, capsys):
    path = recipe(lora=None, data={"max_length": 64}, **{method: {"tokens": 100}})  # of 128
    assert train.main(["--config", str(path)]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "data.max_length is 64" in said
    assert "28 positions beside the 100 that its method takes" in said


@pytest.mark.parametrize("method", ["prompt", "prefix"])
def test_pairs_below_a_head_of_ours_are_answered_by_the_python_of_the_card(
    method, recipe, tmp_path
):
    """PEFT would drop the token types that tell the two texts apart."""
    rows = [f"film {i} good,it was {'bad' if i % 2 else 'good'},{i % 2}" for i in range(48)]
    (tmp_path / "pairs.csv").write_text("\n".join(["a,b,label", *rows]), encoding="utf-8")
    data = {"source": str(tmp_path / "pairs.csv"), "text": ["a", "b"]}
    path = recipe(lora=None, data=data, samples={"texts": []}, **{method: {"tokens": 5}})
    assert train.main(["--config", str(path), "train.max_steps=2"]) == 0
    run = tmp_path / "runs" / "tiny"
    card, names = (run / "README.md").read_text(encoding="utf-8"), {}
    snippet = card.split("```python\n")[-1].partition("```")[0]
    assert "peft" not in snippet
    exec(snippet, names)
    pairs = list(zip(names["texts"], names["others"], strict=True))
    expected = [answer.probability for answer in load_run(run)(pairs)]
    shown = names["logits"].softmax(-1).amax(1)
    torch.testing.assert_close(shown, torch.tensor(expected), atol=1e-5, rtol=1e-5)
