"""A search as text: its plan, a line a trial, and what came of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from report.compare import LESS_IS_BETTER
from report.format import COLUMNS, NONE, align_table, format_seconds, shorten

SHOWN = 10  # settings of a table


@dataclass(frozen=True)
class Tried:
    """A trial as it is shown. `figure` as text; `failed` says why there is none."""

    number: int
    rung: int
    rows: int
    validation: int
    seconds: float
    figure: str
    settings: Mapping[str, str]
    failed: str = ""


def show_settings(settings: Mapping[str, str]) -> str:
    """What a trial changes, in a recipe's words; a key without its section where that is plain."""
    return " ".join(f"{key}={value}" for key, value in settings.items()) or "the recipe itself"


def tried_cells(tried: Tried) -> list[str]:
    """The cells of a trial's line."""
    return [
        str(tried.number), f"{tried.rows:,}", format_seconds(tried.seconds),
        NONE if tried.failed else tried.figure,
        tried.failed or show_settings(tried.settings),
    ]  # fmt: skip


def tried_line(tried: Tried) -> str:
    """A trial's line, in columns of fixed widths: the table grows as trials end."""
    number, rows, seconds, figure, settings = tried_cells(tried)
    line = f"{number:>5}  {rows:>7}  {seconds:>12}  {figure:>8}  {settings}"
    return shorten(line, 2 * COLUMNS)


def head_line(metric: str) -> str:
    """What stands above these lines."""
    return f"{'trial':>5}  {'rows':>7}  {'time':>12}  {metric:>8}  settings"


def plan_lines(
    rungs: Sequence[tuple[int, int, int]], trials: float, final: float, left: float, two: float
) -> list[str]:
    """What a search is going to do: of each rung its settings, training and validation rows, the
    seconds of all trials, and those of what comes after them; without a rung those of the one run,
    and of `two`, which are the least that can be compared."""
    if not rungs:
        return [
            f"no trial: about {format_seconds(max(0.0, left))} are left. A run takes about "
            f"{format_seconds(final)}, and to hold another one against it about "
            f"{format_seconds(two)}"
        ]
    parts = [
        f"{count} settings on {rows:,} rows (judged on {validation:,})"
        for count, rows, validation in rungs
    ]
    full = rungs[-1][0]
    return [
        f"plan: {', then '.join(parts)}",
        f"about {format_seconds(trials)} of trials, the last {full} of them runs in full, then "
        f"{format_seconds(final)} for the best one's test and pages; "
        f"{format_seconds(left)} are left",
    ]


def ranking(
    tried: Sequence[Tried], behind: Sequence[tuple[float, float, float]], metric: str, judged: str
) -> list[str]:
    """The trials of the last rung, the best first, each with its difference to the first in the
    figure `judged`."""
    rows = [
        [str(n), str(one.number), one.figure, behind_words(apart) if n > 1 else "",
         show_settings(one.settings)]
        for n, (one, apart) in enumerate(zip(tried, behind, strict=True), start=1)
    ]  # fmt: skip
    head = ["", "trial", metric, f"{judged} to the first (95 %)", "settings"]
    return align_table([head, *rows[:SHOWN]], right=(0, 1, 2))


def behind_words(interval: tuple[float, float, float]) -> str:
    """A difference to the first as text."""
    estimate, low, high = interval
    return f"{estimate:+.4f} ({low:+.4f} to {high:+.4f})"


def is_worse(interval: tuple[float, float, float], judged: str) -> bool:
    """Whether a trial is worse than the first beyond noise, by its difference in the figure
    `judged`. One that is better in it is not: another figure put it behind. NaN says nothing."""
    _, low, high = interval
    return low > 0 if judged in LESS_IS_BETTER else high < 0


def within_noise(intervals: Sequence[tuple[float, float, float]], judged: str) -> int:
    """How many of the first trials could as well be in another order: those, from the first one on,
    that are not worse than it beyond noise."""
    worse = (n for n, interval in enumerate(intervals) if is_worse(interval, judged))
    return next(worse, len(intervals))


def recipe_line(interval: tuple[float, float, float], judged: str) -> str:
    """How sure it is that the winner is better than the recipe."""
    if is_worse(interval, judged):
        return "the winner is better than the recipe itself beyond noise (95 %, on the same rows)"
    return "the recipe itself is within noise of the winner (95 %, on the same rows)"


def stays_line(first: int, rows: int) -> str:
    """Why the recipe is trained in full although trial `first`, on so many rows, is before it."""
    return (
        f"trial {first} is ahead of the recipe itself on {rows:,} rows; all of them may tell "
        "otherwise, and there was no time to ask, so the recipe stays"
    )


def noise_line(intervals: Sequence[tuple[float, float, float]], judged: str) -> str:
    """How sure the order is."""
    count = within_noise(intervals, judged)
    if len(intervals) < 2:
        return "no other trial is left to compare the first with"
    if count < 2:
        return "the first is better than the second beyond noise (95 %, on the same rows)"
    if count == len(intervals) == 2:
        return "both are within noise of each other (95 %, on the same rows)"
    if count == len(intervals):
        return f"all {count} are within noise of the first (95 %, on the same rows)"
    return f"the first {count} are within noise (95 %, on the same rows)"
