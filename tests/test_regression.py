"""Regressions from a table to an answer: whatever the labels' unit, the same training."""

import csv
import json
import re

import pytest
from safetensors.torch import load_file

import train
from engine.tracker import Tracker
from predict import load_run
from report.evaluation import result_line

LEARN = "train.epochs=4"  # 120 steps: the words are known by then
GOOD, BAD = ("good", "great", "moving", "funny"), ("bad", "awful", "boring", "poor")


def write_table(path, unit=lambda score: score, rows=304):
    """Scores of -1.2 to 1.2 that the words tell, in another unit."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for i in range(rows):
            word = (GOOD if i % 2 else BAD)[i // 2 % 4]
            score = (1 if i % 2 else -1) + (i % 5 - 2) / 10
            writer.writerow([f"the film was {word} and the actor number {i} {word}", unit(score)])
    return path


@pytest.fixture
def run(recipe, tmp_path):
    """run("name", table, ...) trains on a table; gives the run folder, or the exit status if that
    is not 0."""

    def train_on(name, table, *words, **sections):
        sections.setdefault("train", {"micro_batch_size": 8, "accumulate": 1, "epochs": 1})
        sections.setdefault("lora", {"rank": 4, "targets": "all-linear"})
        path = recipe(
            run={"name": name},
            data={"source": str(table), "kind": "regression", "validation": 32, "test": 32},
            **sections,
        )
        status = train.main(["--config", str(path), *words])
        return status or tmp_path / "runs" / name

    return train_on


def curve(folder, name="train/loss"):
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [line[name] for line in map(json.loads, lines) if name in line]


def flat(text):
    return " ".join(text.split())


def figures(folder):
    return json.loads((folder / "result.json").read_text(encoding="utf-8"))["test"]


@pytest.mark.parametrize(
    ("scale", "shift"),
    [
        (1e5, 1e5),
        pytest.param(10.0, 77.5, marks=pytest.mark.slow),
        pytest.param(1e-4, 0.0, marks=pytest.mark.slow),
        pytest.param(2e7, 1.7e9, marks=pytest.mark.slow),
    ],
)
def test_labels_in_another_unit_train_alike_and_are_answered_in_it(run, tmp_path, scale, shift):
    plain = run("plain", write_table(tmp_path / "plain.csv"), LEARN)
    table = write_table(tmp_path / "other.csv", lambda score: score * scale + shift)
    assert figures(plain)["r2"] > 0.5
    check_same_training(plain, run("other", table, LEARN), scale, shift)


def check_same_training(plain, other, scale, shift):
    assert curve(other) == pytest.approx(curve(plain), rel=2e-3, abs=2e-4)
    for name in ("r2", "spearman", "loss"):
        assert figures(other)[name] == pytest.approx(figures(plain)[name], abs=2e-3)
    for name in ("rmse", "mae"):
        assert figures(other)[name] == pytest.approx(figures(plain)[name] * scale, rel=0.01)
    texts = ["the film was good", "the film was awful"]
    for before, after in zip(load_run(plain)(texts), load_run(other)(texts), strict=True):
        wanted = before.probabilities["value"] * scale + shift
        assert after.probabilities["value"] == pytest.approx(wanted, abs=0.02 * scale)
        assert float(after.label) == pytest.approx(after.probabilities["value"], rel=1e-3)


def test_every_record_of_a_run_is_in_the_users_unit(run, tmp_path, capsys):
    folder = run("tiny", write_table(tmp_path / "t.csv", lambda x: x * 1e5 + 6e5), LEARN)
    said = capsys.readouterr().out
    assert re.search(r"the labels have mean [56]\d\d,\d{3} and deviation 1\d\d,\d{3}", flat(said))
    assert re.search(r"r2 0\.\d{4}, rmse \d\d,\d{3}, mae \d\d,\d{3}, spearman 0\.\d{4}, loss", said)
    rows = [
        json.loads(line)
        for line in (folder / "test_predictions.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    for row in rows:
        assert 4e5 < row["label"] < 8e5
        assert 4e5 < row["probabilities"]["value"] < 8e5
        assert row["predicted"].isdigit()
    error = sum((row["label"] - row["probabilities"]["value"]) ** 2 for row in rows) / len(rows)
    assert figures(folder)["rmse"] == pytest.approx(error**0.5, rel=1e-6)
    labels = json.loads((folder / "model" / "labels.json").read_text(encoding="utf-8"))
    assert labels["target_mean"] == pytest.approx(6e5, rel=0.1)
    assert labels["target_deviation"] == pytest.approx(1e5, rel=0.1)
    samples = json.loads((folder / "samples.json").read_text(encoding="utf-8"))
    assert all(4e5 < float(label) < 8e5 for label, _ in samples.values())
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert card.index("`r2`") < card.index("`rmse`") < card.index("`loss`")
    assert "in the labels' own unit" in card
    assert result_line({"test": figures(folder)}).startswith("Test r2 0.")


def test_eval_only_gives_the_same_figures(run, tmp_path, capsys):
    table = write_table(tmp_path / "t.csv", lambda x: x * 1e5 + 6e5)
    folder = run("tiny", table)
    capsys.readouterr()
    assert run("tiny", table, "--eval-only") == folder
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    assert "always the mean" in result_line(result)
    assert result_line(result) in capsys.readouterr().out


def test_the_snippet_on_the_card_answers_in_the_users_unit(run, tmp_path):
    folder = run(
        "tiny", write_table(tmp_path / "t.csv", lambda x: x * 1e5 + 6e5), "--unset", "head.pool",
        head={"kind": "native"},
    )  # fmt: skip
    card = (folder / "README.md").read_text(encoding="utf-8")
    names = {}
    exec(card.split("```python\n")[-1].split("```")[0], names)
    ours = [p.probabilities["value"] for p in load_run(folder)(names["texts"])]
    assert names["values"].tolist() == pytest.approx(ours, rel=1e-5)


def stop_after(monkeypatch, step):
    log_step = Tracker.log_step

    def log_or_stop(self, result, progress, rate):
        log_step(self, result, progress, rate)
        if progress.step == step:
            raise KeyboardInterrupt

    monkeypatch.setattr(Tracker, "log_step", log_or_stop)


def test_a_resumed_regression_goes_on_to_the_same_bits(run, tmp_path, monkeypatch):
    table = write_table(tmp_path / "t.csv", lambda x: x * 1e5 + 6e5)
    whole = run("whole", table, "train.epochs=2")
    with monkeypatch.context() as patch:
        stop_after(patch, step=40)  # in the second epoch
        assert run("parts", table, "train.epochs=2") == 130
    parts = run("parts", table, "train.epochs=2", "--resume")
    assert figures(parts) == figures(whole)
    for name in ("adapter_model.safetensors", "head.safetensors"):
        one, other = (load_file(folder / "model" / name) for folder in (whole, parts))
        assert all(one[key].equal(other[key]) for key in one)


def test_a_checkpoint_that_speaks_another_unit_is_not_resumed(run, tmp_path, monkeypatch, capsys):
    table = write_table(tmp_path / "t.csv", lambda x: x * 1e5 + 6e5)
    with monkeypatch.context() as patch:
        stop_after(patch, step=40)
        patch.setattr("job.fit.make_record", without_target())  # as before labels were standardised
        assert run("tiny", table, "train.epochs=2") == 130
    assert run("tiny", table, "train.epochs=2", "--resume") == 2
    assert "target: None then, {'mean': " in capsys.readouterr().err
    assert (
        run("tiny", table, "train.epochs=2", "--resume", "--allow-drift")
        == tmp_path / "runs" / "tiny"
    )


def without_target():
    from job.fit import make_record

    return lambda job: {k: v for k, v in make_record(job).items() if k != "target"}


def test_a_run_that_goes_on_from_a_run_keeps_the_unit_its_head_speaks(run, tmp_path, capsys):
    before = run("before", write_table(tmp_path / "a.csv", lambda x: x * 1e5 + 6e5))
    table = write_table(tmp_path / "b.csv", lambda x: x * 1e5 + 7e5, rows=280)
    source = {"source": f"run:{before}"}
    after = run("after", table, "train.lr=1e-12", model=source)
    said = flat(capsys.readouterr().out)
    assert "speaks in deviations of its own labels, and so does this run: mean" in said
    one, other = (
        json.loads((folder / "model" / "labels.json").read_text(encoding="utf-8"))
        for folder in (before, after)
    )
    assert one == other
    texts = ["the film was good", "the film was awful"]
    values = [[p.probabilities["value"] for p in load_run(f)(texts)] for f in (before, after)]
    assert values[1] == pytest.approx(values[0], rel=1e-4)


def test_a_run_in_another_unit_is_standardised_anew(run, tmp_path, capsys):
    before = run("before", write_table(tmp_path / "a.csv"))
    table = write_table(tmp_path / "b.csv", lambda x: x * 1e5 + 6e5)
    after = run("after", table, LEARN, model={"source": f"run:{before}"})
    assert "in another unit than the head" in flat(capsys.readouterr().out)
    assert figures(after)["r2"] > 0.5


@pytest.mark.parametrize(
    "metric",
    [
        "rmse",
        "spearman",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("mae", "r2", "loss")),
    ],
)
def test_the_best_checkpoint_can_be_picked_by_any_figure(run, tmp_path, metric):
    table = write_table(tmp_path / "t.csv", lambda x: x * 1e5 + 6e5)
    folder = run("tiny", table, f"eval.metric={metric}", "train.max_steps=8", "eval.every=1",
                 "run.keep=9")  # fmt: skip
    values = curve(folder, f"eval/{metric}")
    best = (max if metric in ("r2", "spearman") else min)(values)
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    assert result["progress"]["best_value"] == best
    assert f"{metric} " in result["weights"]


@pytest.mark.parametrize("label", [5, 0.1, 1.7e9], ids=["whole", "a fraction", "large"])
def test_labels_all_alike_are_said_and_answered(run, tmp_path, capsys, label):
    folder = run("tiny", write_table(tmp_path / "t.csv", lambda _: label), "train.max_steps=3")
    assert "WARNING every training row has the label" in flat(capsys.readouterr().out)
    assert figures(folder)["spearman"] == 0.0
    value = load_run(folder)(["a film"])[0].probabilities["value"]
    assert value == pytest.approx(label, abs=2)


@pytest.mark.slow
def test_labels_of_two_values_are_learnt(run, tmp_path):
    table = write_table(tmp_path / "t.csv", lambda score: 250_000 if score > 0 else 150_000)
    folder = run("tiny", table, LEARN)
    assert figures(folder)["r2"] > 0.5


@pytest.mark.slow
def test_the_unit_does_not_pass_through_the_number_format(run, tmp_path):
    table = write_table(tmp_path / "t.csv", lambda x: x * 1e7 + 1.7e9)
    folder = run("tiny", table, LEARN, "precision.dtype=bf16")
    assert figures(folder)["r2"] > 0.5
    assert figures(folder)["rmse"] < 1e7


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["eval.metric=macro_f1"], ["eval.metric", "numbers", "r2", "spearman"]),
        (["train.class_weights=balanced"], ["train.class_weights", "numbers", "--unset"]),
    ],
)
def test_what_only_classes_have_is_refused_with_the_way_out(run, tmp_path, capsys, words, parts):
    table = write_table(tmp_path / "t.csv")  # fractions: the kind is seen in the data alone
    assert run("tiny", table, "data.kind=auto", *words) == 2
    said = capsys.readouterr().err
    for part in parts:
        assert part in said


def test_what_only_numbers_have_is_refused_with_the_way_out(recipe, capsys):
    assert train.main(["--config", str(recipe()), "eval.metric=r2"]) == 2
    said = capsys.readouterr().err
    assert "eval.metric is r2; the labels are classes" in said
    assert "data.kind = 'regression'" in said
