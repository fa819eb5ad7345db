"""Replies to the same conversations before and after training, side by side, and their figures."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.write import json_text
from engine.intervals import wilson_interval
from files.write import replace_text
from job.chatting.talker import Message, Reply
from report.intervals import Interval, mean_interval, share_difference
from report.replies import Figures, distinct_difference, distinct_pairs


@dataclass(frozen=True)
class Compared:
    """A conversation up to where the assistant speaks, what was said before and after training, and
    what was said there in truth, where that is known."""

    messages: list[Message]
    before: Reply | None
    after: Reply
    true: str | None = None


def ask_and_truth(messages: Sequence[Message]) -> tuple[list[Message], str | None]:
    """A conversation up to the assistant's last word, and that word; all of it and None where the
    last word is another's."""
    if messages and messages[-1]["role"] == "assistant":
        return list(messages[:-1]), messages[-1]["content"]
    return list(messages), None


def write_head_to_head(path: Path, rows: Sequence[Compared]) -> None:
    """A JSON object a line: messages, before, after, true, and of the replies tokens and stopped.
    The file appears whole."""
    with replace_text(path) as file:
        file.writelines(f"{json_text(_cells(row))}\n" for row in rows)


def _cells(row: Compared) -> dict[str, Any]:
    cells: dict[str, Any] = {"messages": row.messages}
    for name, reply in (("before", row.before), ("after", row.after)):
        cells[name] = None if reply is None else reply.text
        cells[f"{name}_tokens"] = None if reply is None else reply.tokens
        cells[f"{name}_stopped"] = None if reply is None else reply.stopped
    return {**cells, "true": row.true}


def reply_figures(replies: Sequence[Reply]) -> dict[str, tuple[Interval, int]]:
    """The figures of report/replies.py, each with its interval and n: "stops", a share with
    Wilson's, "distinct-2", and "tokens", a mean with Student's."""
    n, stops = len(replies), sum(reply.stopped == "eos" for reply in replies)
    if n == 0:
        return {}
    return {
        "stops": ((stops / n, *wilson_interval(stops, n)), n),
        "distinct-2": (distinct_pairs([reply.text for reply in replies]), n),
        "tokens": (mean_interval([reply.tokens for reply in replies]), n),
    }


def true_figures(texts: Sequence[str], tokens: Sequence[int]) -> dict[str, tuple[Interval, int]]:
    """The same of true replies, of so many tokens each, which all stop by themselves."""
    if not texts:
        return {}
    return {
        "distinct-2": (distinct_pairs(texts), len(texts)),
        "tokens": (mean_interval(tokens), len(texts)),
    }


def figure_differences(
    before: Sequence[Reply], after: Sequence[Reply]
) -> dict[str, tuple[Interval, int]]:
    """After less before, of replies to the same prompts, whose hardness cancels. Raises ValueError
    where there are not as many of each."""
    n = len(after)
    if n != len(before):
        raise ValueError(f"got {len(before)} and {n} replies; expected one each a prompt")
    if n == 0:
        return {}
    pairs = [(a.stopped == "eos", b.stopped == "eos") for a, b in zip(after, before, strict=True)]
    longer = [a.tokens - b.tokens for a, b in zip(after, before, strict=True)]
    texts = [[reply.text for reply in side] for side in (after, before)]
    stops = share_difference(pairs.count((True, False)), pairs.count((False, True)), n)
    return {
        "stops": ((stops[0], max(-1.0, stops[1]), min(1.0, stops[2])), n),
        "distinct-2": (distinct_difference(*texts), n),
        "tokens": (mean_interval(longer), n),
    }


def compare_figures(
    rows: Sequence[Compared], true_tokens: Sequence[int] = ()
) -> dict[str, Figures]:
    """Columns for report.replies.figures_table: before, after, the difference, and of the true
    replies, with so many tokens each."""
    after = [row.after for row in rows]
    before = [row.before for row in rows if row.before is not None]
    sets: dict[str, Figures] = {"before": reply_figures(before), "after": reply_figures(after)}
    if len(before) == len(after):
        sets["difference"] = figure_differences(before, after)
    if true_tokens:
        sets["true"] = true_figures([r.true for r in rows if r.true is not None], true_tokens)
    return sets
