"""The test rows in slices: recounted from test_predictions.jsonl, and which are surely worse."""

import csv
import json
import random
from collections import Counter

import numpy as np
import pytest
from sklearn.metrics import root_mean_squared_error

import train
from engine.intervals import wilson_interval
from job.reporting.figures import length_bands
from job.reporting.predictions import read_predictions
from job.testing.slices import MOST_VALUES, TestRows, slice_rows
from report.slices import name_value, slice_table, worse_lines
from tests.conftest import make_reviews, result_of


def rows_of(figures, numbers=False, **columns):
    n = len(figures)
    labels = columns.pop("labels", [])
    return TestRows(
        numbers, np.array(figures, dtype=float), list(range(n)), [f"r:{i:04}" for i in range(n)],
        labels, columns,
    )  # fmt: skip


def test_each_value_has_its_rows_their_share_and_its_interval():
    (own,) = slice_rows(["source"], rows_of([1, 1, 0, 1, 0], source=list("aabbb"))).values()
    assert [(row.value, row.n, row.right) for row in own] == [("b", 3, 1), ("a", 2, 2)]
    for row in own:
        assert row.figure == row.right / row.n
        assert (row.low, row.high) == wilson_interval(row.right, row.n)
    assert [row.others for row in own] == [1.0, pytest.approx(1 / 3)]


def test_of_a_column_with_many_values_the_rare_ones_stand_together():
    values = [f"v{i:02}" for i in range(30) for _ in range(40 - i)]
    (own,) = slice_rows(["user"], rows_of([1] * len(values), user=values)).values()
    assert len(own) == MOST_VALUES + 1
    assert [row.value for row in own[:-1]] == [f"v{i:02}" for i in range(MOST_VALUES)]
    assert (own[-1].values, own[-1].n) == (10, sum(40 - i for i in range(20, 30)))
    assert name_value(own[-1]) == "(10 others)"
    assert sum(row.n for row in own) == len(values)


def test_one_value_too_many_is_shown_by_its_name():
    values = [f"v{i:02}" for i in range(MOST_VALUES + 1)]
    (own,) = slice_rows(["user"], rows_of([1] * len(values), user=values)).values()
    assert sorted(row.value for row in own) == values


def test_a_slice_that_is_surely_worse_is_named_and_a_small_one_is_not():
    right = [1] * 180 + [0] * 20 + [1] * 20 + [0] * 30 + [0, 0]
    source = ["web"] * 200 + ["mail"] * 50 + ["fax"] * 2
    slices = slice_rows(["source"], rows_of(right, source=source))
    assert [row.value for row in slices["source"] if row.worse] == ["mail"]
    (line,) = worse_lines(slices)
    for part in ("source = mail", "0.4000 on 50 rows", "0.8911 on the others", "Fisher", "Holm"):
        assert part in line
    assert "worse" in slice_table(slices)


def test_slices_of_rows_that_are_all_alike_are_hardly_ever_worse():
    """At most one report in twenty names any slice by chance, however many it looks at."""
    generator = np.random.default_rng(0)
    named = 0
    for _ in range(200):
        right = (generator.random(300) < 0.8).astype(float)
        rows = rows_of(right, a=list(generator.integers(0, 12, 300).astype(str)),
                       b=list(generator.integers(0, 5, 300).astype(str)))  # fmt: skip
        named += bool(worse_lines(slice_rows(["a", "b", "length"], rows)))
    assert named <= 16  # of a binomial with 200 and 0.05, 0.98 of its mass


def test_numbers_have_their_rmse_with_a_bootstrap_interval():
    generator = np.random.default_rng(1)
    errors = np.concatenate([generator.normal(0, 1, 80), generator.normal(0, 3, 40)])
    source = ["web"] * 80 + ["mail"] * 40
    slices = slice_rows(["source"], rows_of(errors**2, numbers=True, source=source))
    web, mail = slices["source"]
    assert mail.figure == pytest.approx(root_mean_squared_error(errors[80:], np.zeros(40)))
    draws = generator.choice(errors[80:] ** 2, (20_000, 40)).mean(axis=1) ** 0.5
    assert (mail.low, mail.high) == pytest.approx(np.quantile(draws, [0.025, 0.975]), abs=0.05)
    assert (web.worse, mail.worse, mail.right, mail.metric) == (False, True, None, "rmse")
    assert "rank sums of the errors" in worse_lines(slices)[0]


def test_a_slice_of_all_rows_is_held_against_none():
    slices = slice_rows(["source"], rows_of([1, 0, 1], source=["web"] * 3))
    (row,) = slices["source"]
    assert (row.others, row.p, row.worse) == (None, None, False)
    assert worse_lines(slices) == []


def test_bands_of_length_are_of_about_equal_size_and_in_order():
    tokens = random.Random(0).choices(range(5, 60), k=83)
    bands = length_bands(tokens, [f"{i:03}" for i in range(83)])
    assert sorted(place for _, places in bands for place in places) == list(range(83))
    assert max(len(p) for _, p in bands) - min(len(p) for _, p in bands) <= 1
    for name, places in bands:
        held = [tokens[place] for place in places]
        assert name == f"{min(held)} to {max(held)}"


# Runs


@pytest.fixture(scope="module")
def sliced(tmp_path_factory, tiny_folder):
    """A run on rows whose column source has empty cells, with three kinds of slices."""
    import tomli_w

    folder = tmp_path_factory.mktemp("sliced")
    with (folder / "rows.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label", "source", "a.b"])
        for i, (text, label) in enumerate(make_reviews(160)):
            writer.writerow([text, label, ["web", " mail  box ", ""][i % 3], i % 2])
    tables = {
        "run": {"name": "one", "dir": str(folder / "runs")},
        "model": {"source": str(tiny_folder)},
        "head": {"kind": "linear", "pool": "mean"},
        "data": {"source": str(folder / "rows.csv"), "max_length": 32, "test": 60},
        "train": {"epochs": 1, "lr": 1e-3},
        "eval": {"slices": ["source", "length", "label", "a.b"], "baseline": False,
                 "metric": "average_precision"},
        "precision": {"dtype": "fp32", "device": "cpu"},
        "speed": {"native": "off"},
    }  # fmt: skip
    (folder / "recipe.toml").write_text(tomli_w.dumps(tables), encoding="utf-8")
    assert train.main(["--config", str(folder / "recipe.toml")]) == 0
    return folder / "runs" / "one"


def predictions(run):
    lines = (run / "test_predictions.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_a_runs_slices_are_those_of_its_predictions(sliced):
    result, rows = result_of(sliced), predictions(sliced)
    assert set(result["slices"]) == {"source", "length", "label", "a.b"}
    right = [row["label"] == row["predicted"] for row in rows]
    values = {
        "source": [row["slices"]["source"] for row in rows],
        "a.b": [row["slices"]["a.b"] for row in rows],
        "label": [row["label"] for row in rows],
    }
    assert set(values["source"]) == {"web", "mail box", ""}
    for name, held in values.items():
        hits = Counter(value for value, hit in zip(held, right, strict=True) if hit)
        expected = {value: (n, hits[value]) for value, n in Counter(held).items()}
        own = {row["value"]: (row["n"], row["right"]) for row in result["slices"][name]}
        assert own == expected, name
    lines = list(read_predictions(sliced / "test_predictions.jsonl"))
    from job.reporting.figures import by_length

    bands = [(band.name, band.rows, band.right) for band in by_length(lines)]
    shown = [(row["value"], row["n"], row["right"]) for row in result["slices"]["length"]]
    assert shown == bands


def test_the_card_shows_the_slices(sliced):
    card = (sliced / "README.md").read_text(encoding="utf-8").split("## Slices")[1].split("## ")[0]
    for part in ("source", "mail box", "(none)", "length", "a.b"):
        assert part in card


def test_slices_change_no_row_and_no_figure(sliced, tmp_path):
    words = [f"run.dir={tmp_path}", "eval.slices=[]"]
    assert train.main(["--config", str(sliced / "config.toml"), *words]) == 0
    one, other = result_of(sliced), result_of(tmp_path / "one")
    assert other["test"] == one["test"]
    assert other["slices"] == {}
    prints = [
        json.loads((run / "data.json").read_text(encoding="utf-8"))["fingerprint"]
        for run in (sliced, tmp_path / "one")
    ]
    assert prints[0] == prints[1]
    assert all("slices" not in row for row in predictions(tmp_path / "one"))


def test_a_column_that_is_not_there_stops_before_step_1(sliced, tmp_path, capsys):
    words = [f"run.dir={tmp_path}", "eval.slices=['sorce']"]
    assert train.main(["--config", str(sliced / "config.toml"), *words]) == 2
    said = capsys.readouterr().err
    assert "eval.slices" in said
    assert "did you mean 'source'" in said


@pytest.fixture
def stars(tmp_path):
    """A JSONL file of rows with numbers; `source` is there in some of them, `lang` as an object."""
    rows = [
        {"text": f"{'good ' * (i % 6)}film {i}", "label": i % 6 + 0.5, "meta": {"lang": "en"},
         **({"source": 3.0} if i % 2 else {})}
        for i in range(80)
    ]  # fmt: skip
    path = tmp_path / "stars.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def test_numbers_and_json_rows_without_a_field_have_slices(recipe, stars, tmp_path, capsys):
    data = {"source": str(stars), "kind": "regression", "test": 30}
    path = str(recipe(data=data, eval={"baseline": False}, samples=None, speed={"native": "off"}))
    words = ["train.epochs=1", 'eval.slices=["source", "meta.lang", "length"]', "--strict"]
    words += ['expect=[{text = "good", label = 3, within = 1e4}]']
    assert train.main(["--config", path, *words]) == 0
    words[-1] = 'expect=[{text = "good", label = 1e6, within = 1}]'
    assert train.main(["--config", path, "--resume", *words]) == 3
    run = tmp_path / "runs" / "tiny"
    slices, rows = result_of(run)["slices"], predictions(run)
    assert {row["value"] for row in slices["source"]} == {"3", ""}
    assert [(row["value"], row["n"]) for row in slices["meta.lang"]] == [("en", 30)]
    for row in slices["source"]:
        errors = [one["probabilities"]["value"] - one["label"] for one in rows
                  if one["slices"]["source"] == row["value"]]  # fmt: skip
        assert row["n"] == len(errors)
        assert row["figure"] == pytest.approx(np.mean(np.square(errors)) ** 0.5)
        assert row["low"] <= row["figure"] <= row["high"]
    capsys.readouterr()
    for name, part in (("nothing", "no row has a field 'nothing'"), ("label", "one class a row")):
        code = train.main(["--config", path, f"eval.slices=['{name}']", "run.name=other"])
        assert code == 2
        assert part in capsys.readouterr().err


# The deciding metric


def test_the_metric_of_the_recipe_decides_and_is_written_everywhere(sliced):
    lines = [
        json.loads(line)
        for line in (sliced / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    evaluations = [line for line in lines if "eval/average_precision" in line]
    result = result_of(sliced)
    progress = result["progress"]
    best = max(evaluations, key=lambda line: line["eval/average_precision"])
    assert progress["best_value"] == best["eval/average_precision"]
    names = {"weighted_f1", "balanced_accuracy", "mcc", "auroc", "average_precision"}
    assert names <= result["test"].keys()
    assert {f"test/{name}" for name in names} <= lines[-1].keys()
    card = (sliced / "README.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in card for name in names)


def test_the_figures_of_a_run_are_scikit_learns_of_its_predictions(sliced):
    from sklearn import metrics as sk

    rows, test = predictions(sliced), result_of(sliced)["test"]
    true = [row["label"] for row in rows]
    said = [row["predicted"] for row in rows]
    shares = np.array([[row["probabilities"][name] for name in ("neg", "pos")] for row in rows])
    hot = np.array([[label == name for name in ("neg", "pos")] for label in true])
    expected = {
        "weighted_f1": sk.f1_score(true, said, average="weighted"),
        "balanced_accuracy": sk.balanced_accuracy_score(true, said),
        "mcc": sk.matthews_corrcoef(true, said),
        "auroc": sk.roc_auc_score(hot[:, 1], shares[:, 1]),
        "average_precision": sk.average_precision_score(hot, shares, average="macro"),
    }
    assert {name: test[name] for name in expected} == pytest.approx(expected, abs=2e-3)


def test_tensorboard_shows_curves_confidence_and_reliability(sliced):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    board = EventAccumulator(str(sliced / "tensorboard"))
    board.Reload()
    rows = predictions(sliced)
    for name in ("neg", "pos"):
        (event,) = board.Tensors(f"test/precision_recall/{name}")
        hits, false, _, _, precision, _ = make_ndarray(event.tensor_proto)  # (127,) each
        for place in (0, 40, 64, 90):
            share = place / 126
            given = [row for row in rows if row["probabilities"][name] >= share - 1e-9]
            right = sum(row["label"] == name for row in given)
            assert (hits[place], false[place]) == (right, len(given) - right)
            if given:
                assert precision[place] == pytest.approx(right / len(given))
    (event,) = board.Histograms("test/confidence")
    assert event.histogram_value.num == len(rows)
    sure = [max(row["probabilities"].values()) for row in rows]
    assert event.histogram_value.sum == pytest.approx(sum(sure))
    assert board.Images("test/reliability")
    assert {"test/auroc", "eval/mcc"} <= set(board.Tags()["scalars"])


@pytest.mark.parametrize(
    ("labels", "part"),
    [
        (["only"] * 20 + ["pos", "neg"] * 20, "validation rows are all alike"),
        ([f"class {i % 101}" for i in range(404)], "counted for at most 100 classes"),
    ],
)
def test_a_metric_that_could_not_decide_is_refused_before_step_1(
    recipe, tmp_path, capsys, labels, part
):
    source = {}
    for split, own in (("validation", labels[:20]), ("train", labels[20:])):
        path = tmp_path / f"{split}.jsonl"
        rows = [{"text": f"{split} film {i}", "label": label} for i, label in enumerate(own)]
        path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
        source[split] = str(path)
    path = recipe(data={"source": source, "kind": "single"}, eval={"metric": "auroc"})
    assert train.main(["--config", str(path), "--dry-run"]) == 2
    assert part in capsys.readouterr().err


def test_a_test_of_one_class_has_no_area_and_no_nan(recipe, tmp_path):
    source = {}
    for split, labels in (("train", "pn"), ("validation", "pn"), ("test", "p")):
        path = tmp_path / f"{split}.jsonl"
        rows = [{"text": f"{split} film {i}", "label": labels[i % len(labels)]} for i in range(24)]
        path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
        source[split] = str(path)
    path = recipe(data={"source": source}, samples=None, speed={"native": "off"},
                  eval={"baseline": False, "slices": ["length"]})  # fmt: skip
    assert train.main(["--config", str(path), "train.epochs=1"]) == 0
    text = (tmp_path / "runs" / "tiny" / "result.json").read_text(encoding="utf-8")
    assert "NaN" not in text
    test = json.loads(text)["test"]
    assert {"auroc", "average_precision"}.isdisjoint(test)
    assert {"mcc", "balanced_accuracy", "weighted_f1"} <= test.keys()
