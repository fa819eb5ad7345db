"""Every crash point of a run: killed there, torn there, the disk full there, it resumes to the same
bits. `pytest -m slow tests/faults -s` prints how many there were."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.faults.shim import FULL, FULL_FROM, KILL, TORN, build_shim

ROOT = Path(__file__).parent.parent.parent
TRIALS = Path(__file__).with_name("trials.py")
WORDS = [
    "run.save_every=2",
    "run.keep=1",
    "eval.every=2",
    "eval.baseline=false",
    "model.dropout=0.1",
]
WORDS += ["train.epochs=1", "train.max_steps=3", "data.workers=0", "speed.plain=true"]
MEMORY = Path("/dev/shm")  # where fsync takes no time; nothing here cuts the power

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture
def run_trials(recipe, tiny_folder, tmp_path):
    """`run_trials(words, warm, choose)`: the outcomes at the points that `choose` takes of all
    calls, and how many there are."""
    library = build_shim(tmp_path)
    if library is None:
        pytest.skip("needs a C compiler")
    folder = Path(tempfile.mkdtemp(dir=MEMORY if os.access(MEMORY, os.W_OK) else None))

    def run(words, warm, choose):
        spec = {
            "folder": str(folder / "trials"), "model": str(tiny_folder), "name": "tiny",
            "words": ["--config", str(recipe()), *WORDS, *words], "warm": warm,
            "workers": min(2, os.cpu_count()),
        }  # fmt: skip
        (tmp_path / "spec.json").write_text(json.dumps(spec), encoding="utf-8")
        quiet = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
        process = subprocess.Popen(
            [sys.executable, str(TRIALS), str(tmp_path / "spec.json")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8", cwd=ROOT,
            env={**os.environ, **quiet, "LD_PRELOAD": str(library), "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        kinds = json.loads(process.stdout.readline())["kinds"]
        points = choose(kinds)
        told, _ = process.communicate(json.dumps(points) + "\n")
        assert process.returncode == 0
        outcomes = [json.loads(line) for line in told.splitlines()]
        assert len(outcomes) == len(points)
        return outcomes

    yield run
    shutil.rmtree(folder)


def report(title, outcomes, total):
    held = sum(outcome["problem"] is None for outcome in outcomes)
    of = "" if len(outcomes) == total else f" (of {total}, evenly chosen)"
    print(f"\n{title} {held}/{len(outcomes)}{of}", flush=True)
    assert [outcome for outcome in outcomes if outcome["problem"]] == []


KINDS = [("LoRA, cold cache", [], False), ("all weights", ["--unset", "lora"], True)]
every_kind = pytest.mark.parametrize(
    ("title", "words", "warm"), KINDS, ids=["lora", "full_weights"]
)


def evenly(points, most):
    """At most so many of the points, from the first to the last."""
    most = min(most, int(os.environ.get("OPENLOOP_TRIALS", most)))
    if len(points) <= most:
        return points
    return [points[i * (len(points) - 1) // (most - 1)] for i in range(most)]


@every_kind
def test_killed_before_any_call_a_run_resumes_to_the_same_bits(run_trials, title, words, warm):
    points = []

    def choose(kinds):
        points.extend((KILL, at) for at in range(1, len(kinds) + 1))
        return evenly(points, 1000)

    outcomes = run_trials(words, warm, choose)
    assert all(outcome["status"] == -9 for outcome in outcomes)
    report(f"crash points ({title})", outcomes, len(points))


@every_kind
def test_torn_in_any_write_a_run_resumes_to_the_same_bits(run_trials, title, words, warm):
    points = []

    def choose(kinds):
        points.extend((TORN, at) for at, kind in enumerate(kinds, start=1) if kind == "w")
        return evenly(points, 40)

    outcomes = run_trials(words, warm, choose)
    assert all(outcome["status"] == -9 for outcome in outcomes)
    report(f"torn writes ({title})", outcomes, len(points))


@every_kind
@pytest.mark.parametrize("mode", [FULL, FULL_FROM], ids=["at_one_call", "from_one_on"])
def test_on_a_full_disk_a_run_ends_with_a_message_and_resumes(run_trials, title, words, warm, mode):
    points = []

    def choose(kinds):
        points.extend((mode, at) for at, kind in enumerate(kinds, start=1) if kind in "womls")
        return evenly(points, 25)

    outcomes = run_trials(words, warm, choose)
    assert {outcome["status"] for outcome in outcomes} <= {0, 2}
    moment = "at one call" if mode == FULL else "from one on"
    report(f"full disks {moment} ({title})", outcomes, len(points))
