"""Running out of memory says what to lower; a budget of tokens from what is free."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from engine import memory

ROOT = Path(__file__).parent.parent.parent
GPU = torch.device("cuda")
MODEL = nn.Sequential(nn.Linear(768, 3072), nn.GELU(), nn.Linear(3072, 768))


@pytest.fixture
def gpu(monkeypatch):
    """gpu(free, reserved, allocated): a GPU with these bytes."""

    def pretend(free, reserved=0, allocated=0):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 80 << 30))
        monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: reserved)
        monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: allocated)

    return pretend


@pytest.mark.parametrize(
    ("free", "tokens"),
    [(79 << 30, 65_536), (1 << 30, 4096), (100 << 20, 256), (0, 1)],
)
def test_the_budget_is_a_power_of_two_that_a_quarter_of_the_free_memory_holds(gpu, free, tokens):
    gpu(free)
    assert memory.token_budget(MODEL, GPU) == tokens
    assert tokens == 1 or tokens * memory.bytes_per_token(MODEL) * 4 <= free


def test_what_torch_keeps_for_itself_counts_as_free(gpu):
    gpu(0, reserved=3 << 30, allocated=2 << 30)
    assert memory.token_budget(MODEL, GPU) == 4096


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to"),
    ],
)
def test_running_out_says_what_to_lower(error):
    said = r"out of memory: .*\nlower the batch"
    with pytest.raises(ValueError, match=said), memory.explained("lower the batch"):
        raise error


def test_another_error_stays_what_it_is():
    with pytest.raises(RuntimeError, match="shapes differ"), memory.explained("lower the batch"):
        raise RuntimeError("shapes differ")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the peak cannot be forgotten")
def test_between_two_runs_memory_is_given_back_and_its_peak_forgotten():
    code = (
        "import torch; from engine.estimate import resident_bytes as held\n"
        "from engine.machine import keep_freed_memory; from engine.memory import release_memory\n"
        "keep_freed_memory(); before = held('VmRSS')\n"
        "tensors = [torch.ones(1 << 20) for _ in range(64)]; del tensors\n"  # 256 MiB
        "kept = held('VmHWM') - before; release_memory()\n"
        "print(kept >> 20, held('VmHWM') - before >> 20)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True, cwd=ROOT
    )
    kept, left = map(int, done.stdout.split())
    assert kept > 200
    assert left < 50
