"""Threads, kernels and allocator: what is asked of the machine, and that it has an effect."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from engine import machine
from engine.machine import choose_threads, granted_cores, keep_few_kernels, keep_freed_memory

ROOT = Path(__file__).parent.parent.parent
glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's is known")
FAULTS = """
import resource, sys, torch
from engine.machine import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
torch.set_num_threads(1)
for _ in range(3):  # 40 MiB each: above what glibc keeps unless it is told to
    kept = [torch.ones(10 << 20) for _ in range(4)]
    del kept
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    kept = [torch.ones(10 << 20) for _ in range(4)]
    del kept
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
KEPT = """
import sys, torch
from engine.estimate import resident_bytes
from engine.machine import keep_few_kernels
if sys.argv[1] == "few":
    keep_few_kernels()
torch.set_num_threads(1)
x, W = torch.ones(64 * 300, 64), torch.ones(64, 64)
def multiply(lengths):
    for n in lengths:
        torch.ops.mkldnn._linear_pointwise(x[: 64 * n], W, None, "none", [], "")
multiply(range(1, 100))
before = resident_bytes("VmRSS")
multiply(range(100, 300))
print(resident_bytes("VmRSS") - before)
"""


@pytest.fixture(autouse=True)
def same_threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("text", "cores"),
    [("200000 100000\n", 2), ("150000 100000", 1), ("50000 100000", 1), ("max 100000", None)],
)
def test_the_quota_of_a_control_group_is_read_as_whole_cores(tmp_path, text, cores):
    (tmp_path / "cpu.max").write_text(text, encoding="utf-8")
    assert granted_cores(tmp_path) == cores


def test_without_a_control_group_there_is_no_quota(tmp_path):
    assert granted_cores(tmp_path) is None


def test_configured_threads_win():
    assert "3, as configured" in choose_threads(3)
    assert torch.get_num_threads() == 3


def test_no_more_threads_than_the_container_is_granted(monkeypatch):
    torch.set_num_threads(4)
    monkeypatch.setattr(machine, "granted_cores", lambda: 2)
    assert "2, the cores this container is granted (torch counts 4)" in choose_threads(None)
    assert torch.get_num_threads() == 2


def test_a_generous_quota_changes_nothing(monkeypatch):
    torch.set_num_threads(2)
    monkeypatch.setattr(machine, "granted_cores", lambda: 64)
    assert "torch's own choice" in choose_threads(None)
    assert torch.get_num_threads() == 2


def run_in_child(script, how):
    """What a process of its own prints: these settings cannot be taken back."""
    command = [sys.executable, "-c", script, how]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8", check=True)
    return int(done.stdout)


@pytest.mark.slow
@glibc
def test_kept_memory_is_not_asked_for_again():
    assert run_in_child(FAULTS, "keep") * 10 < run_in_child(FAULTS, "leave")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere only the peak is known")
def test_steps_of_many_lengths_leave_few_kernels_behind(monkeypatch):
    for name in machine.CAPACITIES:
        monkeypatch.delenv(name, raising=False)
    assert run_in_child(KEPT, "few") * 3 < run_in_child(KEPT, "all")


def test_a_number_of_kernels_of_the_users_own_is_left_alone(monkeypatch):
    monkeypatch.setenv(machine.CAPACITIES[0], "7")
    monkeypatch.delenv(machine.CAPACITIES[1], raising=False)
    assert "as the environment says" in keep_few_kernels()
    assert machine.CAPACITIES[1] not in os.environ


def test_few_kernels_are_said_and_set(monkeypatch):
    for name in machine.CAPACITIES:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    for _ in range(2):  # a second run in the same process says the same
        assert "64 kernels" in keep_few_kernels()
    assert [os.environ[name] for name in machine.CAPACITIES] == ["64", "64"]


@glibc
def test_an_allocator_of_the_users_own_is_left_alone(monkeypatch):
    monkeypatch.setenv("LD_PRELOAD", "libother.so")
    assert "as the environment has it" in keep_freed_memory()
