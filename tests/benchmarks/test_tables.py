"""From windows to the figures of the table."""

from dataclasses import replace

import pytest
from speed import verdict
from tables import best_stock, learning_table, seconds_to, speed_table, summarise
from tasks import COMPARISONS

MIB = 2**20
ACCURACY = COMPARISONS["lora256"]
UNITS, PAIRS = {"fp32": 3e11, "bf16": 2.7e12}, {"fp32": 2e11, "bf16": 4.1e11}
NONE = {"fp32": 1.6e11}  # what machine.py measures: bf16 only where it is the faster one


def windows(*speeds, dtype="fp32", peak=300):
    """Windows of ten seconds at these tokens per second, 2 FLOP a token."""
    return [
        {
            "tokens": 10 * s, "learned": 4 * s, "flops": 20 * s, "seconds": 10.0, "dtype": dtype,
            "peak": peak * MIB, "imports": 100 * MIB,
        }
        for s in speeds
    ]  # fmt: skip


@pytest.fixture
def three():
    return {
        "openloop": windows(60, 40, 90, dtype="bf16", peak=200),
        "stock": windows(10, 10, 10),
        "stock_tuned": windows(20, 10, 30, dtype="bf16"),
    }


def test_a_ratio_is_the_median_of_the_rounds_ratios(three):
    row = summarise(three, {})["openloop"]
    assert row["to_stock"] == {"median": 6.0, "low": 4.0, "high": 9.0}
    assert row["to_best"] == {"median": 3.0, "low": 3.0, "high": 4.0}
    assert row["tokens_per_s"] == 60


def test_the_best_stock_contestant_is_the_one_with_the_highest_median(three):
    assert best_stock(three) == "stock_tuned"
    three["stock"] = windows(25, 25, 1)
    assert best_stock(three) == "stock"


def test_memory_less_imports_and_utilisation(three):
    row = summarise(three, {"bf16": 1200.0})["openloop"]
    assert (row["peak"], row["less_imports"]) == (200 * MIB, 100 * MIB)
    assert row["utilisation"] == pytest.approx(0.1)  # 120 FLOP/s


def test_the_table_says_why_a_contestant_was_not_run(three):
    text = speed_table({"lora256": summarise(three, {})}, "fp32")
    assert "| lora256 | stock_bf16 | – | not run: no bf16 units here |" in text
    assert "stock_tuned (the best)" in text
    assert "| 100 (0.50×) |" in text
    assert "| openloop | bf16 | 60 | 24 |" in text  # learned tokens beside all of them


def test_any_other_contestant_may_be_the_best(three):
    three["trl"] = windows(70, 70, 70)
    three["openloop_unpacked"] = windows(90, 90, 90)
    assert best_stock(three) == "trl"


def test_seconds_to_an_accuracy_are_those_of_the_first_time():
    curve = [[25, 10.0, 0.8], [50, 20.0, 0.86], [75, 30.0, 0.84], [100, 40.0, 0.9]]
    assert seconds_to(curve, replace(ACCURACY, reached=0.85)) == 20.0
    assert seconds_to(curve, replace(ACCURACY, reached=0.95)) is None
    falling = [[8, 10.0, 40.0], [16, 20.0, 29.0], [24, 30.0, 31.0]]
    assert seconds_to(falling, replace(COMPARISONS["chat512"], reached=30.0)) == 20.0


def test_the_accuracy_table_says_not_reached():
    curves = {
        "openloop": [[[25, 5.0, 0.86]], [[25, 6.0, 0.7]]],
        "stock_tuned": [[[25, 50.0, 0.84]], [[25, 60.0, 0.88]]],
    }
    text = learning_table(curves, ACCURACY)
    assert "| openloop | 5, not reached |" in text
    assert "| final accuracy (95 % over seeds) |" in text
    assert "openloop minus stock_tuned: -0.0800 (" in text


@pytest.mark.parametrize(
    ("cores", "peak", "code"),
    [(2, UNITS, 1), (1, UNITS, 0), (2, PAIRS, 0), (2, NONE, 0), (1, NONE, 0)],
)
def test_too_slow_fails_only_where_it_can_be_asked_for(cores, peak, code):
    said, exit_code = verdict(2.4, cores, peak)
    assert exit_code == code
    assert ("not enforced" in said) == (code == 0)
    assert ("two cores" in said) == (cores == 1)
    assert ("bf16 matrix units" in said) == (peak != UNITS)


def test_fast_enough_passes():
    assert verdict(2.5, 2, UNITS)[1] == 0
