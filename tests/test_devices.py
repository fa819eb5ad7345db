"""Each way to fine-tune in half precision, on the CPU and a GPU: it trains, and answers alike."""

import json

import pytest
import torch

predict, train = pytest.importorskip("predict"), pytest.importorskip("train")

SETTINGS = {
    "lora": None,
    "train": {"epochs": 1},
    "eval": {"baseline": False},
    "speed": {"native": "off"},
    "samples": None,
}
TEACHER = ["distill.teacher={runs}/teacher"]
BAG = ["--unset", "head", "train.lr=0.1"]
WAYS = {
    "head alone": ["model.train=head"],
    "probe": ["model.train=head", "train.decay=l2", "train.micro_batch_size=16"],
    "last layer": ["model.train=last:1"],
    "biases": ["model.train=bias"],
    "DoRA beside the last layer": [
        "model.train=last:1", "lora.targets=all-linear", "lora.variant=dora",
    ],
    "layer decay": ["train.layer_decay=0.5", "train.unfreeze=0.5"],
    "PiSSA": ["lora.init=pissa", "lora.targets=all-linear", "lora.rank=2"],
    "adapter": ["adapter.size=2"],
    "prompt": ["prompt.tokens=2"],
    "prefix": ["prefix.tokens=2"],
    "windows": ["data.long=chunks", "data.max_length=8", "data.stride=2"],
    "student": TEACHER,
    "student of every second layer, states matched": [
        *TEACHER, "distill.student=layers:2", "distill.hidden=1.0", "--unset", "model.source",
    ],
    "student of n-grams": [*TEACHER, "distill.student=ngrams", "--unset", "model.source", *BAG],
    "n-grams beside": ["bag.rows=train"],
    "pairs of rows": ["contrast.pairs=24", "data.max_length=16"],
}  # fmt: skip
CUDA = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=CUDA)])
def test_a_run_in_bf16_answers_as_its_test_did(start, device, way):
    there = [f"precision.device={device}", "precision.dtype=bf16", "speed.compile=false"]
    words = WAYS[way]
    if TEACHER[0] in words:
        start("teacher", *there)
    if "n-grams" in way and "student" in way:  # which is trained on the CPU in fp32
        there = [f"precision.device={device}"]
    run, _ = start("one", *words, *there)
    lines = (run / "test_predictions.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    assert json.loads((run / "result.json").read_text(encoding="utf-8"))["test"]["n"] == len(rows)
    answers = predict.load_run(run)([row["text"] for row in rows])
    for row, answer in zip(rows, answers, strict=True):
        assert answer.probabilities == pytest.approx(row["probabilities"], abs=2e-2)
