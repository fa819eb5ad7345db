"""Few labels: the probe that is proposed, and its optimum."""

import json

import pytest
import torch
from torch.nn import functional as F

import train
from openloop import load_run
from configs.read import read_config
from configs.schema import METHODS
from job.checking.guess import FEW, chooses_a_way, guess_recipe
from job.tasks.table import prepare
from job.training.cached import open_cached


def table(tmp_path, rows):
    path = tmp_path / "reviews.csv"
    lines = [f"a long review of film {i},{'good' if i % 2 else 'bad'}" for i in range(rows)]
    path.write_text("\n".join(["review,verdict", *lines]), encoding="utf-8")
    return path


def test_a_probe_is_proposed_for_few_rows_and_says_why(tmp_path):
    recipe, said = guess_recipe(table(tmp_path, FEW - 1), {})
    assert recipe["model"]["train"] == "head"
    assert "lora" not in recipe
    assert recipe["train"]["micro_batch_size"] >= FEW  # a step sees all rows
    assert any("499 rows are fewer than 500" in line for line in said)


def test_no_probe_is_proposed_for_more_rows(tmp_path):
    recipe, said = guess_recipe(table(tmp_path, FEW), {})
    assert "lora" in recipe
    assert any(line.startswith("epochs = ") for line in said)


@pytest.mark.parametrize(
    "words",
    ["lora.rank=8", "train.lr=1", "model.train=head", "head.kind=mlp", "contrast.pairs=8",
     "adapter.size=8", "distill.teacher=run:x", "model.source=ngrams", "--unset lora"],
)  # fmt: skip
def test_settings_that_say_how_to_train_propose_no_probe(words):
    key, _, value = words.removeprefix("--unset ").partition("=")
    assert chooses_a_way({"data.label": "x", key: value or None})


def test_other_settings_leave_the_proposal():
    others = ("data.label", "model.source", "run.name", "eval.baseline", "bag.rows")
    assert not chooses_a_way(dict.fromkeys(others, "x"))


@pytest.fixture
def csv(tmp_path, reviews_csv, tiny_folder, capsys):
    """csv("name", "adapter.size=8", …) -> (the run's recipe, what was said) of a run on a small
    table; {runs} in a word is the folder of the runs."""

    def start(name, *words, code=0):
        fixed = [f"run.name={name}", f"run.dir={tmp_path}", "train.max_steps=2"]
        fixed += ["precision.device=cpu", "speed.native=off", "eval.baseline=false"]
        words = [word.replace("{runs}", str(tmp_path)) for word in words]
        assert train.main(["--csv", str(reviews_csv), *fixed, *words]) == code
        captured = capsys.readouterr()
        return read_config(tmp_path / name / "config.toml"), captured.out

    start.tiny = f"model.source={tiny_folder}"
    return start


@pytest.mark.parametrize(
    ("words", "method"),
    [
        (["adapter.size=8"], "adapter"),
        (["prompt.tokens=2"], "prompt"),
        (["prefix.tokens=2"], "prefix"),
        (["method.kind=examples/own_method.py:IA3", "--allow-code"], "method"),
        (["lora.rank=2"], "lora"),
        (["lora.rank=2", "model.train=last:1"], "lora"),
        (["contrast.pairs=4"], None),
        (["contrast.pairs=4", "lora.rank=2"], "lora"),
        (["contrast.pairs=4", "model.train=all"], None),
        (["model.train=bias"], None),
        (["model.train=all"], None),
        (["model.train=last:1"], None),
        (["model.train=head"], None),
        (["--unset", "lora"], None),
    ],
)
def test_a_way_that_is_named_is_taken_in_one_go_with_its_own_rates(csv, words, method):
    config, said = csv("named", csv.tiny, "data.max_length=32", *words)
    assert [name for name in METHODS if getattr(config, name) is not None] == [method] * bool(
        method
    )
    assert "rows are fewer" not in said
    rates = {"adapter": 4e-3, "prompt": 3e-2, "prefix": 1e-2, None: 5e-5}
    trained = {"model.train=head": 1e-2, "model.train=bias": 3e-3, "model.train=last:1": 1e-4}
    rate = rates.get(method, 1e-3)
    if method is None:
        rate = next((trained[word] for word in words if word in trained), rate)
    assert config.train.lr == rate
    assert (f"lr = {rate:g}, as in configs/" in said) == (method not in ("lora", "method"))


@pytest.mark.parametrize("method", ["prompt", "prefix"])
@pytest.mark.parametrize(("tokens", "left"), [("5", 507), ("many", 492)])
def test_a_prompt_or_a_prefix_leaves_the_texts_the_other_positions(tmp_path, method, tokens, left):
    recipe, _ = guess_recipe(table(tmp_path, FEW), {f"{method}.tokens": tokens})
    assert recipe["data"]["max_length"] == left


@pytest.mark.parametrize(("pairs", "epochs"), [("64", 4), ("512", 1), ("2", 10)])
def test_pairs_of_rows_take_as_many_steps_as_their_recipe(tmp_path, pairs, epochs):
    recipe, _ = guess_recipe(table(tmp_path, FEW), {"contrast.pairs": pairs})
    assert recipe["train"]["epochs"] == epochs
    assert "lora" not in recipe


def test_what_is_mistyped_is_told_without_what_was_guessed(reviews_csv, capsys):
    assert train.main(["--csv", str(reviews_csv), "adaptor.size=8"]) == 2
    captured = capsys.readouterr()
    assert "adaptor" in captured.err
    assert "rows are fewer" not in captured.out


@pytest.mark.parametrize(
    ("words", "warned"),
    [
        (["adapter.size=2", "model.train=last:1"], True),
        (["adapter.size=2", "model.train=last:1", "train.lr=1e-4"], False),
        (["adapter.size=2"], False),
        (["model.train=bias"], False),
    ],
)
def test_whole_layers_at_a_methods_rate_are_told(csv, words, warned):
    _, said = csv("named", csv.tiny, "data.max_length=32", *words)
    assert ("what is pretrained learns" in " ".join(said.split())) == warned


def test_a_bag_of_ngrams_its_run_and_a_student_are_taken_in_one_go(csv):
    bag, said = csv("bag", "model.source=ngrams")
    assert (bag.model.source, bag.lora, bag.train.lr) == ("ngrams", None, 3e-2)
    assert "lr = 0.03, as in configs/imdb_ngrams.toml" in said
    csv("more", "model.source=run:{runs}/bag")
    csv("teacher", csv.tiny, "data.max_length=32", "lora.rank=2")
    student = ["distill.teacher={runs}/teacher", "data.max_length=32"]
    pupil, _ = csv("pupil", *student, "distill.student=ngrams")
    assert pupil.model.source == "ngrams"
    half, _ = csv("half", *student, "distill.student=layers:2")
    assert half.lora is not None
    assert half.model.source == half.distill.teacher
    same, _ = csv("same", *student, csv.tiny)
    assert same.lora is not None


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
    guessed, _ = guess_recipe(table(tmp_path, 10), {})
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
