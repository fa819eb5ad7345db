import numpy as np
import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from data.splits import cut, find_overlap, hold_out_size, sample, seeded_order


@given(size=st.integers(0, 300), seed=st.integers(-5, 2**70), stream=st.integers(0, 1000))
def test_seeded_order_is_a_permutation(size, seed, stream):
    assert sorted(seeded_order(size, seed, stream)) == list(range(size))


def test_seeded_order_is_fixed_for_good():
    assert seeded_order(8, 42, 0).tolist() == [7, 1, 6, 4, 3, 5, 0, 2]
    assert seeded_order(8, 42, 1).tolist() != seeded_order(8, 42, 0).tolist()
    assert seeded_order(8, 43, 0).tolist() != seeded_order(8, 42, 0).tolist()


@settings(max_examples=100, deadline=None)
@given(
    counts=st.lists(st.integers(1, 60), min_size=1, max_size=6),
    share=st.floats(0.01, 0.4),
    seed=st.integers(0, 1000),
)
def test_every_class_has_its_share_within_one_row_and_every_row_one_place(counts, share, seed):
    classes = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    rows = len(classes)
    size = hold_out_size(share, rows)
    if 2 * size >= rows:
        return
    parts = cut(classes, rows, {"test": size, "validation": size}, seed)
    assert sorted(np.concatenate(list(parts.values()))) == list(range(rows))
    assert len(parts["test"]) == len(parts["validation"]) == size
    held = np.bincount(classes[parts["test"]], minlength=len(counts))
    exact = np.array(counts) * size / rows
    spare = size <= sum(n - 1 for n in counts)
    if spare and all(n > 1 for n in counts):
        assert (np.abs(held - exact) <= 1).all()


def test_a_class_of_one_row_stays_in_training():
    classes = np.array([0] * 20 + [1])
    for seed in range(20):
        assert 20 in cut(classes, 21, {"test": 5, "validation": 5}, seed)["train"]


def test_a_cut_without_classes_is_plain_and_exact_in_size():
    parts = cut(None, 100, {"test": 13}, 0)
    assert (len(parts["test"]), len(parts["train"])) == (13, 87)


def test_a_cut_depends_on_its_seed_only():
    classes = np.arange(100) % 2
    again = [cut(classes, 100, {"test": 10}, seed)["test"].tolist() for seed in (1, 1, 2)]
    assert again[0] == again[1] != again[2]


@pytest.mark.parametrize(
    ("asked", "rows", "size"), [(0, 100, 0), (0.1, 100, 10), (0.01, 10, 1), (7, 100, 7)]
)
def test_a_hold_out_is_a_share_or_a_number_of_rows(asked, rows, size):
    assert hold_out_size(asked, rows) == size


@pytest.mark.parametrize("asked", [-1, -0.1, 1.5])
def test_an_impossible_hold_out_is_refused(asked):
    with pytest.raises(ValueError, match="expected a share"):
        hold_out_size(asked, 100)


def test_a_hold_out_of_everything_is_refused():
    with pytest.raises(ValueError, match=r"data\.test: 10 rows asked for"):
        cut(None, 10, {"test": 10}, 0)


def test_a_sample_is_the_well_known_shuffle_and_select():
    rows = Dataset.from_dict({"i": list(range(500))})
    known = rows.shuffle(seed=42).select(range(100))["i"]
    assert sample(500, 100, 42).tolist() == list(known)


def test_overlap_names_each_row_with_the_first_like_it():
    assert find_overlap([b"a", b"b", b"a"], [b"c", b"a", b"a"]) == [(0, 1), (2, 1)]
    assert find_overlap([b"a"], []) == []
