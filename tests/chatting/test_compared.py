"""Replies before and after training, their figures and their file."""

import json

import pytest
from scipy import stats

from job.chatting.compared import (
    Compared,
    ask_and_truth,
    compare_figures,
    figure_differences,
    reply_figures,
    write_head_to_head,
)
from job.chatting.talker import Reply
from report.replies import distinct_pairs

MESSAGES = [{"role": "user", "content": "how"}]
BEFORE = [Reply(f"as a model {i} {i}", 40 + i, "length" if i % 4 else "eos", 1.0) for i in range(8)]
AFTER = [Reply(f"fine {i} you", 6 + i % 3, "eos" if i else "length", 1.0) for i in range(8)]


def rows(true="ok then you"):
    return [Compared(MESSAGES, b, a, true) for b, a in zip(BEFORE, AFTER, strict=True)]


def test_figures_are_scipys():
    figures = reply_figures(BEFORE)
    wilson = stats.binomtest(2, 8).proportion_ci(method="wilson")
    assert figures["stops"][0] == pytest.approx((0.25, wilson.low, wilson.high))
    lengths = [reply.tokens for reply in BEFORE]
    mean = sum(lengths) / 8
    interval = stats.t.interval(0.95, 7, mean, stats.sem(lengths))
    assert figures["tokens"][0] == pytest.approx((mean, *interval))
    assert figures["distinct-2"][0] == distinct_pairs([reply.text for reply in BEFORE])
    assert {n for _, n in figures.values()} == {8}
    assert reply_figures([]) == {}


def test_differences_are_by_prompt():
    figures = figure_differences(BEFORE, AFTER)
    assert figures["stops"][0][0] == pytest.approx(7 / 8 - 2 / 8)
    steps = [a.tokens - b.tokens for a, b in zip(AFTER, BEFORE, strict=True)]
    interval = stats.t.interval(0.95, 7, sum(steps) / 8, stats.sem(steps))
    assert figures["tokens"][0] == pytest.approx((sum(steps) / 8, *interval))
    with pytest.raises(ValueError, match="8 and 7"):
        figure_differences(BEFORE, AFTER[:-1])


def test_true_replies_stand_beside_where_there_are_any():
    sets = compare_figures(rows(), [3] * 8)
    assert list(sets) == ["before", "after", "difference", "true"]
    assert sets["true"]["tokens"][0][0] == 3
    assert list(compare_figures(rows(None))) == ["before", "after", "difference"]
    lone = compare_figures([Compared(MESSAGES, None, AFTER[0])])
    assert lone["before"] == {}
    assert "difference" not in lone


def test_the_file_holds_all_that_the_figures_are_of(tmp_path):
    path = tmp_path / "head_to_head.jsonl"
    write_head_to_head(path, [*rows(), Compared(MESSAGES, None, AFTER[0])])
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert lines[1] == {
        "messages": MESSAGES,
        "before": "as a model 1 1", "before_tokens": 41, "before_stopped": "length",
        "after": "fine 1 you", "after_tokens": 7, "after_stopped": "eos",
        "true": "ok then you",
    }  # fmt: skip
    assert lines[8]["before"] is None
    assert distinct_pairs([line["after"] for line in lines[:8]]) == distinct_pairs(
        [reply.text for reply in AFTER]
    )


def test_the_truth_is_what_the_assistant_said_last():
    spoken = [*MESSAGES, {"role": "assistant", "content": "fine"}]
    assert ask_and_truth(spoken) == (MESSAGES, "fine")
    assert ask_and_truth(MESSAGES) == (MESSAGES, None)
    assert ask_and_truth([]) == ([], None)
