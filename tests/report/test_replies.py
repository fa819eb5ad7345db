"""Figures of replies: counted by hand, intervals that cover, tables that fit."""

import math
import random

import pytest

from report.format import COLUMNS, measure_width
from report.replies import (
    distinct_difference,
    distinct_pairs,
    figures_table,
    replies_table,
    word_pairs,
)


def test_pairs_are_of_words_and_marks_whatever_their_capitals():
    assert dict(word_pairs("No, no, no!")) == {
        ("no", ","): 2, (",", "no"): 2, ("no", "!"): 1,
    }  # fmt: skip
    assert dict(word_pairs("你好 ok")) == {("你", "好"): 1, ("好", "ok"): 1}
    assert not word_pairs("one")
    assert not word_pairs("")


def test_distinct_2_is_a_recount():
    replies = ["a b c", "a b d", "e", "a b c"]
    # ab bc | ab bd | | ab bc: three different ones of six
    assert distinct_pairs(replies)[0] == 3 / 6
    assert distinct_pairs(["a b c d", "e f g"])[0] == 1.0
    assert math.isnan(distinct_pairs(["a", ""])[0])
    assert distinct_pairs(["a b a b"]) == (2 / 3, -math.inf, math.inf)


def test_what_a_jackknife_leaves_out_is_left_out():
    replies = ["a b c", "a b d a b", "e f", "b c a", "a b"]

    def share(texts):
        pairs = [
            pair for text in texts for pair in zip(text.split(), text.split()[1:], strict=False)
        ]
        return len(set(pairs)) / len(pairs)

    without = [share(replies[:i] + replies[i + 1 :]) for i in range(5)]
    mean = sum(without) / 5
    error = math.sqrt(4 / 5 * sum((one - mean) ** 2 for one in without))
    value, low, high = distinct_pairs(replies)
    assert value == share(replies)
    assert (high - low) / 2 == pytest.approx(2.7764451051977987 * error, rel=1e-12)


def speak(draws, words):
    """A reply of 4 to 12 words, the first ones the likeliest, as in a language."""
    weights = [1 / (i + 1) for i in range(words)]
    return " ".join(f"w{i}" for i in draws.choices(range(words), weights, k=draws.randint(4, 12)))


def test_the_interval_covers_what_sets_of_that_size_have():
    draws = random.Random(0)
    sets = [[speak(draws, 40) for _ in range(25)] for _ in range(400)]
    intervals = [distinct_pairs(one) for one in sets]
    truth = sum(value for value, _, _ in intervals) / len(intervals)
    covered = sum(low <= truth <= high for _, low, high in intervals) / len(intervals)
    assert 0.9 <= covered <= 0.995


def test_a_difference_is_over_prompts():
    draws = random.Random(1)
    first = [speak(draws, 200) for _ in range(30)]
    second = [speak(draws, 5) for _ in range(30)]
    value, low, high = distinct_difference(first, second)
    assert value == pytest.approx(distinct_pairs(first)[0] - distinct_pairs(second)[0])
    assert 0 < low < value < high
    assert distinct_difference(first, first) == (0, 0, 0)
    with pytest.raises(ValueError, match="30 and 29"):
        distinct_difference(first, second[:-1])


def test_the_figures_stand_in_one_table():
    table = figures_table(
        {
            "before": {"stops": ((0.25, 0.1, 0.5), 16), "tokens": ((80.5, 60.25, 100.75), 16)},
            "after": {"stops": ((1.0, 0.8, 1.0), 16), "distinct-2": ((math.nan, 0, 0), 16)},
            "true": {"tokens": ((12.0, -math.inf, math.inf), 1)},
        }
    )
    assert table == [
        "         n  stops            tokens               distinct-2",
        "before  16  0.25 [0.1, 0.5]  80.5 [60.25, 100.8]  -",
        "after   16  1 [0.8, 1]       -                    -",
        "true     1  -                12                   -",
    ]


def test_prompts_stand_above_their_replies_within_a_line():
    long = "and then he said that " * 40
    table = replies_table(
        ["How are you?", "Say\nit \x1b[31m again " + long],
        {"before": ["As a language model, I", long], "after": ["fine", ""]},
    )
    lines = table.split("\n")
    assert lines[:4] == [
        "> How are you?", "  before  As a language model, I", "  after   fine", "",
    ]  # fmt: skip
    assert lines[4].startswith("> Say it [31m again and then")
    assert lines[5].startswith("  before  and then")
    assert lines[6].startswith("          ")
    assert lines[7].endswith("…")
    assert lines[8] == "  after   -"
    assert max(map(measure_width, lines)) <= COLUMNS
    with pytest.raises(ValueError, match="2 prompts and 1 replies 'before'"):
        replies_table(["a", "b"], {"before": ["c"]})
