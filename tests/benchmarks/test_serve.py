"""The figures of a server beside those of predict.py: pairs stay pairs."""

import json

import pytest

from benchmarks.serve import Round, mixed_texts, share_at, tables


def test_texts_are_cut_to_every_length_and_the_same_each_time(tmp_path):
    rows = [{"text": " ".join(["word"] * 200)}] * 20
    lines = "\n".join(map(json.dumps, rows))
    (tmp_path / "test_predictions.jsonl").write_text(lines, encoding="utf-8")
    texts = mixed_texts(tmp_path, 60)
    lengths = [len(text.split()) for text in texts]
    assert min(lengths) < 20 < 180 < max(lengths)
    assert texts == mixed_texts(tmp_path, 60)


@pytest.mark.parametrize(("share", "value"), [(0.5, 51), (0.99, 100), (1.0, 100)])
def test_a_share_of_the_values_is_below(share, value):
    assert share_at(list(range(100, 0, -1)), share) == value


def test_each_round_is_a_pair_and_the_lone_request_a_difference():
    lines = tables([Round(2.0, 2.5, [0.1, 0.2, 0.3])], ([0.01, 0.02], [0.012, 0.023]), 100, 32)
    assert "| 1 | 50 | 40 | 0.80 | 200 | 300 | – |" in lines
    three = tables([Round(2.0, 2.5, [0.1], 4.0)], ([0.01], [0.01]), 100, 32)
    assert "| 100 | 100 | 25 |" in three
    assert "| 2 short texts | 15.00 | 17.50 | 2.50 |" in lines
