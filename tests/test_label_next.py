"""check.py --next chooses rows to label, --curve says what doubling the rows is worth."""

import csv
import json
from itertools import pairwise

import numpy as np
import pytest
from conftest import make_reviews
from killed import kill_after_save

import check
from data.checks.near import compare_texts
from data.checks.spread import choose_spread, word_vectors
from data.write import json_text
from engine.decision import Decision
from job.checking.choose import margin
from job.checking.curve import share_config
from job.folder import Folder, finished_config
from job.predicting.predictor import Prediction, Predictor
from report.check import CurvePoint, curve_lines

SETTINGS = {"lora": None, "model": {"train": "head"}, "train": {"epochs": 1}}


@pytest.fixture
def pool(tmp_path, reviews_csv):
    """A table of 80 texts: 40 of their own, 20 twice, 20 hardly other than labelled ones."""
    draw = np.random.default_rng(0)
    words = [a + b for a in "bdfgklm" for b in ("ano", "eri", "olu", "ita", "ebo")]
    own = [" ".join(draw.choice(words, 25)) for _ in range(40)]
    with reviews_csv.open(encoding="utf-8", newline="") as file:
        labelled = [row["text"] for row in csv.DictReader(file)]
    texts = own + [text.upper() + "!" for text in own[:20]] + [f"{t}." for t in labelled[:20]]
    path = tmp_path / "pool.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["text"], *([text] for text in texts), [" "]])
    return path


def choose(run, pool, tmp_path, capsys, *words):
    out = tmp_path / "next.jsonl"
    assert check.main(["--run", str(run), "--next", str(pool), "--out", str(out), *words]) == 0
    printed = capsys.readouterr()
    lines = out.read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines], printed


def test_rows_to_label_are_near_nothing_known_and_nothing_chosen(
    run, pool, tmp_path, capsys, reviews_csv
):
    chosen, printed = choose(run, pool, tmp_path, capsys, "--count", "30")
    assert len(chosen) == 30
    texts = [one["text"] for one in chosen]
    for i, text in enumerate(texts):
        assert all(compare_texts((text,), (other,)) is None for other in texts[:i])
    labelled = [text for text, _ in make_reviews(60)]
    assert all(compare_texts((t,), (other,)) is None for t in texts for other in labelled)
    assert "20 near other rows of it" in printed.err
    assert "near labelled rows" in printed.err
    assert "1 unreadable or empty" in printed.err
    margins = [one["margin"] for one in chosen]
    assert margins == sorted(margins)
    assert all(one["row"].startswith("pool.csv:") for one in chosen)


def test_the_choice_is_the_same_again_and_json_is_the_file(run, pool, tmp_path, capsys):
    first, _ = choose(run, pool, tmp_path, capsys, "--count", "5")
    again, printed = choose(run, pool, tmp_path, capsys, "--count", "5", "--json")
    assert first == again
    assert printed.out == "".join(f"{json_text(one)}\n" for one in first)


def test_no_more_rows_than_there_are(run, pool, tmp_path, capsys):
    chosen, _ = choose(run, pool, tmp_path, capsys, "--count", "500")
    assert len(chosen) == 40


def test_a_pool_that_is_known_already_is_an_error(run, tmp_path, capsys, reviews_csv):
    words = ["--run", str(run), "--next", str(reviews_csv)]
    assert check.main(words) == 2
    assert "has no row to choose" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("kind", "thresholds", "shares", "expected"),
    [
        ("single", (), {"a": 0.7, "b": 0.2, "c": 0.1}, 0.5),
        ("single", (), {"a": 1.0}, 1.0),
        ("single", (0.5,), {"a": 0.7, "b": 0.3}, 0.4),
        ("single", (0.8,), {"a": 0.2, "b": 0.8}, 0.0),
        ("single", (0.8,), {"a": 0.1, "b": 0.9}, 0.5),
        ("multi", (), {"a": 0.9, "b": 0.45}, 0.1),
        ("multi", (0.9, 0.1), {"a": 0.9, "b": 0.45}, 0.0),
        ("multi", (0.5, 0.2), {"a": 0.99, "b": 0.1}, 0.5),
        ("multi", (0.5, 0.2), {"a": 0.99, "b": 0.4}, 0.25),
        ("regression", (), {"value": 3.0}, 0.0),
    ],
)
def test_a_margin_is_how_far_the_answer_is_ahead(kind, thresholds, shares, expected):
    decision = Decision(kind, thresholds=thresholds)
    assert margin(Prediction("t", "a", None, shares), decision) == pytest.approx(expected)


def test_a_pool_is_answered_in_chunks_and_its_vectors_are_bounded(
    run, pool, tmp_path, capsys, monkeypatch
):
    whole, _ = choose(run, pool, tmp_path, capsys, "--count", "5")
    sizes, crowds = [], []
    answer = Predictor.__call__

    def count_texts(self, texts):
        texts = list(texts)
        sizes.append(len(texts))
        return answer(self, texts)

    def count_vectors(texts):
        crowds.append(len(texts))
        return word_vectors(texts)

    monkeypatch.setattr(Predictor, "__call__", count_texts)
    monkeypatch.setattr("job.checking.choose.word_vectors", count_vectors)
    monkeypatch.setattr("job.checking.choose.CHUNK", 16)
    monkeypatch.setattr("job.checking.choose.MOST", 12)
    assert [one["row"] for one in whole] != []
    few, _ = choose(run, pool, tmp_path, capsys, "--count", "5")
    assert (len(few), crowds, max(sizes), sum(sizes)) == (5, [12], 16, 80)
    many, _ = choose(run, pool, tmp_path, capsys, "--count", "20")
    assert (len(many), crowds) == (20, [12])  # the least sure ones, none farther than another
    margins = [one["margin"] for one in many]
    assert margins == sorted(margins)


@pytest.mark.parametrize("out", ["pool.csv", "none/next.jsonl", "reviews"])
def test_a_file_that_cannot_be_written_is_told_before_a_model_is_loaded(
    run, pool, tmp_path, capsys, monkeypatch, reviews_csv, out
):
    path = reviews_csv if out == "reviews" else tmp_path / out
    held = pool.read_bytes(), reviews_csv.read_bytes()
    monkeypatch.setattr("openloop.load_run", None)
    assert check.main(["--run", str(run), "--next", str(pool), "--out", str(path)]) == 2
    assert "--out" in capsys.readouterr().err
    assert held == (pool.read_bytes(), reviews_csv.read_bytes())


def test_rows_that_a_person_has_labelled_are_kept(run, pool, tmp_path, capsys):
    choose(run, pool, tmp_path, capsys, "--count", "5")
    out = tmp_path / "next.jsonl"
    out.write_text("labelled\n", encoding="utf-8")
    _, printed = choose(run, pool, tmp_path, capsys, "--count", "5")
    assert f"{out}.old" in printed.err
    assert (tmp_path / "next.jsonl.old").read_text(encoding="utf-8") == "labelled\n"


def test_rows_far_apart_are_chosen_as_by_looking_at_all():
    draw = np.random.default_rng(1)
    vectors = draw.normal(size=(60, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    chosen = choose_spread(vectors, 10)
    for k in range(1, 10):  # each is the one whose nearest chosen one is farthest
        rest = [i for i in range(60) if i not in chosen[:k]]
        near = {i: max(float(vectors[i] @ vectors[j]) for j in chosen[:k]) for i in rest}
        assert near[chosen[k]] == pytest.approx(min(near.values()), abs=1e-6)


def test_texts_of_the_same_words_have_the_same_vector():
    vectors = word_vectors(["a good film", "film, good a", "another thing", ""])
    assert vectors[0] @ vectors[1] == pytest.approx(1)
    assert vectors[0] @ vectors[2] < 0.1
    assert not vectors[3].any()


def test_a_curve_trains_shares_of_the_rows_and_compares_doublings(start, capsys):
    path, _ = start("one", "data.subset={train = 32}", "data.test=16")
    assert check.main(["--run", str(path), "--curve", "--json"]) == 0
    points = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [point["rows"] for point in points] == [4, 8, 16, 32]
    result = json.loads((path / "result.json").read_text(encoding="utf-8"))
    assert points[-1]["value"] == result["test"]["accuracy"]
    for before, point in pairwise(points):
        assert point["gain"][0] == pytest.approx(point["value"] - before["value"])
        assert point["gain"][1] <= point["gain"][0] <= point["gain"][2]
    folders = sorted(folder.name for folder in path.parent.iterdir() if folder.is_dir())
    assert folders == ["one", "one-12percent", "one-25percent", "one-50percent"]
    stamp = (path.parent / "one-12percent/result.json").stat().st_mtime_ns
    assert check.main(["--run", str(path), "--curve"]) == 0  # what is finished is not trained again
    assert (path.parent / "one-12percent/result.json").stat().st_mtime_ns == stamp
    assert "The last doubling, to 32 rows, was worth" in capsys.readouterr().out


@pytest.fixture
def numbers(tmp_path):
    """A table of 72 texts with numbers."""
    path = tmp_path / "numbers.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = [(f"the film was {('good', 'bad')[i % 2]} {i}", i % 2 + i / 100) for i in range(72)]
        csv.writer(file).writerows([("text", "label"), *rows])
    return path


def test_a_curve_of_numbers_is_one_of_their_rmse(start, numbers, capsys):
    path, _ = start("one", f"data.source={numbers}", "data.kind=regression", "data.test=16")
    assert check.main(["--run", str(path), "--curve", "--json"]) == 0
    points = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    result = json.loads((path / "result.json").read_text(encoding="utf-8"))
    assert [point["metric"] for point in points] == ["rmse"] * 4
    assert points[-1]["value"] == result["test"]["rmse"]
    for before, point in pairwise(points):
        assert point["gain"][0] == pytest.approx(point["value"] - before["value"])


def test_a_curve_without_a_figure_is_refused_before_anything_is_trained(start, capsys):
    path, _ = start("one", "data.test=0")
    assert check.main(["--run", str(path), "--curve"]) == 2
    assert "no test figure to compare" in capsys.readouterr().err
    assert [folder.name for folder in path.parent.iterdir() if folder.is_dir()] == ["one"]


def test_shares_of_another_recipe_are_refused_and_left_alone(start, capsys):
    path, _ = start("one", "data.test=16")
    assert check.main(["--run", str(path), "--curve"]) == 0
    held = {p: p.read_bytes() for p in path.parent.glob("one-*/result.json")}
    for changed in ("train.lr=0.003", "run.seed=7", "data.max_length=16"):
        start("one", "data.test=16", changed, "--fresh")
        capsys.readouterr()
        assert check.main(["--run", str(path), "--curve"]) == 2
        message = capsys.readouterr().err
        assert "one-12percent was trained from another recipe" in message
        assert changed.partition("=")[0] in message
        assert "move it away" in message
    assert held == {p: p.read_bytes() for p in path.parent.glob("one-*/result.json")}


def test_a_share_that_was_killed_is_gone_on_with(start, capsys):
    from openloop import open_job, run_job

    path, _ = start("one", "data.test=16")
    smaller = share_config(finished_config(Folder(path)), path, 50, 16)
    kill_after_save(1, lambda: run_job(open_job(smaller)))
    folder = Folder(path.parent / "one-50percent")
    assert not folder.result.exists()
    capsys.readouterr()
    assert check.main(["--run", str(path), "--curve"]) == 0
    assert folder.result.exists()
    assert "resum" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("metric", "gain", "word"),
    [
        ("accuracy", (0.02, 0.01, 0.03), "worth their labels"),
        ("accuracy", (0.02, -0.01, 0.05), "chance alone"),
        ("accuracy", (-0.02, -0.03, -0.01), "worse"),
        ("rmse", (-0.02, -0.03, -0.01), "worth their labels"),
    ],
)
def test_the_last_doubling_is_judged_by_its_interval(metric, gain, word):
    points = [CurvePoint(50, metric, 0.8, None), CurvePoint(100, metric, 0.82, gain)]
    assert word in " ".join(curve_lines(points))


@pytest.mark.parametrize(
    "words",
    [
        ["--run", "a"],
        ["--run", "a", "--next", "b", "--curve"],
        ["--csv", "a", "--curve"],
        ["--run", "a", "--next", "b", "--count", "0"],
        ["--run", "a", "--curve", "train.lr=1"],
        ["--run", "a", "--curve", "--out", "b.jsonl"],
        ["--csv", "a", "--config", "b"],
    ],
)
def test_options_that_do_not_go_together_are_refused(words):
    with pytest.raises(SystemExit) as raised:
        check.main(words)
    assert raised.value.code == 2


def test_a_pool_may_name_its_text_otherwise(run, pool, tmp_path, capsys):
    expected, _ = choose(run, pool, tmp_path, capsys, "--count", "5")
    other = tmp_path / "other" / "pool.csv"
    other.parent.mkdir()
    content = pool.read_text(encoding="utf-8")
    other.write_text(content.replace("text", "review", 1), encoding="utf-8")
    words = ["--count", "5", "--column", "review"]
    assert choose(run, other, tmp_path, capsys, *words)[0] == expected
    assert check.main(["--run", str(run), "--next", str(other), "--out", str(tmp_path / "n")]) == 2
    error = capsys.readouterr().err
    assert "'text'" in error
    assert "--column" in error
