"""Few labels: the probe that is proposed, and its optimum."""

import json

import pytest
import torch
from torch.nn import functional as F

import train
from openloop import load_run
from configs.read import read_config
from job.cached import open_cached
from job.guess import FEW, chooses_a_way, guess_recipe
from job.prepare import prepare


def table(tmp_path, rows):
    path = tmp_path / "reviews.csv"
    lines = [f"a long review of film {i},{'good' if i % 2 else 'bad'}" for i in range(rows)]
    path.write_text("\n".join(["review,verdict", *lines]), encoding="utf-8")
    return path


def test_a_probe_is_proposed_for_few_rows_and_says_why(tmp_path):
    recipe, said = guess_recipe(table(tmp_path, FEW - 1), probe=True)
    assert recipe["model"]["train"] == "head"
    assert "lora" not in recipe
    assert recipe["train"]["micro_batch_size"] >= FEW  # a step sees all rows
    assert any("499 rows are fewer than 500" in line for line in said)


def test_no_probe_is_proposed_for_more_rows(tmp_path):
    recipe, said = guess_recipe(table(tmp_path, FEW), probe=True)
    assert "lora" in recipe
    assert any(line.startswith("epochs = ") for line in said)


@pytest.mark.parametrize("key", ["lora.rank", "train.lr", "model.train", "head.kind", "lora"])
def test_settings_of_the_training_keep_the_adapter(key):
    assert chooses_a_way({"data.label", key})
    assert not chooses_a_way({"data.label", "model.source", "run.name", "eval.baseline"})


def test_a_small_table_trains_a_probe_that_answers(tmp_path, reviews_csv, tiny_folder, capsys):
    words = [f"model.source={tiny_folder}", f"run.dir={tmp_path}", "data.max_length=32"]
    words += ["precision.device=cpu", "precision.dtype=fp32", "speed.native=off"]
    words += ["eval.baseline=false", 'samples.texts=["a good film"]']
    assert train.main(["--csv", str(reviews_csv), *words]) == 0
    said = capsys.readouterr().out
    assert "rows are fewer than 500" in said
    assert "0.0025 times the squares of the weights that decay" in " ".join(said.split())
    assert "cache of the frozen part: the mean of each text" in said
    folder = tmp_path / "reviews"
    assert load_run(folder)(["a good film"])[0].label in ("pos", "neg")
    assert "openloop" in (folder / "README.md").read_text(encoding="utf-8")
    assert (
        json.loads((folder / "result.json").read_text(encoding="utf-8"))["progress"]["step"] == 200
    )
    again = ["--config", str(tmp_path / "reviews.toml")]  # the recipe it wrote
    assert train.main([*again, "--resume"]) == 0


def test_the_probe_reaches_the_optimum_of_logistic_regression(recipe, tmp_path, monkeypatch):
    linear_model = pytest.importorskip("sklearn.linear_model")
    monkeypatch.setenv("OPENLOOP_CACHE", str(tmp_path / "cache"))
    guessed, _ = guess_recipe(table(tmp_path, 10), probe=True)
    settings = {name: guessed[name] for name in ("head", "train", "eval")}
    settings |= {"model": {"train": "head"}, "lora": None, "speed": {"native": "off"}}
    path = recipe(**settings)
    # vectors of a random encoder lie close together: a longer way to the optimum than real ones
    words = ["train.epochs=2000", "eval.every=2000", "train.weight_decay=0.02"]
    words += ["eval.baseline=false", "run.log_every=500"]
    assert train.main(["--config", str(path), *words]) == 0
    config = read_config(path, words)
    job = prepare(config, False)
    open_cached(job.cached, job.encoded, job.padding, job.precision)
    kept = job.kept("train")
    x, y = kept.states(list(range(job.encoded["train"].rows))), kept.labels  # (N, D), (N,)
    decay = config.train.weight_decay

    def loss(weight, bias):
        return float(F.cross_entropy(x @ weight.T + bias, y) + decay / 2 * weight.square().sum())

    # of two classes scikit-learn has one row of weights: ours are minus and plus half of it
    reference = linear_model.LogisticRegression(C=2 / (decay * len(y)), tol=1e-9, max_iter=10_000)
    reference.fit(x.double().numpy(), y.numpy())
    half = torch.tensor(reference.coef_).float() / 2
    at = torch.tensor(reference.intercept_).float() / 2
    best = loss(torch.cat([-half, half]), torch.cat([-at, at]))
    head = load_run(tmp_path / "runs" / "tiny").model.head.out.requires_grad_(False)
    assert abs(loss(head.weight, head.bias) - best) < 1e-3
