"""Whole runs with a bag of n-grams beside the encoder."""

import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import make_reviews, result_of
from killed import kill_after_save

import predict
import train
from openloop import load_run
from configs.read import read_config
from engine.stop import StopRequest
from job.reporting.banner import estimated_memory
from job.rows import data_args
from job.tasks.table import prepare
from job.testing import fusion
from job.testing.baseline import rows_of
from models.export import load_exported

ROWS = make_reviews(160)
WEIGHED = """
import torch
from torch.nn import functional as F


def weighed(logits, labels):
    return F.cross_entropy(logits, labels, weight=torch.tensor([1.0, 3.0]), reduction="sum")
"""
BAG = {
    "bag": {"rows": "all"},
    "data": {"subset": {"train": 24}, "validation": 60, "test": 20},
    "train": {"epochs": 1},
    "eval": {"baseline": False},
}


def write_rows(path, rows):
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return str(path)


@pytest.fixture
def start(recipe, tmp_path, capsys):
    """start(section={...}, code=0, words=[...]) -> (run folder, what was said)."""

    def run(words=(), code=0, rows=None, **sections):
        given = rows or [{"text": text, "label": label} for text, label in ROWS]
        tables = {**BAG, **sections}
        tables["data"] = {"source": write_rows(tmp_path / "rows.jsonl", given), **tables["data"]}
        path = recipe(**tables)
        assert train.main(["--config", str(path), *words]) == code
        captured = capsys.readouterr()
        return tmp_path / "runs" / "tiny", " ".join((captured.out + captured.err).split())

    return run


def lines_of(run):
    return [json.loads(line) for line in (run / "test_predictions.jsonl").open(encoding="utf-8")]


def test_a_bag_on_all_rows_lifts_an_encoder_that_saw_few(start):
    run, said = start()
    parts = result_of(run)["fused"]
    assert parts["both"] == result_of(run)["test"]
    assert parts["both"]["accuracy"] >= parts["encoder alone"]["accuracy"]
    assert parts["bag alone"]["accuracy"] > 0.9
    assert "on 80 rows, 56 of which the encoder does not see" in said
    card = (run / "README.md").read_text(encoding="utf-8")
    assert "encoder alone" in card
    assert "has the encoder alone: its own logits" in card


def test_a_fresh_process_answers_as_the_test_did(start):
    run, _ = start()
    rows = lines_of(run)
    texts = [row["text"] for row in rows]
    program = (
        "import sys, json\nfrom openloop import load_run\n"
        f"answers = load_run({str(run)!r})(json.load(sys.stdin))\n"
        "print(json.dumps([answer.probabilities for answer in answers]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], input=json.dumps(texts), capture_output=True,
        encoding="utf-8", check=True,
    )  # fmt: skip
    for answer, row in zip(json.loads(done.stdout), rows, strict=True):
        assert answer == pytest.approx(row["probabilities"], rel=1e-5)


def test_joined_answers_are_those_worked_out_by_hand(start):
    run, _ = start()
    texts = ["a superb, charming film", "an awful, tedious film " * 30]
    fused = load_run(run)
    weights, bag = fused.fusion.weights, fused.fusion.answer(texts, None)
    fused.fusion = None
    alone = {}
    fused.run(texts, lambda b, z: alone.update(zip(b["rows"].tolist(), z, strict=True)))
    logits = weights.encoder * torch.stack([alone[0], alone[1]]) + weights.bag * bag
    expected = logits.softmax(1).tolist()
    for answer, shares in zip(load_run(run)(texts), expected, strict=True):
        assert list(answer.probabilities.values()) == pytest.approx(shares, rel=1e-6)


def test_scoring_again_gives_the_figures_of_both(start, capsys):
    run, _ = start()
    assert train.main(["--config", str(run / "config.toml"), "--eval-only"]) == 0
    assert f"Test accuracy {result_of(run)['test']['accuracy']:.4f}" in capsys.readouterr().out


def test_the_folder_without_openloop_is_the_encoder_alone(start, tiny_folder):
    run, _ = start(lora=None, head=None)
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    texts = ["a superb film", "an awful film"]
    theirs = AutoModelForSequenceClassification.from_pretrained(run / "model").eval()
    batch = AutoTokenizer.from_pretrained(run / "model")(texts, return_tensors="pt", padding=True)
    ours, _, _ = load_exported(run / "model")
    with torch.no_grad():
        torch.testing.assert_close(theirs(**batch).logits, ours(**batch).logits)


@pytest.mark.parametrize("saves", [1, 2])
def test_a_killed_run_goes_on_to_the_same_bits(start, recipe, tmp_path, saves, monkeypatch):
    whole, _ = start(words=["run.name=whole"], run={"save_every": 2})
    whole = whole.parent / "whole"
    path = tmp_path / "recipe.toml"
    kill_after_save(saves, lambda: train.main(["--config", str(path)]))
    assert train.main(["--config", str(path), "--resume"]) == 0
    compare_runs(tmp_path / "runs" / "tiny", whole)


def test_a_run_that_ends_while_the_bag_is_fitted_goes_on_to_the_same_bits(
    start, tmp_path, monkeypatch
):
    import job.testing.fusion

    whole, _ = start(words=["run.name=whole"])
    path, fit = tmp_path / "recipe.toml", job.testing.fusion.fit_weights

    def fail(*words):
        raise KeyboardInterrupt

    monkeypatch.setattr(job.testing.fusion, "fit_weights", fail)
    assert train.main(["--config", str(path)]) == 130
    monkeypatch.setattr(job.testing.fusion, "fit_weights", fit)
    assert not (tmp_path / "runs/tiny/result.json").exists()
    assert train.main(["--config", str(path), "--resume"]) == 0
    compare_runs(tmp_path / "runs/tiny", whole.parent / "whole")
    assert train.main(["--config", str(path), "--resume"]) == 0


def compare_runs(run, other):
    for name in ("bag/ngrams.npz", "bag/fusion.json", "adapter_model.safetensors"):
        assert (run / "model" / name).read_bytes() == (other / "model" / name).read_bytes(), name
    assert lines_of(run) == lines_of(other)


def test_the_encoder_learns_the_same_with_and_without_a_bag(start):
    run, _ = start()
    before, _ = start(words=["--unset", "bag", "run.name=without"])
    before = before.parent / "without"
    name = "model/adapter_model.safetensors"
    assert (run / name).read_bytes() == (before / name).read_bytes()
    assert not (before / "model/bag").exists()
    assert "fused" not in result_of(before)
    alone = result_of(run)["fused"]["encoder alone"]
    assert alone["loss"] == pytest.approx(result_of(before)["test"]["loss"], rel=1e-6)


def test_several_labels_a_row(start):
    rows = [
        {"text": f"{'joy' if i % 2 else ''} {'anger' if i % 3 else ''} film {i}",
         "label": "+".join(n for n, on in (("joy", i % 2), ("anger", i % 3), ("film", 1)) if on)}
        for i in range(160)
    ]  # fmt: skip
    data = {**BAG["data"], "kind": "multi", "label_separator": "+"}
    run, _ = start(rows=rows, data=data, samples=None)
    shares = load_run(run)(["pure joy", "anger"])
    assert shares[0].probabilities["joy"] > 0.5 > shares[1].probabilities["joy"]


def test_a_number_in_its_own_unit(start):
    rows = [{"text": f"{['poor', 'plain', 'good'][i % 3]} film {i}", "label": 1990.5 + i % 3 * 10}
            for i in range(160)]  # fmt: skip
    run, _ = start(rows=rows, data={**BAG["data"], "kind": "regression"}, samples=None)
    low, high = (p.probabilities["value"] for p in load_run(run)(["poor film", "good film"]))
    assert 1985 < low < 1998
    assert 2003 < high < 2016


def test_pairs_of_texts(start):
    rows = [{"a": f"{'good' if i % 2 else 'bad'} film {i}",
             "b": f"{'bad' if i % 2 else 'good'} story {i}", "label": "ab"[i % 2]}
            for i in range(160)]  # fmt: skip
    run, _ = start(rows=rows, data={**BAG["data"], "text": ["a", "b"]}, samples=None)
    answers = load_run(run)([("good", "bad"), ("bad", "good")])
    assert [answer.label for answer in answers] == ["b", "a"]


def test_a_held_out_text_among_the_rows_left_out_is_not_learnt(start, recipe, tmp_path):
    start(words=["--dry-run"])
    config = read_config(tmp_path / "recipe.toml")
    held = prepare(config, False).data.splits
    seen = [*held["validation"]["text"], *held["test"]["text"]]
    tables = {name: tmp_path / f"{name}.jsonl" for name in ("train", "validation", "test")}
    for name in ("validation", "test"):
        rows = zip(held[name]["text"], held[name]["label"], strict=True)
        write_rows(tables[name], [{"text": t, "label": label} for t, label in rows])
    # each held-out text stands in train too, in other letters
    rows = [{"text": text.upper(), "label": i % 2} for i, text in enumerate(seen)]
    rows += [{"text": f"a row of its own, {i}", "label": i % 2} for i in range(40)]
    write_rows(tables["train"], rows)
    data = {"source": {k: str(v) for k, v in tables.items()}, "on_overlap": "drop"}
    path = recipe(**{**BAG, "data": {**data, "subset": {"train": 20}}})
    loaded = prepare(read_config(path), False).data
    assert 0 < len(loaded.left_out) < 40
    own = [*loaded.splits["train"]["text"], *loaded.left_out["text"]]
    assert not {text.lower() for text in own} & {text.lower() for text in seen}
    assert len(own) == len(set(own))
    assert any("whose text a held-out row has" in line for line in loaded.report.lines())


def test_the_rows_of_the_encoder_alone_where_asked(start, recipe, tmp_path):
    _, said = start(words=["bag.rows=train", "--dry-run"])
    assert "on 24 rows; it reads" in said
    config = read_config(tmp_path / "recipe.toml", ["bag.rows=train"])
    assert not data_args(config).left_out


def test_the_plan_counts_the_terms_of_all_rows_that_the_bag_reads(start, tmp_path):
    _, said = start(words=["--dry-run"])
    assert "or, afterwards, the bag of n-grams" in said
    jobs = [
        prepare(read_config(tmp_path / "recipe.toml", words, unset), False)
        for words, unset in (([], []), (["bag.rows=train"], []), ([], ["bag"]))
    ]
    most, fewer, none = (estimated_memory(job).bag for job in jobs)
    assert most / fewer == pytest.approx(80 / 24, rel=0.1)  # rows of about one length
    assert fewer > none == 0
    assert jobs[0].bag_needs.seconds > jobs[1].bag_needs.seconds > 0


def test_a_loss_of_ones_own_with_constants_weighs_the_bag(start, tmp_path):
    (tmp_path / "mine.py").write_text(WEIGHED, encoding="utf-8")
    words = [f"train.loss={tmp_path / 'mine.py'}:weighed", "--allow-code"]
    run, _ = start(words=words)
    assert set(result_of(run)["fused"]) == {"encoder alone", "bag alone", "both"}


def test_a_bag_that_fails_takes_nothing_from_the_encoder(start, monkeypatch):
    def fail(*words):
        raise RuntimeError("no memory is left\nfor it")

    with monkeypatch.context() as patch:
        patch.setattr("job.testing.fusion.fit_bag", fail)
        run, said = start()
    assert "the encoder stands alone, a bag could not be put beside it: no memory is left" in said
    assert "fused" not in result_of(run)
    assert "the encoder stands alone" in (run / "README.md").read_text(encoding="utf-8")
    assert load_run(run).fusion is None


def test_a_pass_that_others_have_a_share_in_is_not_given_up_in_silence(monkeypatch):
    """They would still be in it where this process goes on."""

    def fail(*words):
        raise RuntimeError("gloo/transport: connection closed by peer")

    monkeypatch.setattr(fusion, "collect_logits", fail)
    monkeypatch.setattr(fusion, "split_batches", lambda *_: [])
    monkeypatch.setattr(fusion, "text_columns", lambda config: ["text"])
    monkeypatch.setattr(fusion, "training_rows", fail)
    job = SimpleNamespace(
        config=SimpleNamespace(bag=True, data=SimpleNamespace(cache=False)), precision=None,
        data=SimpleNamespace(splits={"validation": []}, fingerprint=""),
        built=SimpleNamespace(model=None),
    )  # fmt: skip
    with pytest.raises(RuntimeError, match="connection closed"):
        fusion.try_fuse(job, print, StopRequest())


def test_a_bag_of_words_beside_it_learns_from_the_same_rows(start, recipe, tmp_path):
    start(words=["--dry-run"])
    data = prepare(read_config(tmp_path / "recipe.toml"), False).data
    assert len(rows_of(data, "train").texts) == 80
    fewer = prepare(read_config(tmp_path / "recipe.toml", ["bag.rows=train"]), False).data
    assert len(rows_of(fewer, "train").texts) == 24


def test_few_validation_rows_are_told(start):
    _, said = start(data={**BAG["data"], "validation": 12})
    assert "too few validation rows" in said


@pytest.mark.parametrize(
    ("words", "reason"),
    [(["data.validation=0"], "needs a validation split"),
     (["model.source=ngrams", "--unset", "lora", "--unset", "head"], "is a bag of n-grams itself")],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_with_its_reason(start, words, reason):
    _, said = start(words=words, code=2, data={"subset": {"train": 24}, "test": 20})
    assert reason in said
    assert "Traceback" not in said


def test_a_changed_weight_is_told_before_it_answers(start, capsys):
    run, _ = start()
    path = run / "model/bag/fusion.json"
    text = path.read_text(encoding="utf-8").replace('"bag": ', '"bag": 1')
    path.write_text(text, encoding="utf-8")
    assert predict.main(["--run", str(run), "good"]) == 2
    assert "fusion.json" in capsys.readouterr().err


def test_the_bag_alone_answers_by_numpy(start):
    run, _ = start()
    script = [sys.executable, "-I", run / "model/bag/predict_ngrams.py", "a superb film"]
    done = subprocess.run(script, capture_output=True, encoding="utf-8", check=True)
    fusion = load_run(run).fusion
    share = fusion.answer(["a superb film"], None).softmax(1)[0, 1].item()
    assert f"'pos': {np.round(share, 3):.3f}"[:11] in done.stdout
