"""Whole runs of several processes, as torchrun starts them."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from datetime import timedelta

import pytest

import train
from configs.read import read_config
from engine.world import World
from job import meeting
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
    monkeypatch.setattr(meeting, "join", lambda timeout, device: waited.append(timeout) or World())
    meeting.meet(read_config(recipe(), ["parallel.timeout=7"]))
    assert waited == [timedelta(minutes=7)]


@pytest.mark.parametrize("words", [["--eval-only", "--config", "x"], ["--csv", "x"]])
def test_what_one_process_does_is_refused_with_several(monkeypatch, capsys, words):
    monkeypatch.setattr(train, "started", lambda: World(0, 2))
    monkeypatch.setattr(train, "open_gate", lambda: None)
    monkeypatch.setattr(train, "read_recipe", lambda *_: None)
    assert train.main(words) == 2
    assert f"{words[0]} is for one process" in capsys.readouterr().err
