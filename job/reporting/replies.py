"""What the page shows of a language model: replies before and after, and their figures."""

import math
from itertools import islice
from pathlib import Path
from typing import Any

from job.reporting.predictions import read_lines
from report.intervals import Interval
from report.page.page import Talk
from report.replies import figures_rows

MOST = 20  # replies that are shown; the file holds all
HEAD_TO_HEAD = "head_to_head.jsonl"


def reply_rows(result: dict[str, Any]) -> list[list[str]]:
    """The figures of replies, the first row their names."""
    sets = {
        name: {key: (_numbers(*interval), n) for key, (interval, n) in figures.items()}
        for name, figures in (result.get("replies") or {}).items()
    }
    return [list(row) for row in figures_rows(sets)] if sets else []


def _numbers(value: float | None, low: float | None, high: float | None) -> Interval:
    """An interval as it was before a file, which has null for what is not finite."""
    return (
        math.nan if value is None else value,
        -math.inf if low is None else low,
        math.inf if high is None else high,
    )


def talks(path: Path, texts: bool) -> list[Talk]:
    """The first replies of a run's file; none where there is none, or texts are left out."""
    if not texts:
        return []
    return [
        Talk(
            prompt=str(line["messages"][-1]["content"]),
            before=line["before"],
            after=line["after"],
            true=line["true"],
        )
        for _, _, line in islice(read_lines(path), MOST)
    ]
