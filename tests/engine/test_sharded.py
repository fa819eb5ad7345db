"""The same training where each process has a part of the weights."""

import json

import pytest

from tests.engine import shards
from tests.ranks import flat, start_ranks

SLOW = pytest.mark.slow


@pytest.fixture(scope="module")
def alone():
    return json.loads(json.dumps(shards.everything()))


@pytest.fixture(
    scope="module",
    params=[
        (2, "full"), *(
            pytest.param(case, marks=SLOW) for case in [(2, "grad_op"), (4, "hybrid")]
        ), *(
            pytest.param(case, marks=pytest.mark.ranks)
            for case in [(3, "full"), (4, "full"), (4, "grad_op")]
        ),
    ],
    ids=lambda case: f"{case[1]}-{case[0]}",
)  # fmt: skip
def together(request):
    """What each of some processes gives, by rank."""
    size, how = request.param
    local = 2 if how == "hybrid" else size
    return start_ranks("tests.engine.shards:everything", size, how, local_size=local)


def test_twenty_steps_are_those_of_one_process(alone, together):
    for rank in together:
        for case, one, other in zip(shards.CASES, alone["train"], rank["train"], strict=True):
            assert one["counts"] == other["counts"], case
            for name in ("losses", "norms"):
                assert other[name] == pytest.approx(one[name], abs=1e-12), case
            assert one["tensors"].keys() == other["tensors"].keys()
            for name, weight in one["tensors"].items():
                assert flat(other["tensors"][name]) == pytest.approx(flat(weight), abs=1e-12), case


def test_an_evaluation_of_fewer_batches_than_processes_counts_each_row_once(alone, together):
    for rank in together:
        for one, other in zip(alone["figures"], rank["figures"], strict=True):
            assert [row for row, _ in one[1]] == [row for row, _ in other[1]]
            assert one[0]["accuracy"] == other[0]["accuracy"]
            assert other[0]["loss"] == pytest.approx(one[0]["loss"], abs=1e-12)


def test_a_loss_of_one_process_that_is_no_number_reaches_no_weight(together):
    for rank in together:
        bad = rank["bad"]
        assert bad["kept"]
        assert bad["steps"] == 2
        assert len(set(bad["rows"])) == len(bad["rows"]) == 6
        assert "step 3" in bad["message"]


def test_an_overflow_of_one_process_is_everybodys(together):
    first = together[0]["overflow"]
    assert first["skipped"][0]
    assert not any(first["skipped"][1:])
    assert all(rank["overflow"] == first for rank in together)


def test_what_rank_0_brings_is_put_in_parts(together):
    assert all(rank["restored"] for rank in together)


def test_a_loss_without_gradients_leaves_nothing_gathered(together):
    assert all(rank["settles"] for rank in together)


def test_each_has_the_share_of_the_weights_that_is_worked_out(together):
    for rank in together:
        own, worked_out = rank["own"]
        assert own <= 2 * worked_out  # rows of 7 make no even shards
    shares = [rank["own"][0] for rank in together]
    assert sum(shares) / len(shares) == pytest.approx(together[0]["own"][1], rel=0.01)


def test_frozen_weights_may_be_of_another_dtype(alone, together):
    for rank in together:
        assert rank["half"] == pytest.approx(alone["half"], abs=1e-6)


@pytest.mark.slow
def test_each_block_may_be_compiled():
    plain = shards.train(3, 10, 0.0)["losses"][:4]
    for rank in start_ranks("tests.engine.shards:compiled", 2, "full", seconds=300):
        assert rank == pytest.approx(plain, abs=1e-9)
