"""How much is said: by default what a person needs, with -v the machine and the fast paths too."""

import json
import tomllib

import pytest

import predict
import train
from report.format import COLUMNS, measure_width

MACHINE = ("threads:", "oneDNN:", "allocator:", "kernels: ", "token cache:", "models/fast/")


def plan_of(capsys, path, *words):
    assert train.main(["--config", str(path), "--dry-run", *words]) == 0
    return capsys.readouterr().out.splitlines()


def losses(folder):
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["train/loss"] for line in lines if "train/loss" in line]


def test_the_plan_says_little_of_the_machine_unless_asked(recipe, capsys):
    short, long = plan_of(capsys, recipe()), plan_of(capsys, recipe(), "-v")
    for word in MACHINE:
        assert not any(word in line for line in short)
        assert any(word in line for line in long)
    assert any("fast paths on (-v lists them)" in line for line in short)
    assert max(map(measure_width, [*short, *long])) <= COLUMNS


def test_warnings_stand_above_the_plan_and_nowhere_else(recipe, capsys):
    lines = plan_of(capsys, recipe())  # its held-out splits are small
    found = [i for i, line in enumerate(lines) if "WARNING" in line]
    first = next(i for i, line in enumerate(lines) if line.startswith("Run "))
    assert found
    assert max(found) < first


def test_what_costs_speed_is_said_by_default(recipe, capsys):
    lines = plan_of(capsys, recipe(), "speed.attention=false")
    assert any("attention: stock, as configured" in line for line in lines)


@pytest.mark.parametrize("words", [["--plain"], ["speed.plain=true"]])
def test_a_plain_plan_lists_no_fast_path(recipe, capsys, words):
    text = "\n".join(plan_of(capsys, recipe(), "-v", *words))
    assert "no fast path on" in text
    assert "models/fast/" not in text


def test_plain_trains_to_the_losses_of_the_fast_paths_and_resumes(recipe, tmp_path):
    path = recipe(train={"max_steps": 4}, model={"dropout": 0.0})
    for name, words in (("fast", []), ("plain", ["--plain"])):
        assert train.main(["--config", str(path), f"run.name={name}", *words]) == 0
    runs = tmp_path / "runs"
    found, expected = losses(runs / "plain"), losses(runs / "fast")
    assert len(found) == 4
    assert found == pytest.approx(expected, abs=1e-4)
    kept = tomllib.loads((runs / "plain" / "config.toml").read_text(encoding="utf-8"))
    assert kept["speed"]["plain"] is True
    resume = ["--config", str(path), "run.name=plain", "--resume"]
    assert train.main([*resume, "--plain"]) == 0
    assert train.main(resume) == 2  # another recipe: it would round differently


def test_plain_goes_with_a_guessed_recipe(reviews_csv, tiny_folder, tmp_path, capsys):
    words = ["--csv", str(reviews_csv), f"model.source={tiny_folder}", f"run.dir={tmp_path}"]
    words += ["data.max_length=32", "precision.device=cpu", "--dry-run"]
    assert train.main([*words, "--plain"]) == 0
    assert "no fast path on" in capsys.readouterr().out


def test_seeds_show_the_plan_once_and_then_what_differs(recipe, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = recipe(train={"max_steps": 1}, run={"dir": "runs"})
    assert train.main(["--config", str(path), "--plain", "--seeds", "0,1,2"]) == 0
    text = capsys.readouterr().out
    assert text.count("no fast path on") == text.count("loading data and model") == 1
    for seed in (1, 2):
        after = text.split(f"\nseed {seed}\n")[1].splitlines()
        assert after[0].split() == ["Run", f"tiny-seed{seed},", "in", f"runs/tiny-seed{seed}"]
        assert after[1].startswith("step 1")


@pytest.mark.parametrize("verbose", [False, True])
def test_predict_says_one_line_of_the_machine_unless_asked(run, capsys, verbose):
    words = ["-v"] if verbose else []
    assert predict.main(["--run", str(run), "good film", *words]) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if "building" not in line]
    assert lines[0].startswith(f"openloop: {run} on cpu in ")
    assert (len(lines) > 1) == verbose
    assert any("models/fast/" in line for line in lines) == verbose
