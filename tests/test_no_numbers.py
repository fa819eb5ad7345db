"""A model that gives NaN or infinity for test rows: the run ends all the same, and says so."""

import json
import math

import numpy as np
import pytest
import torch
from conftest import make_reviews, result_of

import compare
import job.finish
import predict
import train
from engine.calibrate import Bins, CalibrationCounter
from job.folder import Folder
from job.reporting.figures import reliability, suspects, thresholds
from job.reporting.predictions import read_predictions
from tests.test_decide import write_recipe, write_rows

STRANGE = "zyxq wvut"  # words of one test row alone


def refuse(name):
    raise AssertionError(f"{name} is no JSON")


def strict_json(text):
    return json.loads(text, parse_constant=refuse)


def poison(load_best, bad):
    """load_best(), after which the model answers the strange row with `bad` for its first label."""

    def load(job, folder, progress):
        weights = load_best(job, folder, progress)
        texts = job.data.splits["test"]["text"]
        rows = job.encoded["test"].dataset["input_ids"]
        own = {b for text, row in zip(texts, rows, strict=True) if STRANGE in text for b in row}
        shared = {b for part in job.encoded.values() for row in part.dataset["input_ids"]
                  if set(row) != own for b in row}  # fmt: skip
        buckets = sorted(own - shared)
        with torch.no_grad():
            job.built.model.idf[buckets] = 1.0
            job.built.model.weight[buckets, 0] = bad
        return weights

    return load


def labelled(kind, count):
    """Rows of reviews with labels of a kind."""
    for i, (text, label) in enumerate(make_reviews(count)):
        several = [label] + ["odd"] * (i % 2)
        number = (label == "pos") + 0.25 * (i % 3)
        yield {"text": text, "label": {"single": label, "multi": several}.get(kind, number)}


@pytest.mark.parametrize(
    ("kind", "bad"),
    [
        ("single", math.nan), ("single", math.inf), ("multi", math.nan), ("multi", -math.inf),
        ("regression", math.nan), ("regression", math.inf),
    ],
)  # fmt: skip
def test_a_run_ends_with_model_verdict_and_valid_json(kind, bad, tmp_path, monkeypatch, capsys):
    rows = list(labelled(kind, 200))
    rows[-7]["text"] += f" {STRANGE}"
    parts = {"train": rows[:120], "validation": rows[120:160], "test": rows[160:]}
    source = {name: write_rows(tmp_path / f"{name}.jsonl", own) for name, own in parts.items()}
    decide = {} if kind == "regression" else {"decide": {"min_precision": 0.6}}
    data = {"source": source, "kind": kind}
    path = write_recipe(tmp_path, "odd", data, eval={"slices": ["length"]}, **decide)
    monkeypatch.setattr(job.finish, "load_best", poison(job.finish.load_best, bad))
    assert train.main(["--config", str(path)]) == 0
    run = tmp_path / "runs" / "odd"
    result = strict_json((run / "result.json").read_text(encoding="utf-8"))
    assert result["test"]["n"] == 40
    assert any("1 of 40 test rows" in line and "test.jsonl" in line for line in result["verdicts"])
    for name in ("test_predictions.jsonl", "metrics.jsonl", "explanations.jsonl"):
        if (run / name).exists():
            list(map(strict_json, (run / name).read_text(encoding="utf-8").splitlines()))
    assert "1 of 40 test rows" in (run / "README.md").read_text(encoding="utf-8")
    assert (run / "report.html").is_file()
    lines = list(read_predictions(Folder(run).predictions))
    (odd,) = (line for line in lines if STRANGE in line.text)
    if kind != "regression":
        assert result["calibration"]["test"]["lost"] == 1
        assert result["calibration"]["test"]["n"] == 39
    if kind == "single":
        assert math.isnan(odd.sure)
        lines = (run / "test_predictions.jsonl").read_bytes()
        own = strict_json(lines[odd.place :].split(b"\n")[0])
        assert own["unsure"] is True
    capsys.readouterr()
    assert predict.main(["--run", str(run), "--json", "a good film", odd.text]) == 0
    answers = [strict_json(line) for line in capsys.readouterr().out.splitlines()]
    assert None not in answers[0]["probabilities"].values()
    assert compare.main([str(run), str(run)]) == 0
    assert train.main(["--config", str(path), "--eval-only"]) == 0
    assert result_of(run) == result


def test_what_is_nan_sure_is_in_no_bin():
    bins, without = Bins(), Bins()
    sure, right = np.array([0.3, np.nan, 0.95, 1.0, np.nan]), np.array([1, 1, 0, 1, 0], dtype=bool)
    bins.add(sure, right)
    without.add(sure[[0, 2, 3]], right[[0, 2, 3]])
    assert (bins.lost, bins.rows.sum(), bins.error()) == (2, 3, without.error())
    bins.add(np.array([np.nan]), np.array([True]))
    assert bins.lost == 3


@pytest.mark.parametrize("kind", ["single", "multi"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_calibration_leaves_rows_without_numbers_out(kind, bad):
    random = np.random.default_rng(3)
    logits = random.normal(size=(30, 3)).astype(np.float32)
    labels = random.integers(0, 3, 30) if kind == "single" else random.integers(0, 2, (30, 3))
    whole, without = (CalibrationCounter(kind, 1.4) for _ in range(2))
    without.update(logits[2:], labels[2:])
    logits[:2, 1] = bad
    whole.update(logits[:1], labels[:1])  # a batch of nothing else
    whole.update(logits[1:], labels[1:])
    assert whole.results() == pytest.approx({**without.results(), "lost": 2})


def test_a_page_is_drawn_from_rows_without_probabilities(tmp_path):
    rows = [("a", "a", 0.9), ("b", "a", 0.6), ("a", "b", None), ("b", "b", None)]
    lines = [
        {"row": f"{i}", "text": "t", "label": label, "predicted": answer,
         "probabilities": {"a": share, "b": None if share is None else 1 - share}, "tokens": 3}
        for i, (label, answer, share) in enumerate(rows)
    ]  # fmt: skip
    write_rows(tmp_path / "p.jsonl", lines)
    read = list(read_predictions(tmp_path / "p.jsonl"))
    steps = thresholds(read, ["a", "b"])
    assert [(steps[i].answered, steps[i].right) for i in (0, 1, 60, 61, 100)] == [
        (4, 2), (2, 1), (2, 1), (1, 1), (0, 0),
    ]  # fmt: skip
    assert sum(group.rows for group in reliability(read).groups) == 2
    assert all(math.isfinite(margin) for margin, _, _ in suspects(read))
