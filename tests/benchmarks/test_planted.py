"""The faults that benchmarks/planted.py plants are found as docs/data-check.md says."""

import numpy as np
import planted
import pytest

from data.checks.near import compare_texts


@pytest.mark.parametrize("edit", planted.EDITS)
def test_an_edit_makes_another_text_that_is_near(edit):
    text = " ".join(f"word{i % 97}x{i}" for i in range(200)) + "."
    copy = edit(text, np.random.default_rng(0))
    assert copy != text
    assert compare_texts((text,), (copy,)) is not None


@pytest.mark.slow
@pytest.mark.assets
def test_copies_and_flipped_labels_in_real_reviews_are_found(tmp_path):
    found, others = planted.count_copies(1, tmp_path)
    assert found >= 38
    assert others <= 5
    share, _ = planted.count_flips(1, tmp_path)
    assert share >= 0.6
