"""Pairs of rows: half of one class and half of two, balanced, a pure function of seed and epoch."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.pairs import Order, count_pairs, draw_pairs, why_no_pairs

CLASSES = st.lists(st.integers(0, 4), min_size=3, max_size=40).filter(
    lambda classes: why_no_pairs(np.array(classes)) is None
)


@given(CLASSES, st.integers(1, 60), st.integers(0, 2**32 - 1), st.integers(0, 9))
def test_half_of_the_pairs_are_of_one_class_and_no_row_stands_beside_itself(
    classes, pairs, seed, epoch
):
    classes = np.array(classes)
    drawn = draw_pairs(classes, pairs, seed, epoch)
    assert drawn.dtype == np.int64
    assert drawn.shape == (2 * pairs,)
    first, second = drawn[0::2], drawn[1::2]
    assert (first != second).all()
    equal = classes[first] == classes[second]
    assert equal.tolist() == [place % 2 == 0 for place in range(pairs)]
    assert (draw_pairs(classes, pairs, seed, epoch) == drawn).all()


@given(CLASSES, st.integers(1, 60), st.integers(0, 9))
def test_every_class_has_its_share_of_both_halves(classes, pairs, seed):
    classes = np.array(classes)
    owners = classes[draw_pairs(classes, pairs, seed, 0)].reshape(-1, 2)
    counts = Counter(classes.tolist())
    equal = Counter({name: 0 for name, count in counts.items() if count > 1})
    equal.update(owners[0::2, 0].tolist())
    different = Counter(dict.fromkeys(counts, 0))
    different.update(owners[1::2].ravel().tolist())
    assert max(equal.values()) - min(equal.values()) <= 1
    assert max(different.values()) - min(different.values()) <= 2


@pytest.mark.parametrize("seed", range(5))
def test_all_rows_of_a_class_come_before_one_comes_again(seed):
    classes = np.repeat([0, 1], 8)
    # 16 pairs: 8 equal ones with a first row each, 8 others with two: 12 rows of each class, but
    # for the partners
    drawn = draw_pairs(classes, 16, seed, 0)
    partners = np.zeros(32, dtype=bool)
    partners[1::4] = True
    times = np.bincount(drawn[~partners], minlength=16)
    assert set(times.tolist()) == {1, 2}


def test_each_row_of_a_class_can_be_the_partner_of_each_other():
    classes = np.array([0, 0, 0, 1, 1])
    drawn = np.concatenate([draw_pairs(classes, 40, 1, epoch) for epoch in range(5)])
    seen = {tuple(pair) for pair in drawn.reshape(-1, 2).tolist()}
    assert seen == {(a, b) for a in range(5) for b in range(5) if a != b}


def test_epochs_and_seeds_draw_pairs_of_their_own():
    classes = np.repeat([0, 1], 10)
    drawn = {tuple(draw_pairs(classes, 8, seed, epoch)) for seed in range(4) for epoch in range(4)}
    assert len(drawn) == 16


def test_what_is_drawn_is_fixed_for_good():
    assert draw_pairs(np.array([0, 0, 1, 1]), 4, 42, 0).tolist() == FIXED


FIXED = [1, 0, 0, 3, 2, 3, 3, 0]


def test_a_class_of_one_row_stands_in_pairs_of_two_classes_alone():
    classes = np.array([0, 0, 1])
    drawn = draw_pairs(classes, 30, 0, 0).reshape(-1, 2)
    assert set(drawn[0::2].ravel().tolist()) == {0, 1}
    assert (drawn[1::2] == 2).any(axis=1).all()


@pytest.mark.parametrize(
    ("classes", "reason"), [([1, 1, 1], "of one class"), ([0, 1, 2], "no class has two")]
)
def test_rows_that_make_no_pairs_are_refused_with_the_reason(classes, reason):
    with pytest.raises(ValueError, match=reason):
        draw_pairs(np.array(classes), 4, 0, 0)


def test_all_pairs_are_counted():
    classes = np.array([0, 0, 0, 1, 1, 2])
    pairs = [(a, b) for a in range(6) for b in range(a)]
    equal = sum(classes[a] == classes[b] for a, b in pairs)
    assert count_pairs(classes) == (equal, len(pairs) - equal) == (4, 11)


def test_an_order_of_pairs_has_as_many_rows_as_it_is_given():
    classes = np.repeat([0, 1], 100)
    assert Order(0, None, 200).rows == len(Order(0, None, 200).epoch(3)) == 200
    bounded = Order(0, classes, 200, pairs=6)
    assert bounded.rows == len(bounded.epoch(3)) == 12
