"""A run whose ranks are killed at random moments and that goes on with a random number of them ends
as one that was left alone.

    OPENLOOP_KILLS=20 pytest -m ranks tests/test_kill_ranks.py -s        prints what was killed when
"""

import os
import random
import signal
import time

import pytest
import torch

import train
from tests.conftest import figures, weights
from tests.test_kill import traces
from tests.test_parallel import losses, torchrun
from tests.test_parallel_faults import messages, ranks_of

pytestmark = [
    pytest.mark.ranks,
    pytest.mark.timeout(3600),
    pytest.mark.usefixtures("signals_arrive"),
]
KILLS = int(os.environ.get("OPENLOOP_KILLS", "4"))
STEPS = 10 + 5 * KILLS


@pytest.fixture
def long_recipe(recipe):
    return recipe(
        run={"save_every": 3, "keep": 2},
        model={"dropout": 0.1},
        data={"workers": 0},
        train={"epochs": STEPS, "max_steps": STEPS, "micro_batch_size": 2, "accumulate": 5},
        eval={"every": 10, "baseline": False},
        speed={"native": "off"},
    )


def steps_done(folder):
    """The steps that the log shows."""
    path = folder / "metrics.jsonl"
    return path.read_text(encoding="utf-8").count("train/loss") if path.exists() else 0


def kill_one(path, folder, size, moments, number):
    """Start or resume with `size` processes and kill one; a line on it, None where the run was done
    before."""
    process = torchrun(size, path, f"run.name={folder.name}", "--resume", wait=False)
    rank, before = moments.randrange(size), steps_done(folder)
    wanted, wait = before + moments.randrange(1, 7), moments.uniform(0, 15)
    while rank not in ranks_of(process) and process.poll() is None:
        time.sleep(0.01)
    begun = time.monotonic()
    if number % 3 == 2:  # wherever it is: import, load, step or save
        while time.monotonic() < begun + wait and process.poll() is None:
            time.sleep(0.05)
    else:
        while steps_done(folder) < wanted and process.poll() is None:
            time.sleep(0.005)
        time.sleep(moments.uniform(0, 0.05))
    if rank in (pids := ranks_of(process)):
        os.kill(pids[rank], signal.SIGKILL)
    told, at = process.communicate(timeout=300)[0], steps_done(folder)
    if process.returncode == 0:
        return None
    assert len(messages(told)) <= 1, told  # none where torchrun ended the others as they loaded
    assert all(f"rank {rank} (host" in one for one in messages(told)), told
    return f"rank {rank} of {size} killed after step {at}, {len(messages(told))} message"


def kill_often(path, folder, sizes, seed):
    """Kills and resumes, then the end; how many kills it was."""
    moments, kills = random.Random(seed), 0
    for number in range(KILLS):
        line = kill_one(path, folder, moments.choice(sizes), moments, number)
        print(f"seed {seed}, kill {number + 1}: {line or 'the run was done before'}", flush=True)
        if line is None:
            break
        kills += 1
    size = moments.choice(sizes)
    code, told = torchrun(size, path, f"run.name={folder.name}", "--resume", seconds=600)
    assert code == 0, told
    print(f"seed {seed}: finished by {size} processes after {kills} kills", flush=True)
    return kills


def test_killed_and_resumed_by_two_processes_it_ends_with_the_same_bits(long_recipe, tmp_path):
    code, told = torchrun(2, long_recipe, "run.name=whole", seconds=600)
    assert code == 0, told
    assert kill_often(long_recipe, tmp_path / "runs/killed", [2], seed=1) >= KILLS // 2
    assert traces(tmp_path / "runs/killed") == traces(tmp_path / "runs/whole")


def test_killed_and_resumed_by_any_number_of_processes_it_ends_the_same(long_recipe, tmp_path):
    assert train.main(["--config", str(long_recipe), "run.name=whole"]) == 0
    whole, killed = tmp_path / "runs/whole", tmp_path / "runs/killed"
    assert kill_often(long_recipe, killed, [1, 2, 3, 4], seed=2) > KILLS // 2
    first, second = weights(whole), weights(killed)
    farthest = max(float((first[name] - second[name]).abs().max()) for name in first)
    apart = max(abs(a - b) for a, b in zip(losses(whole), losses(killed), strict=True))
    print(f"weights at most {farthest:.1e} apart, losses {apart:.1e}", flush=True)
    assert first.keys() == second.keys()
    assert torch.tensor(farthest) < 1e-3
    assert apart < 1e-4
    assert len(figures(whole)) == len(figures(killed))
