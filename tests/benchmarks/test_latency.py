"""One short text in turn, and the ratios of each round."""

from latency import table, take_turns


def test_each_contestant_answers_once_a_round_and_warms_up_before():
    asked = []
    contestants = {name: lambda name=name: asked.append(name) for name in ("a", "b")}
    times = take_turns(contestants, rounds=10)
    assert asked == ["a", "b"] * 11
    assert [len(seconds) for seconds in times.values()] == [10, 10]


def test_ratios_are_those_of_a_round():
    lines = table({"a": [0.001, 0.003, 0.002], "b": [0.002, 0.003, 0.001]}).splitlines()
    assert lines[2:] == ["| a | 2.00 | 1.00 | 1.00 |", "| b | 2.00 | 1.00 | 1.00 |"]


def test_a_ratio_above_one_is_slower():
    assert table({"a": [0.001], "b": [0.004]}).endswith("| b | 4.00 | 4.00 | 4.00 |")
