"""What a language model wrote: figures of its replies, and some of them before and after training.

stops        the share of replies that ended by themselves, before they were cut
distinct-2   different pairs of neighbouring words over all such pairs (Li et al. 2016,
             arXiv:1510.03055): near 1 all is new, near 0 the same again and again
tokens       how long a reply is
"""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise

from report.format import (
    COLUMNS,
    NONE,
    align_table,
    clean_line,
    format_number,
    shorten,
    wrap,
)
from report.intervals import Interval, student_quantile

# words, marks, and each character of scripts that put no space between words
CLOSE_SET = "\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff"
WORD = re.compile(rf"[{CLOSE_SET}]|[^\W{CLOSE_SET}]+|[^\w\s]")
MOST_LINES = 3  # of one reply in a table
Pairs = Counter[tuple[str, str]]
# by name: an estimate with its interval, and n
Figures = Mapping[str, tuple[Interval, int]]


def word_pairs(text: str) -> Pairs:
    """How often each pair of neighbouring words stands in a reply, whatever its capitals."""
    return Counter(pairwise(WORD.findall(text.lower())))


def distinct_pairs(replies: Sequence[str]) -> Interval:
    """distinct-2 of a set of replies with its 95 % interval over replies; NaN where no reply has
    two words.

    The interval is a jackknife's: replies are left out one by one. To draw them again and again, as
    a bootstrap does, would count what is drawn twice as repetition. The figure falls as a set
    grows, so only sets of as many replies can be compared.
    """
    return _jackknife([[word_pairs(reply) for reply in replies]], [1])


def distinct_difference(first: Sequence[str], second: Sequence[str]) -> Interval:
    """distinct-2 of `first` less that of `second`, replies to the same prompts: a prompt is left
    out on both sides at once. Raises ValueError where there are not as many of each."""
    if len(first) != len(second):
        raise ValueError(f"got {len(first)} and {len(second)} replies; expected one each a prompt")
    sides = [[word_pairs(reply) for reply in side] for side in (first, second)]
    return _jackknife(sides, [1, -1])


def _jackknife(sides: Sequence[Sequence[Pairs]], signs: Sequence[int]) -> Interval:
    """The signed sum of the sides' distinct-2, and its interval (Efron and Stein 1981)."""
    n = len(sides[0])
    shares = [_shares_without_each(side) for side in sides]
    value = sum(sign * share for sign, (share, _) in zip(signs, shares, strict=True))
    if n < 2 or not math.isfinite(value):
        return value, -math.inf, math.inf
    without = [
        sum(sign * rest[i] for sign, (_, rest) in zip(signs, shares, strict=True)) for i in range(n)
    ]
    if not all(map(math.isfinite, without)):
        return value, -math.inf, math.inf
    mean = math.fsum(without) / n
    error = math.sqrt((n - 1) / n * math.fsum((one - mean) ** 2 for one in without))
    half, least = student_quantile(n - 1) * error, min(0, *signs)  # of a share 0, else -1
    return value, max(float(least), value - half), min(1.0, value + half)


def _shares_without_each(side: Sequence[Pairs]) -> tuple[float, list[float]]:
    """distinct-2 of the replies, and of all but each one."""
    together: Pairs = Counter()
    for pairs in side:
        together.update(pairs)
    total, different = together.total(), len(together)
    rest = []
    for pairs in side:
        alone = sum(together[pair] == count for pair, count in pairs.items())
        rest.append(_share(different - alone, total - pairs.total()))
    return _share(different, total), rest


def _share(part: int, whole: int) -> float:
    return part / whole if whole else math.nan


# Tables


def figures_rows(sets: Mapping[str, Figures]) -> list[tuple[str, ...]]:
    """A head, then a row for each set of replies by its name ("before", "after", "difference",
    "true"), and a column a figure with its interval; n stands once a set."""
    names = list(dict.fromkeys(name for figures in sets.values() for name in figures))
    rows = [("", "n", *names)]
    for name, figures in sets.items():
        n = max((n for _, n in figures.values()), default=0)
        cells = [_cell(figures[one][0]) if one in figures else NONE for one in names]
        rows.append((name, str(n), *cells))
    return rows


def figures_table(sets: Mapping[str, Figures]) -> list[str]:
    """The same as aligned lines."""
    return align_table(figures_rows(sets), right=(1,))


def _cell(interval: Interval) -> str:
    """An estimate and its interval, where there is one."""
    if math.isnan(interval[0]):
        return NONE
    value, low, high = (
        format_number(round(one, 3)) if math.isfinite(one) else "" for one in interval
    )
    return f"{value} [{low}, {high}]" if low and high else value


def replies_table(prompts: Sequence[str], sides: Mapping[str, Sequence[str]]) -> str:
    """Each prompt, and below it by name what was said to it: before, after, in truth. At most 100
    columns wide, three lines a reply.

    Each side has one text a prompt, "" where there is none; ValueError otherwise.
    """
    for name, texts in sides.items():
        if len(texts) != len(prompts):
            raise ValueError(f"got {len(prompts)} prompts and {len(texts)} replies {name!r}")
    width = max(map(len, sides), default=0) + 4
    blocks = []
    for number, prompt in enumerate(prompts):
        lines = [shorten(f"> {clean_line(prompt)}", COLUMNS)]
        for name, texts in sides.items():
            lines += _hang(f"  {name}".ljust(width), clean_line(texts[number]) or NONE, width)
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def _hang(begin: str, text: str, width: int) -> list[str]:
    """A text behind `begin`, its further lines indented as far; what is too long ends in "…"."""
    lines = wrap(text, COLUMNS - width)
    if len(lines) > MOST_LINES:
        last = shorten(" ".join(lines[MOST_LINES - 1 :]), COLUMNS - width)
        lines = [*lines[: MOST_LINES - 1], last]
    return [(begin if i == 0 else " " * width) + line for i, line in enumerate(lines)]
