"""Whole runs of several processes, as torchrun starts them."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from datetime import timedelta
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from transformers import BartConfig

import train
from configs.read import read_config
from engine.ways import Way
from engine.world import World
from job import fit, meeting, speed
from job.parallel import place
from tests.conftest import ROOT, figures, result_of, weights
from tests.ranks import free_port

SETTINGS = {
    "eval": {"baseline": False, "every": 4},
    "train": {"epochs": 2, "micro_batch_size": 2, "accumulate": 5, "lr": 1e-2},
    "speed": {"native": "off"},
}


def torchrun(size, recipe, *words, wait=True, seconds=180):
    """The command with so many processes; its status and what it said, or the process."""
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(size),
        "--master-port", str(free_port()), "train.py", "--config", str(recipe), *words,
    ]  # fmt: skip
    process = subprocess.Popen(
        command, cwd=ROOT, encoding="utf-8", stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    if not wait:
        return process
    said = process.communicate(timeout=seconds)[0]
    return process.returncode, said


def losses(run):
    """The loss of each step."""
    return [line["train/loss"] for line in figures(run) if "train/loss" in line]


def answers(run):
    """The rows of test_predictions.jsonl."""
    lines = (run / "test_predictions.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture
def alone(start):
    """A run of one process: its folder."""
    return start("alone")[0]


def assert_same(run, other):
    """The same training and the same answers, to rounding; dropout is on."""
    for one, two in zip(losses(run), losses(other), strict=True):
        assert one == pytest.approx(two, abs=1e-5)
    first, second = weights(run), weights(other)
    assert first.keys() == second.keys()
    for name, weight in first.items():
        assert second[name].numpy() == pytest.approx(weight.numpy(), abs=1e-4), name
    rows = [[(row["row"], row["predicted"]) for row in answers(one)] for one in (run, other)]
    assert rows[0] == rows[1]
    assert result_of(run)["test"]["n"] == result_of(other)["test"]["n"]


@pytest.mark.timeout(240)
def test_two_processes_train_as_one(alone, recipe):
    code, said = torchrun(2, recipe(**SETTINGS), "run.name=two")
    assert code == 0, said
    assert_same(alone, alone.parent / "two")
    assert said.count("loading data and model") == 1  # one of them speaks
    assert said.count("Test accuracy") + said.count("test at step") == 1


@pytest.mark.timeout(240)
def test_an_error_is_one_message_and_ends_all(recipe):
    started = time.monotonic()
    code, said = torchrun(2, recipe(**SETTINGS), "model.source=/nowhere")
    assert code != 0
    assert said.count("train.py: ") == 1, said
    assert re.search(r"train.py: rank \d of 2: .*nowhere", said)
    assert time.monotonic() - started < 150


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_run_goes_on_with_another_number_of_processes(alone, recipe, number):
    path = recipe(**SETTINGS, run={"save_every": 1})
    run = alone.parent / "three"
    process = torchrun(3, path, "run.name=three", "train.epochs=2", wait=False)
    while not list(run.glob("checkpoints/step-*")):
        time.sleep(0.05)
        assert process.poll() is None
    process.send_signal(number)
    process.communicate(timeout=120)
    for size in (2, 1):
        words = ["run.name=three", "--resume"]
        code, said = torchrun(size, path, *words)
        assert code == 0, said
    assert_same(alone, run)


def test_processes_wait_for_each_other_as_long_as_the_recipe_says(recipe, monkeypatch):
    waited = []
    monkeypatch.setattr(meeting, "started", lambda: World(0, 2))
    monkeypatch.setattr(meeting, "join", lambda timeout, *_: waited.append(timeout) or World())
    meeting.meet(read_config(recipe(), ["parallel.timeout=7"]))
    assert waited == [timedelta(minutes=7)]


def test_a_process_with_other_settings_is_named_as_soon_as_they_meet(recipe, monkeypatch):
    """Before anything that other settings lead to other meetings in."""
    monkeypatch.setattr(meeting, "started", lambda: World(0, 2))
    monkeypatch.setattr(meeting, "join", lambda *_: World(0, 2))
    monkeypatch.setattr(meeting, "gather", lambda own: [own, {**own, "settings": "{}"}])
    with pytest.raises(ValueError, match="rank 1 has other settings than rank 0"):
        meeting.meet(read_config(recipe()))


def test_all_hear_whether_the_result_of_a_finished_run_can_be_used(recipe, tmp_path, monkeypatch):
    """Else the others leave, and rank 0 waits for them where it tests again."""
    agreed = []
    monkeypatch.setattr(train, "agree", lambda config, answer: agreed.append(answer) or answer)
    monkeypatch.setattr(train, "check_folder", lambda *_: None)
    monkeypatch.setattr(train, "open_job", lambda *_, **__: agreed.append("again") or 1 / 0)
    (tmp_path / "runs/tiny").mkdir(parents=True)
    (tmp_path / "runs/tiny/result.json").write_text("{", encoding="utf-8")
    with pytest.raises(ZeroDivisionError):
        train.main(["--config", str(recipe()), "--resume"])
    assert agreed == [False, "again"]


def test_all_evaluate_in_batches_that_the_smallest_gpu_holds(recipe, monkeypatch):
    monkeypatch.setattr(speed, "token_budget", lambda model, device: 4096)
    monkeypatch.setattr(speed, "gather", lambda own: [own, 1024])
    config = read_config(recipe())
    assert speed.evaluation_rows(config, nn.Linear(1, 1), torch.device("cuda")) == 1024 // 32


def test_another_number_of_processes_may_keep_other_states(monkeypatch):
    then = {"environment": {"processes": 1, "threads": 4}, "base": {}, "kept": "layer 3"}
    now = {"environment": {"processes": 2, "spread": "fsdp, full"}, "base": {}}
    common = {"tokenizer": "t", "code": {}}
    monkeypatch.setattr(fit, "make_record", lambda job: {**common, **now})
    (note,) = fit.check_drift(then, None, allow_drift=False)
    assert note.startswith("going on with 2 processes (fsdp, full), before with one process: ")
    monkeypatch.setattr(fit, "make_record", lambda job: {**common, **then, "kept": "layer 2"})
    with pytest.raises(ValueError, match="kept: 'layer 3' then, 'layer 2' now"):
        fit.check_drift(then, None, allow_drift=False)


def test_layers_that_are_left_out_by_chance_are_refused_in_shards(recipe, monkeypatch):
    dropped = SimpleNamespace(config=BartConfig(encoder_layerdrop=0.1))
    monkeypatch.setattr(place, "transformers_model", lambda model: dropped)
    config = read_config(recipe())
    reason = place.why_not_in_parts(nn.Linear(1, 1), config, Way("fsdp"))
    assert reason is not None
    assert reason.startswith("encoder_layerdrop, ")
    assert place.why_not_in_parts(nn.Linear(1, 1), config, Way("ddp", tensor=2)) is None


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_seeds_with_a_loss_of_ones_own_train_in_parts(start, recipe):
    loss = f"train.loss={ROOT}/examples/own_loss.py:focal_loss"
    alone = start("alone", "speed.plain=true", "run.seed=1", loss, "--allow-code")[0]
    path = recipe(**SETTINGS, parallel={"strategy": "fsdp"})
    code, said = torchrun(2, path, "--seeds", "0,1", loss, "--allow-code")
    assert code == 0, said
    assert_same(alone, alone.parent / "tiny-seed1")


@pytest.mark.parametrize("words", [["--eval-only", "--config", "x"], ["--csv", "x"]])
def test_what_one_process_does_is_refused_with_several(monkeypatch, capsys, words):
    monkeypatch.setattr(train, "started", lambda: World(0, 2))
    monkeypatch.setattr(train, "open_gate", lambda: None)
    monkeypatch.setattr(train, "read_recipe", lambda *_: None)
    assert train.main(words) == 2
    assert f"{words[0]} is for one process" in capsys.readouterr().err


PARTS = {
    "full": (2, {"strategy": "fsdp"}),
    "grad_op": (3, {"strategy": "fsdp", "shard": "grad_op"}),
    "tensor": (2, {"tensor": 2}),
    "both": (4, {"strategy": "fsdp", "tensor": 2}),
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "way", ["full", *(pytest.param(way, marks=pytest.mark.slow) for way in list(PARTS)[1:])]
)
def test_a_model_in_parts_trains_as_a_whole_one(start, recipe, way):
    size, parallel = PARTS[way]
    # dropout inside of a layer that is split is refused
    words = ["model.dropout=0"] if "tensor" in parallel else []
    alone = start("alone", "speed.plain=true", *words)[0]  # the fast paths draw other dropouts
    path = recipe(**SETTINGS, parallel=parallel)
    code, said = torchrun(size, path, "run.name=parts", *words)
    assert code == 0, said
    assert_same(alone, alone.parent / "parts")
    assert "spread: " in said


@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    "gathered",
    [pytest.param(8, marks=pytest.mark.ranks), pytest.param(0, marks=pytest.mark.slow)],
)
def test_a_model_in_parts_goes_on_as_any_other_number_of_them(start, recipe, gathered):
    """From files put together, and from parts; to shards, to whole ones, and to one process."""
    alone = start("alone", "speed.plain=true")[0]
    run = alone.parent / "parts"
    parallel = {"strategy": "fsdp", "gathered_gib": gathered}
    path = recipe(**SETTINGS, run={"save_every": 1, "keep": 99}, parallel=parallel)
    process = torchrun(3, path, "run.name=parts", "speed.plain=true", wait=False)
    while not list(run.glob("checkpoints/step-*2")):
        time.sleep(0.05)
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    newest = max(run.glob("checkpoints/step-*"))
    assert (newest / "parts").is_dir() == (gathered == 0)
    words = ["run.name=parts", "speed.plain=true", "--resume"]
    for size, more in ((2, []), (2, ["parallel.strategy=ddp"]), (1, [])):
        copied = run.with_name(f"parts-{size}-{len(more)}")
        shutil.copytree(run, copied)
        code, said = torchrun(size, path, *words, *more, f"run.name={copied.name}")
        assert code == 0, said
        assert "the same training to rounding" in said
        assert_same(alone, copied)


def test_what_several_would_need_is_told_by_one(start):
    words = ["--dry-run", "--processes", "2x4", "train.accumulate=8"]
    _, said = start("told", *words)
    assert "8 processes on 2 machines with 4 each" in said
    for way in ("ddp", "fsdp, full", "fsdp, grad_op", "fsdp, hybrid"):
        assert re.search(rf"{way} +\d", said), way
    assert 'parallel.strategy = "auto" would take ddp' in said
    _, said = start("told", *words, "parallel.tensor=2")
    assert "dropout inside of a split layer" in said


@pytest.mark.parametrize(
    ("words", "part"),
    [(["--processes", "0"], "--processes is '0'"), (["--processes", "two"], "'two'"),
     (["--processes", "3", "parallel.tensor=2"], "no whole groups")],
)  # fmt: skip
def test_processes_that_cannot_be_are_refused(start, words, part):
    assert part in start("told", "--dry-run", *words, code=2)[1]


def test_one_process_says_that_it_has_all_of_the_model(start):
    assert "one process has all of the model" in start("one", "--dry-run", "parallel.tensor=2")[1]


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("way", ["full", "tensor"])
def test_a_language_model_in_parts_trains_as_a_whole_one(chat_place, tmp_path, way):
    size, parallel = PARTS[way]
    path = chat_place(tmp_path) / "chat.toml"
    assert train.main(["--config", str(path), "run.name=alone", "speed.plain=true"]) == 0
    words = [f"parallel.{name}={value}" for name, value in parallel.items()]
    code, said = torchrun(size, path, "run.name=parts", *words)
    assert code == 0, said
    alone, run = tmp_path / "runs/alone", tmp_path / "runs/parts"
    for one, two in zip(losses(alone), losses(run), strict=True):
        assert one == pytest.approx(two, abs=1e-5)
    tests = [result_of(one)["test"] for one in (alone, run)]
    assert tests[0]["n"] == tests[1]["n"]
    assert tests[0]["perplexity"] == pytest.approx(tests[1]["perplexity"], rel=1e-4)
