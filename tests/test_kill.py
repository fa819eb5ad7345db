"""A real process, killed at random moments, goes on to the same bits as one left alone."""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.usefixtures("signals_arrive")
ROOT = Path(__file__).parent.parent
STEPS = 40


def start(path, name, *arguments, threads=None):
    command = [sys.executable, "train.py", "--config", str(path), f"run.name={name}", *arguments]
    environment = os.environ if threads is None else {**os.environ, "OMP_NUM_THREADS": threads}
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8",
        env=environment,
    )  # fmt: skip


def finish(path, name, *arguments, threads=None):
    process = start(path, name, *arguments, threads=threads)
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    return output


def traces(folder):
    """Digests of weights and optimizer of the last checkpoint, metrics without timings, test."""
    last = sorted((folder / "checkpoints").glob("step-*"))[-1]
    bits = {
        name: hashlib.sha256((last / name).read_bytes()).hexdigest()
        for name in ("trainable.safetensors", "optimizer.safetensors")
    }
    model = {
        p.name: hashlib.sha256(p.read_bytes()).hexdigest()
        for p in (folder / "model").glob("*.safetensors")
    }
    lines = [
        json.loads(line)
        for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    for line in lines:
        line.pop("train/tokens_per_s", None)
    predictions = (folder / "test_predictions.jsonl").read_text(encoding="utf-8")
    return last.name, bits, model, lines, predictions


@pytest.fixture
def long_recipe(recipe):
    return recipe(
        run={"save_every": 3},
        model={"dropout": 0.1},
        data={"workers": 0},
        train={"epochs": 20, "max_steps": STEPS},
        eval={"every": 7},
    )


def wait_for_step(process, folder, step):
    """Until metrics.jsonl shows the step, or the process ends."""
    path = folder / "metrics.jsonl"
    while process.poll() is None:
        if path.exists() and path.read_text(encoding="utf-8").count("train/loss") >= step:
            return
        time.sleep(0.002)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ten_kills_at_random_moments_lead_to_identical_bits(long_recipe, tmp_path):
    finish(long_recipe, "whole")
    moments = random.Random(0)
    kills = 0
    folder = tmp_path / "runs" / "killed"
    while kills < 10:
        process = start(long_recipe, "killed", "--resume")
        if kills % 2:
            time.sleep(moments.uniform(0.5, 6))  # wherever it is: import, load, step or save
        else:
            wait_for_step(process, folder, moments.randrange(1, STEPS))
            time.sleep(moments.uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        kills += 1
        if (folder / "result.json").exists():  # it was quicker than the killer: once more
            process = start(long_recipe, "killed", "--fresh")
            wait_for_step(process, folder, 2)
            process.kill()
            process.communicate()
    finish(long_recipe, "killed", "--resume")
    assert traces(folder) == traces(tmp_path / "runs" / "whole")


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_and_exits_and_resume_leads_to_the_same_bits(
    long_recipe, tmp_path, number, code
):
    finish(long_recipe, "whole")
    folder = tmp_path / "runs" / "stopped"
    process = start(long_recipe, "stopped")
    wait_for_step(process, folder, 5)
    process.send_signal(number)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == code, output
    assert "--resume" in output
    assert not (folder / "result.json").exists()
    finish(long_recipe, "stopped", "--resume")
    assert traces(folder) == traces(tmp_path / "runs" / "whole")


@pytest.mark.slow
@pytest.mark.skipif(os.cpu_count() == 1, reason="one core: torch never takes two threads")
def test_resume_refuses_other_threads_unless_drift_is_allowed(long_recipe, tmp_path):
    process = start(long_recipe, "stopped", threads="1")
    wait_for_step(process, tmp_path / "runs" / "stopped", 5)
    process.terminate()
    process.communicate(timeout=240)
    refused = start(long_recipe, "stopped", "--resume", threads="2")
    output, _ = refused.communicate(timeout=240)
    assert refused.returncode == 2
    assert "threads: 1 then, 2 now" in output
    finish(long_recipe, "stopped", "--resume", "--allow-drift", threads="2")


@pytest.mark.slow
def test_a_run_in_use_is_refused_and_left_alone(long_recipe, tmp_path):
    process = start(long_recipe, "held", "train.epochs=9999", "train.max_steps=99999")
    wait_for_step(process, tmp_path / "runs" / "held", 2)
    for switch in ("--resume", "--fresh"):
        second = start(long_recipe, "held", switch, "train.epochs=9999", "train.max_steps=99999")
        output, _ = second.communicate(timeout=240)
        assert second.returncode == 2, output
        assert "in use" in output
    process.kill()
    process.communicate()
    assert not list((tmp_path / "runs").glob("held.old*"))
