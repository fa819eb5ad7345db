"""Two processes of the stock Trainer beside two of ours, on the same rows, in float64.

Each takes one step of plain SGD at rate 1 over six micro-batches of two rows, so the weights move
by the gradient; the truth is the gradient of the mean over all rows at once. What the stock one
does is that of the installed transformers and accelerate, right or wrong: a change there fails
here, and docs/scale.md has to say so.
"""

import pytest

from tests.ranks import start_ranks

pytestmark = [pytest.mark.ranks, pytest.mark.timeout(400)]
STEPS = ("classes", "classes, a tail", "chats", "chats, a tail")


@pytest.fixture(scope="module")
def alone():
    return start_ranks("tests.stock_ranks:everything", 1, seconds=300)


@pytest.fixture(scope="module")
def two():
    return start_ranks("tests.stock_ranks:everything", 2, seconds=300)


def seen(ranks, side, name):
    """The rows that any process saw."""
    return sorted(row for rank in ranks for row in rank[side][name]["seen"])


@pytest.mark.parametrize("name", STEPS)
def test_ours_is_the_true_gradient_of_each_row_once(alone, two, name):
    rows = list(range(11 if "tail" in name else 12))
    for ranks in (alone, two):
        assert seen(ranks, "ours", name) == rows
        assert all(rank["ours"][name]["off"] < 1e-13 for rank in ranks)


def test_our_evaluation_is_that_of_one_process(alone, two):
    for rank in two:
        assert rank["ours"]["scores"] == alone[0]["ours"]["scores"]
        assert rank["ours"]["scores"]["loss"] == pytest.approx(rank["loss"], abs=1e-12)
        assert rank["ours"]["scores"]["answers"] == 11


def test_the_stock_trainer_repeats_a_row_where_they_do_not_come_out_even(alone, two):
    assert seen(alone, "stock", "chats, a tail") == list(range(11))
    assert seen(two, "stock", "chats, a tail") == [0, *range(11)]  # the first row again
    assert two[0]["stock"]["chats, a tail"]["off"] > 0.1


def test_the_stock_trainer_adds_the_means_of_a_classifiers_micro_batches(alone, two):
    for ranks in (alone, two):  # six micro-batches, six times the gradient
        assert ranks[0]["stock"]["classes"]["times"] == pytest.approx(6)
    assert two[0]["stock"]["classes, a tail"]["times"] == pytest.approx(7.06, abs=0.01)


def test_the_stock_trainer_weighs_tokens_rightly_unless_it_is_told_not_to(alone, two):
    assert alone[0]["stock"]["chats"]["off"] < 1e-6
    assert two[0]["stock"]["chats"]["off"] < 1e-6  # it divides by the tokens of both
    assert two[0]["stock"]["chats, each its mean"]["off"] > 0.05


def test_the_stock_trainers_loss_of_an_evaluation_doubles_and_its_answers_do_not(alone, two):
    assert alone[0]["stock"]["scores"]["loss"] == pytest.approx(alone[0]["loss"])
    assert two[0]["stock"]["scores"]["loss"] == pytest.approx(2 * two[0]["loss"], rel=0.01)
    assert two[0]["stock"]["scores"]["answers"] == 11
