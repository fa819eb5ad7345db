"""A whole run on a GPU, from the recipe to the answers."""

import json

import pytest
import torch

pytest.importorskip("datasets")  # a machine lent for its GPU may lack it, and pydantic
predict, train = pytest.importorskip("predict"), pytest.importorskip("train")

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
def test_a_run_trains_tests_exports_and_answers(recipe, tmp_path, dtype):
    words = ["precision.device=cuda", f"precision.dtype={dtype}", "speed.compile=false"]
    assert train.main(["--config", str(recipe()), *words]) == 0
    run = tmp_path / "runs" / "tiny"
    result = json.loads((run / "result.json").read_text(encoding="utf-8"))
    lines = (run / "test_predictions.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == result["test"]["n"] > 0
    answers = predict.load_run(run)(["good film", "awful story"])
    assert {answer.label for answer in answers} <= {"pos", "neg"}


def test_two_runs_of_one_seed_are_the_same_bits(recipe, tmp_path):
    found = []
    for name in ("one", "two"):
        words = ["precision.device=cuda", "run.deterministic=true", f"run.name={name}"]
        assert train.main(["--config", str(recipe()), *words]) == 0
        text = (tmp_path / "runs" / name / "metrics.jsonl").read_text(encoding="utf-8")
        lines = [json.loads(line) for line in text.splitlines()]
        found.append([line["train/loss"] for line in lines if "train/loss" in line])
    assert found[0] == found[1]
