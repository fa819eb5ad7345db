"""Whole runs: what is fitted on validation rows, and that predict.py, the test, the card,
--eval-only and the exported files answer by it alike."""

import csv
import json
import random
import shutil
import sys

import numpy as np
import pytest
import tomli_w
from conftest import BAD, GOOD, REST, make_reviews, result_of, write_rows

import predict
import train
from openloop import load_run
from engine.calibrate import Bins
from job.folder import Folder
from job.reporting.predictions import read_predictions
from tests.killed import kill_after_save


def write_recipe(folder, name, data, **sections):
    tables = {
        "run": {"name": name, "dir": str(folder / "runs"), "save_every": 3},
        "model": {"source": "ngrams"},
        "data": data,
        "train": {"epochs": 4, "micro_batch_size": 8, "lr": 3e-2},
        "eval": {"baseline": False},
        **sections,
    }
    path = folder / f"{name}.toml"
    path.write_text(tomli_w.dumps(tables), encoding="utf-8")
    return path


def noisy_data(folder, held_out=520):
    """Reviews to learn from that are all clear, and others of which every second speaks for both
    classes, and of the rest every twelfth has the wrong label: a model is far too sure of them."""
    clear = [{"text": text, "label": label} for text, label in make_reviews(360)]
    flip = {"pos": "neg", "neg": "pos"}
    other = []
    for i, (text, label) in enumerate(make_reviews(360 + 2 * held_out)[360:]):
        if i % 4 > 1:
            other.append({"text": f"{text} {(BAD if label == 'pos' else GOOD)[i % 6]}",
                          "label": ("pos", "neg")[i % 3 == 0]})  # fmt: skip
        else:
            other.append({"text": text, "label": flip[label] if i % 12 == 1 else label})
    parts = {"train": clear, "validation": other[:held_out], "test": other[held_out:][:240]}
    return {"source": {k: write_rows(folder / f"{k}.jsonl", rows) for k, rows in parts.items()}}


def labelled_rows(count=1300):
    """Texts of several labels: a frequent one, one that is less likely than not even where its word
    stands, and one that few rows hold."""
    draw = random.Random(0)
    rows = []
    for i in range(count):
        good, poor = draw.random() < 0.5, draw.random() < 0.4
        words = [draw.choice(GOOD) if good else "plain", "poor" if poor else "usual"]
        words += draw.choices(REST, k=6)
        draw.shuffle(words)
        labels = ["good"] * (draw.random() < (0.85 if good else 0.1))
        labels += ["dear"] * (draw.random() < (0.42 if poor else 0.02))
        labels += ["rare"] * (i % 60 == 7)
        rows.append({"text": f"{' '.join(words)} {i}", "label": labels})
    return rows


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("decide")


@pytest.fixture(scope="module")
def noisy(place):
    """Folder of a run whose answers are far surer than right; 80 % were asked for."""
    path = write_recipe(place, "noisy", noisy_data(place), decide={"min_precision": 0.8})
    assert train.main(["--config", str(path)]) == 0
    return place / "runs" / "noisy"


@pytest.fixture(scope="module")
def plain(place, noisy):
    """The same run with nothing fitted."""
    path = place / "noisy.toml"
    words = ["run.name=plain", "decide.calibrate=false", "--unset", "decide.min_precision"]
    assert train.main(["--config", str(path), *words]) == 0
    return place / "runs" / "plain"


@pytest.fixture(scope="module")
def several(place):
    source = write_rows(place / "several.jsonl", labelled_rows())
    path = write_recipe(place, "several", {"source": source, "validation": 520, "test": 240})
    assert train.main(["--config", str(path)]) == 0
    return place / "runs" / "several"


def lines_of(run, name="test_predictions.jsonl"):
    return [json.loads(line) for line in (run / name).read_text(encoding="utf-8").splitlines()]


def decision_of(run):
    return json.loads((run / "model" / "decision.json").read_text(encoding="utf-8"))


def ask(capsys, *words):
    code = predict.main([str(word) for word in words])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    return captured.out


def answers(capsys, run, *words):
    return [json.loads(line) for line in ask(capsys, "--run", run, "--json", *words).splitlines()]


def test_no_answer_moves_and_the_loss_and_the_error_fall(noisy, plain):
    assert decision_of(noisy)["temperature"] > 1.2
    for name in ("accuracy", "confusion", "classes", "loss", "macro_f1"):
        assert result_of(noisy)["test"][name] == result_of(plain)["test"][name]
    pairs = list(zip(lines_of(noisy), lines_of(plain), strict=True))
    assert all(one["predicted"] == other["predicted"] for one, other in pairs)
    assert any(one["probabilities"] != other["probabilities"] for one, other in pairs)
    for part in ("validation", "test"):
        figures = result_of(noisy)["calibration"][part]
        assert figures["nll_after"] < figures["nll_before"]
        assert figures["ece_after"] < figures["ece_before"]
    assert result_of(plain)["calibration"] is None
    assert decision_of(plain)["temperature"] == 1


def test_the_figures_are_those_of_the_predictions(noisy, plain):
    for run, name in ((noisy, "ece_after"), (plain, "ece_before")):
        bins, rows = Bins(), list(read_predictions(Folder(run).predictions))
        bins.add(np.array([row.sure for row in rows]), np.array([row.right for row in rows]))
        assert bins.error() == pytest.approx(result_of(noisy)["calibration"]["test"][name])


def test_a_limit_is_kept_told_and_used(noisy, capsys):
    limit = decision_of(noisy)["unsure"]
    assert 0 < limit < 1
    rows = lines_of(noisy)
    sure = [row["probabilities"][row["predicted"]] for row in rows]
    assert [row["unsure"] for row in rows] == [one < limit for one in sure]
    tested = result_of(noisy)["calibration"]["test"]
    assert tested["answered"] == sum(not row["unsure"] for row in rows)
    right = sum(row["label"] == row["predicted"] for row in rows if not row["unsure"])
    assert tested["right"] == right
    got = answers(capsys, noisy, *[row["text"] for row in rows[:40]])
    assert [row["unsure"] for row in got] == [row["unsure"] for row in rows[:40]]
    assert [row["label"] for row in got] == [row["predicted"] for row in rows[:40]]
    card = (noisy / "README.md").read_text(encoding="utf-8")
    assert "## From logits to an answer" in card
    assert "temperature" in card
    assert "of the test rows" in card
    assert "are answered" in card


def test_unsure_can_be_asked_for(plain, capsys, tmp_path):
    assert "unsure" not in answers(capsys, plain, "good film")[0]
    texts = [row["text"] for row in lines_of(plain)[:30]]
    got = answers(capsys, plain, "--unsure", "0.8", *texts)
    shares = [max(row["probabilities"].values()) for row in got]
    assert [row["unsure"] for row in got] == [share < 0.8 for share in shares]
    assert {row["unsure"] for row in got} == {True, False}
    shown = ask(capsys, "--run", plain, "--unsure", "0.8", *texts).splitlines()
    assert [line.lstrip().startswith("unsure (") for line in shown] == [r["unsure"] for r in got]
    (tmp_path / "texts.txt").write_text("\n".join(texts), encoding="utf-8")
    words = ["--file", tmp_path / "texts.txt", "--output", tmp_path / "out.csv"]
    ask(capsys, "--run", plain, "--unsure", "0.8", *words)
    with (tmp_path / "out.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["unsure"].lower() == "true" for row in rows] == [row["unsure"] for row in got]


def test_a_threshold_of_two_classes(plain, capsys):
    texts = [row["text"] for row in lines_of(plain)]
    usual = answers(capsys, plain, *texts)
    for words, name, least in (
        (["--threshold", "0.9"], "pos", 0.9),
        (["--threshold", "neg=0.9"], "neg", 0.9),
        (["--threshold", "pos=0.1"], "pos", 0.1),
    ):
        got = answers(capsys, plain, *words, *texts)
        assert [r["label"] == name for r in got] == [r["probabilities"][name] > least for r in got]
        assert [r["label"] for r in got] != [r["label"] for r in usual]
    by_hand = load_run(plain).decide(threshold={"neg": 0.9})(texts)
    assert [r["label"] for r in answers(capsys, plain, "--threshold", "neg=0.9", *texts)] == [
        prediction.label for prediction in by_hand
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--threshold", "good=0.4"], "no such label"),
        (["--threshold", "1.5"], "more than 0 and less than 1"),
        (["--threshold", "high"], "expected a number"),
        (["--unsure", "1"], "at least 0 and less than 1"),
        (["--top-k", "3"], "top-k is 3; this run answers with one of 2 classes"),
        (["--top-k", "0"], "top-k is 0"),
    ],
)
def test_what_makes_no_sense_is_one_message(plain, capsys, words, message):
    assert predict.main(["--run", str(plain), "good film", *words]) == 2
    assert message in capsys.readouterr().err


def test_the_largest_probabilities_alone(several, capsys, tmp_path):
    (row,) = answers(capsys, several, "--top-k", "2", "superb poor film")
    (whole,) = answers(capsys, several, "superb poor film")
    ordered = sorted(whole["probabilities"].items(), key=lambda pair: -pair[1])
    assert list(row["probabilities"].items()) == ordered[:2]
    ask(capsys, "--run", several, "--top-k", "2", "superb poor film", "--output",
        tmp_path / "out.csv")  # fmt: skip
    with (tmp_path / "out.csv").open(encoding="utf-8") as file:
        (cells,) = csv.DictReader(file)
    assert (cells["label_1"], cells["label_2"]) == tuple(name for name, _ in ordered[:2])
    assert float(cells["probability_2"]) == pytest.approx(ordered[1][1])
    assert "probability_good" not in cells
    shown = ask(capsys, "--run", several, "--top-k", "2", "superb poor film")
    assert f"[{ordered[0][0]} {ordered[0][1]:.1%}, {ordered[1][0]} {ordered[1][1]:.1%}]" in shown


def test_thresholds_of_several_labels_are_fitted_told_and_used(several, capsys):
    good, dear, rare = decision_of(several)["thresholds"]
    names = decision_of(several)["labels"]
    assert names == ["good", "dear", "rare"] or sorted(names) == ["dear", "good", "rare"]
    by_name = dict(zip(names, (good, dear, rare), strict=True))
    assert 0 < by_name["dear"] < 0.45  # less likely than not even where its word stands
    assert by_name["rare"] == 0.5
    log = (several / "README.md").read_text(encoding="utf-8")
    assert "fewer than 20 validation rows hold one: rare" in log
    rows = lines_of(several)
    for row in rows:
        held = [name for name, share in row["probabilities"].items() if share > by_name[name]]
        assert row["predicted_labels"] == held
        assert row["predicted"] == (", ".join(held) or "none")
    exact = sum(set(row["label"]) == set(row["predicted_labels"]) for row in rows)
    assert result_of(several)["test"]["accuracy"] == pytest.approx(exact / len(rows))
    got = answers(capsys, several, *[row["text"] for row in rows])
    assert [row["labels"] for row in got] == [row["predicted_labels"] for row in rows]
    read = list(read_predictions(Folder(several).predictions))
    assert sum(line.right for line in read) == exact


def test_a_threshold_for_all_labels_or_for_one(several, capsys):
    texts = [row["text"] for row in lines_of(several)[:50]]
    for words, least in ((["--threshold", "0.8"], 0.8), (["--threshold", "dear=0.8"], 0.8)):
        for row in answers(capsys, several, *words, *texts):
            assert ("dear" in row["labels"]) == (row["probabilities"]["dear"] > least)


def test_scoring_again_takes_the_same_decision(noisy, several, place, capsys):
    for run in (noisy, several):
        assert train.main(["--config", str(place / f"{run.name}.toml"), "--eval-only"]) == 0
        assert f"Test accuracy {result_of(run)['test']['accuracy']:.4f}" in capsys.readouterr().out


def test_the_bag_without_openloop_gives_the_same_probabilities(noisy, several, monkeypatch):
    for run in (noisy, several):
        monkeypatch.syspath_prepend(str(run / "model"))
        monkeypatch.delitem(sys.modules, "predict_ngrams", raising=False)
        from predict_ngrams import predict as alone

        rows = lines_of(run)
        shares = alone(dict(np.load(run / "model" / "ngrams.npz")), [row["text"] for row in rows])
        wanted = [list(row["probabilities"].values()) for row in rows]
        np.testing.assert_allclose(shares, wanted, atol=1e-5)


def test_a_decision_is_sealed_and_one_that_is_none_is_named(noisy, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(noisy, run)
    path = run / "model" / "decision.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(values | {"temperature": 0.01}), encoding="utf-8")
    assert predict.main(["--run", str(run), "good film"]) == 2
    assert "decision.json" in capsys.readouterr().err
    others = {"labels": ["pos", "neg"], "thresholds": [0.7]}  # of which label, is not known
    path.write_text(json.dumps(values | others), encoding="utf-8")
    assert predict.main(["--run", str(run), "good film", "--allow-drift"]) == 2
    assert "decision.json" in capsys.readouterr().err


def test_a_run_from_before_there_were_decisions_answers_as_it_did(noisy, plain, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(noisy, run)
    (run / "model" / "decision.json").unlink()
    old = load_run(run, allow_drift=True)(["a superb film", "a poor story"])
    without = load_run(plain)(["a superb film", "a poor story"])
    assert [one.probabilities for one in old] == [one.probabilities for one in without]
    assert [one.unsure for one in old] == [None, None]


def test_a_run_that_was_killed_ends_with_the_same_decision(place, noisy):
    words = ["--config", str(place / "noisy.toml"), "run.name=again"]
    kill_after_save(4, lambda: train.main(words))
    assert train.main([*words, "--resume"]) == 0
    again = place / "runs" / "again"
    for name in ("model/decision.json", "test_predictions.jsonl", "explanations.jsonl"):
        assert (again / name).read_bytes() == (noisy / name).read_bytes(), name
    assert result_of(again)["calibration"] == result_of(noisy)["calibration"]


def test_what_was_asked_may_change_while_a_run_goes_on(place):
    """[decide] comes after training: a run stopped before may end otherwise than it began."""
    words = ["--config", str(place / "noisy.toml"), "run.name=other"]
    kill_after_save(2, lambda: train.main(words))
    assert train.main([*words, "--resume", "decide.min_precision=0.999"]) == 0
    run = place / "runs" / "other"
    assert decision_of(run)["unsure"] > 1
    assert result_of(run)["calibration"]["unsure"]["limit"] is None
    assert "every answer" in (run / "report.html").read_text(encoding="utf-8")
    assert all(row["unsure"] for row in lines_of(run))
    assert "every answer is unsure" in (run / "README.md").read_text(encoding="utf-8")


def test_of_too_many_logits_rows_at_equal_distances_are_looked_at(place, monkeypatch):
    import job.testing.decide

    monkeypatch.setattr(job.testing.decide, "MOST_CELLS", 200)
    assert train.main(["--config", str(place / "noisy.toml"), "run.name=thin"]) == 0
    figures = result_of(place / "runs" / "thin")["calibration"]
    assert (figures["validation"]["n"], figures["test"]["n"]) == (87, 240)


def test_few_rows_fit_nothing_and_that_is_said(place, capsys):
    rows = [{"text": text, "label": label} for text, label in make_reviews(120)]
    source = write_rows(place / "few.jsonl", rows)
    path = write_recipe(place, "few", {"source": source, "validation": 30, "test": 30})
    assert train.main(["--config", str(path)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "no temperature: it takes 500 validation rows, and there are 30" in said
    assert decision_of(place / "runs" / "few")["temperature"] == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data.validation=0"], "decide.min_precision is told from validation rows"),
        (["data.kind=regression"], "decide.min_precision lets uncertain classes be unsure"),
    ],
)
def test_a_precision_that_nothing_can_show_is_refused_before_step_1(place, capsys, words, message):
    rows = [{"text": text, "label": i % 4} for i, (text, _) in enumerate(make_reviews(120))]
    data = {"source": write_rows(place / "no.jsonl", rows), "validation": 30, "test": 30}
    path = write_recipe(place, "no", data, decide={"min_precision": 0.9})
    assert train.main(["--config", str(path), "--dry-run", *words]) == 2
    assert message in capsys.readouterr().err


def test_most_confident_mistakes_are_explained(noisy):
    explained, rows = lines_of(noisy, "explanations.jsonl"), lines_of(noisy)
    wrong = [row for row in rows if row["predicted"] != row["label"]]
    wrong.sort(key=lambda row: -row["probabilities"][row["predicted"]])
    assert 1 <= len(explained) <= 20
    texts = {row["row"]: row["text"] for row in rows}
    sure = [row["probabilities"][row["predicted"]] for row in wrong]
    assert [row["probability"] for row in explained] == sure[: len(explained)]
    for row in explained[:5]:
        text, first = texts[row["row"]], row["explanation"][0]
        assert text[first["start"] : first["end"]] == first["text"]
        assert first["text"] in (GOOD if row["predicted"] == "pos" else BAD)
