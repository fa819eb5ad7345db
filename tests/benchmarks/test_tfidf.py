"""TF-IDF on the rows of a recipe, and a run beside it on the same rows."""

import json

import numpy as np
import pytest
from tfidf import compare, load_rows, main, read_hits

from configs.read import read_config


@pytest.fixture
def make_run(tmp_path):
    """make_run(name, {address: right?}) -> folder of a finished run."""

    def make(name, right):
        folder = tmp_path / name
        folder.mkdir()
        lines = [
            {"row": row, "label": "pos", "predicted": "pos" if hit else "neg"}
            for row, hit in right.items()
        ]
        text = "\n".join(map(json.dumps, lines))
        (folder / "test_predictions.jsonl").write_text(text, encoding="utf-8")
        return folder

    return make


def test_hits_come_in_the_order_of_the_rows_asked_for(make_run):
    run = make_run("a", {"f:3": False, "f:2": True})
    assert read_hits(run, ["f:2", "f:3"]).tolist() == [1.0, 0.0]


def test_the_difference_is_a_mean_over_runs_on_the_same_rows(make_run):
    rows = [f"f:{i}" for i in range(4)]
    runs = [
        make_run("a", dict.fromkeys(rows, True)),
        make_run("b", {row: row != "f:0" for row in rows}),
    ]
    said = compare(np.array([1.0, 1.0, 0.0, 0.0]), runs, rows)
    assert "runs: 1.0000, 0.7500, mean 0.8750" in said
    assert "runs minus TF-IDF: +0.3750 (" in said
    assert "4 rows, 2 runs" in said


def test_other_test_rows_are_refused(make_run):
    run = make_run("a", {"f:1": True, "f:2": True})
    with pytest.raises(ValueError, match="tested on 2 rows, of which 1 are among the 2 here"):
        read_hits(run, ["f:2", "f:3"])


def test_an_unfinished_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match="give the folder of a finished run"):
        read_hits(tmp_path, ["f:2"])


def test_it_takes_the_rows_of_a_recipe_and_a_run_beside_them(recipe, make_run, capsys, monkeypatch):
    path = recipe()
    rows, addresses = load_rows(read_config(path))
    assert [len(rows[split].texts) for split in ("train", "validation", "test")] == [36, 12, 12]
    run = make_run("a", dict.fromkeys(addresses, True))
    monkeypatch.setattr("sys.argv", ["tfidf.py", "--config", str(path), "--run", str(run)])
    assert main() == 0
    printed = capsys.readouterr().out
    assert "rows: 36 train, 12 validation, 12 test" in printed
    assert "validation 1.0000, test 1.0000" in printed
    assert "runs minus TF-IDF: +0.0000 (95 % +0.0000 to +0.0000; 12 rows, 1 run)" in printed
