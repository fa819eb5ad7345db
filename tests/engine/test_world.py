"""The same training whatever the number of processes."""

import json
import subprocess
import sys
from contextlib import contextmanager

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import windows as windows_module
from engine import world
from engine.plan import Plan
from engine.windows import own_micro_batches, windows
from engine.world import World, started
from tests.engine import worlds
from tests.ranks import ROOT, flat, start_ranks


@pytest.fixture(scope="module")
def alone():
    return json.loads(json.dumps(worlds.everything()))


@pytest.fixture(
    scope="module",
    params=[2, pytest.param(3, marks=pytest.mark.slow), pytest.param(4, marks=pytest.mark.slow)],
)
def together(request):
    """What each of some processes gives, by rank."""
    return start_ranks("tests.engine.worlds:everything", request.param)


def test_twenty_steps_are_those_of_one_process(alone, together):
    for rank in together:
        for case, one, other in zip(worlds.CASES, alone["train"], rank["train"], strict=True):
            assert one["counts"] == other["counts"], case
            for name in ("losses", "norms"):
                assert other[name] == pytest.approx(one[name], abs=1e-12), case
            for name, weight in one["weights"].items():
                assert flat(other["weights"][name]) == pytest.approx(flat(weight), abs=1e-12), case


def test_the_next_run_of_a_process_meets_no_dead_of_the_last_one():
    assert start_ranks("tests.engine.worlds:joined_again", 2) == [[0, 1], [0, 1]]


def test_an_evaluation_gives_the_same_bits_in_the_same_order(alone, together):
    assert len(alone["figures"][1]) == 23
    assert all(rank["figures"] == alone["figures"] for rank in together)
    assert alone["tokens"]["n"] > 0
    assert all(rank["tokens"] == alone["tokens"] for rank in together)


def test_what_only_some_have_a_gradient_of_is_summed_and_the_rest_left_alone(together):
    size = len(together)
    for rank in together:
        assert rank["sums"] == {"all": size, "first": 1.0, "none": None, "loss": size * 0.5}


def test_a_stop_in_the_middle_of_a_pass_is_everybodys(together):
    for rank in together:
        assert rank["stopped"] == {"seen": list(range(len(together))), "signal": 15}


def test_one_process_needs_nothing_distributed():
    program = (
        "import sys; from engine.world import deal, gather, join, sum_counts; "
        "from datetime import timedelta; join(timedelta(1), 'cpu'); "
        "assert (sum_counts(3), gather(1), list(deal(range(3)))) == ([3], [1], [0, 1, 2]); "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)


@pytest.mark.parametrize(
    ("told", "here"),
    [
        ({}, World()),
        ({"RANK": "1", "WORLD_SIZE": "3"}, World(1, 3)),
        ({"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"},
         World(3, 4, 1, 2)),
    ],
)  # fmt: skip
def test_the_starter_says_which_process_this_is(monkeypatch, told, here):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    assert started() == here


@pytest.mark.parametrize(
    ("rank", "size", "part"),
    [("2", "2", "RANK=2"), ("-1", "2", "RANK=-1"), ("x", "2", "RANK='x'"), ("0", "0", "SIZE=0")],
)
def test_a_starter_that_contradicts_itself_is_refused(monkeypatch, rank, size, part):
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", size)
    with pytest.raises(ValueError, match=part):
        started()


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 9), st.integers(1, 30), st.integers(1, 8), st.data())
def test_every_micro_batch_is_one_processs_own(size, per_epoch, accumulate, data):
    plan = Plan(0, 1, per_epoch, accumulate, 1, None, None, None)
    start = accumulate * data.draw(st.integers(0, (per_epoch - 1) // accumulate))
    dealt = []
    for rank in range(size):
        with as_rank(World(rank, size)):
            own = list(own_micro_batches(plan, start))
            parts = list(windows(own, plan, start))
        assert [number for part in parts for number in part] == own
        for first, part in zip(range(start, per_epoch, accumulate), parts, strict=True):
            assert all(first <= number < first + accumulate for number in part)
        dealt += own
    assert sorted(dealt) == list(range(start, per_epoch))


def batch_of(number):
    return {"rows": torch.tensor([number])}


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 6), st.integers(1, 2), st.integers(1, 20), st.integers(1, 8))
def test_in_lockstep_all_do_as_many_and_each_micro_batch_counts_once(
    shares, tensor, per_epoch, accumulate
):
    plan, counted = Plan(0, 1, per_epoch, accumulate, 1, None, None, None), []
    passes = set()
    with pytest.MonkeyPatch.context() as patch:
        for rank in range(shares * tensor):
            here = World(rank, shares * tensor, tensor=tensor, lockstep=True)
            with as_rank(here):
                own = list(own_micro_batches(plan, 0))
                # what rank 0 has first of the window
                firsts = iter([n for n in range(0, per_epoch, accumulate)
                               if min(accumulate, per_epoch - n) < shares])  # fmt: skip
                patch.setattr(windows_module, "from_first",
                              lambda _, firsts=firsts: [batch_of(next(firsts))])  # fmt: skip
                parts = list(windows(map(batch_of, own), plan, 0))
            passes.add(tuple(len(part) for part in parts))
            real = [b["rows"].item() for part in parts for b in part if "stand_in" not in b]
            assert real == own
            if rank % tensor == 0:
                counted += real
    assert len(passes) == 1
    assert sorted(counted) == list(range(per_epoch))


@contextmanager
def as_rank(here):
    before, world._joined = world._joined, here
    try:
        yield
    finally:
        world._joined = before
