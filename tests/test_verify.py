"""A finished run is what its training left, or every file that is not is named in one message."""

import json
import os
import shutil
import time

import pytest

import predict
import train
from openloop import load_run
from job.folder import Folder
from job.verify import check_run
from tests.edits import edit


@pytest.fixture
def copy(run, tmp_path):
    """A copy of a finished run to be edited."""
    return shutil.copytree(run, tmp_path / "one")


def ask(capsys, run, *words):
    code = predict.main(["--run", str(run), "--json", *words, "good film"])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def swap_vocabulary(run):
    path = run / "model" / "tokenizer.json"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace('"good"', '"doog"'), encoding="utf-8")


def swap_labels(run):
    path = run / "model" / "openloop.json"
    model = json.loads(path.read_text(encoding="utf-8"))["model"]
    edit(path, model=model | {"label_names": model["label_names"][::-1]})


def change_pooling(run):
    path = run / "model" / "openloop.json"
    model = json.loads(path.read_text(encoding="utf-8"))["model"]
    edit(path, model=model | {"head_pool": "cls"})


def change_alpha(run):
    edit(run / "model" / "adapter_config.json", lora_alpha=99)


def change_length(run):
    path = run / "config.toml"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("max_length = 32", "max_length = 5"), encoding="utf-8")


def plant_tokens(run):
    (run / "model" / "added_tokens.json").write_text('{"good": 7}', encoding="utf-8")


EDITS = {
    "tokenizer.json": swap_vocabulary, "openloop.json": swap_labels, "adapter_config": change_alpha,
    "config.toml": change_length, "added_tokens.json": plant_tokens,
    "environment.json": lambda run: (run / "environment.json").unlink(),
    "tokenizer.json is missing": lambda run: (run / "model" / "tokenizer.json").unlink(),
    "openloop.json have": change_pooling,
    "result.json": lambda run: (run / "result.json").unlink(),
    "result.json was changed": lambda run: edit(run / "result.json", seconds=1),
}  # fmt: skip


@pytest.mark.parametrize("name", EDITS)
def test_what_was_edited_since_the_training_is_named(copy, capsys, name):
    EDITS[name](copy)
    code, out, err = ask(capsys, copy)
    assert (code, out) == (2, "")
    assert name in err
    assert "--allow-drift" in err


def test_one_message_names_all_differences_and_allow_drift_goes_on(copy, capsys):
    for change in (swap_labels, change_length, plant_tokens):
        change(copy)
    code, _, err = ask(capsys, copy)
    assert code == 2
    assert all(name in err for name in ("openloop.json", "config.toml", "added_tokens.json"))
    code, out, err = ask(capsys, copy, "--allow-drift")
    assert code == 0
    assert json.loads(out)["label"] in ("neg", "pos")
    assert err.count("going on although") == 3
    with pytest.raises(ValueError, match=r"allow_drift=True"):
        load_run(copy)
    assert load_run(copy, allow_drift=True)(["good film"])


def test_a_run_as_it_was_answers_without_a_word_more(copy, capsys):
    code, _, err = ask(capsys, copy)
    assert code == 0
    last = err.splitlines()[-1]
    assert last == f"openloop: {copy} on cpu in fp32"
    assert "although" not in err


def test_a_run_from_before_the_lists_answers_with_a_note(copy, capsys):
    values = json.loads((copy / "result.json").read_text(encoding="utf-8"))
    del values["files"], values["sha256"]
    (copy / "result.json").write_text(json.dumps(values), encoding="utf-8")
    code, _, err = ask(capsys, copy)
    assert code == 0
    assert "trained before a run listed its files" in err


@pytest.mark.parametrize(
    ("values", "message"),
    [({"format": 99}, "has format 99; this version reads 1"), ({"base": None}, "base is None"),
     ({"model": {}}, "is missing"), ({"head_code": 5}, "head_code is 5")],
)  # fmt: skip
def test_a_record_of_another_kind_is_refused_with_its_place(copy, capsys, values, message):
    edit(copy / "model" / "openloop.json", **values)
    code, _, err = ask(capsys, copy, "--allow-drift")
    assert code == 2
    assert message in err
    assert "openloop.json" in err


def test_a_hub_is_not_asked_for_a_runs_base_unless_that_is_allowed(copy, capsys, monkeypatch):
    monkeypatch.setattr("models.resolve.snapshot_download", fetch := Fetch())
    path = copy / "model" / "openloop.json"
    base = json.loads(path.read_text(encoding="utf-8"))["base"]
    edit(path, base=base | {"source": "hub:stranger/repo"})
    code, _, err = ask(capsys, copy, "--allow-drift")
    assert code == 2
    assert "--allow-network" in err
    assert set(fetch.local) == {True}
    code, _, _ = ask(capsys, copy, "--allow-drift", "--allow-network")
    assert code == 2
    assert fetch.local[-1] is False


class Fetch:
    """A hub that has nothing; notes whether only this machine was asked."""

    def __init__(self):
        self.local = []

    def __call__(self, name, local_files_only, **_):
        self.local.append(local_files_only)
        raise OSError("nothing there")


@pytest.mark.parametrize("length", [1, 2])
def test_a_base_that_closes_a_ring_ends_at_once(copy, tmp_path, capsys, length):
    runs = [copy, shutil.copytree(copy, tmp_path / "two")][:length]
    for run, other in zip(runs, [*runs[1:], runs[0]], strict=True):
        path = run / "model" / "openloop.json"
        base = json.loads(path.read_text(encoding="utf-8"))["base"]
        edit(path, base=base | {"source": f"run:{other}"})
    start = time.monotonic()
    code, _, err = ask(capsys, copy, "--allow-drift")
    assert code == 2
    assert "stands on itself" in err
    assert time.monotonic() - start < 10


def test_eval_only_verifies_as_predict_does(recipe, capsys):
    path = recipe(train={"max_steps": 1}, eval={"baseline": False})
    assert train.main(["--config", str(path)]) == 0
    folder = path.parent / "runs" / "tiny"
    assert check_run(Folder(folder), allow_drift=False) == []
    os.utime(folder / "config.toml")  # a date is no difference
    plant_tokens(folder)
    assert train.main(["--config", str(path), "--eval-only"]) == 2
    assert "added_tokens.json was added" in capsys.readouterr().err
