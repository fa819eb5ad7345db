"""What the figures on an H100 must reach, and whether they do."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from windows import round_ratio, speed

ADVERTISED = {"H100": 989e12, "H200": 989e12}  # dense bf16 FLOP/s, by a word in the GPU's name
OURS = ("openloop", "uncompiled")


@dataclass(frozen=True)
class Target:
    """Times the stock Trainer, times the tuned one, share of the advertised FLOP/s."""

    stock: float
    tuned: float
    share: float


TARGETS = {
    "minilm_lora": Target(6, 4, 0.15),
    "bert_full": Target(3, 2, 0.45),
    "bert_lora": Target(4, 2.5, 0.45),
    "bert_eval": Target(4, 2, 0.50),
}


def advertised_peak(gpu: str | None) -> float | None:
    """Dense bf16 FLOP/s of the GPU's data sheet; None for one that is not known."""
    return next((peak for word, peak in ADVERTISED.items() if word in (gpu or "")), None)


def verdict(value: float | None, target: float) -> str:
    """ "met", "missed", or "–" where there is nothing to judge."""
    if value is None:
        return "–"
    return "met" if value >= target else "missed"


def ratio(mine: Sequence[Mapping], theirs: Sequence[Mapping] | None) -> float | None:
    """Median of the rounds' ratios of speed; None where one of the two has no windows."""
    if not mine or not theirs:
        return None
    rounds = min(len(mine), len(theirs))
    return round_ratio(mine[:rounds], theirs[:rounds])["median"]


def task_rows(
    contestants: Mapping[str, Mapping[str, Any]], measured: float | None, advertised: float | None
) -> list[dict[str, Any]]:
    """One row a contestant of a task: real tokens a second, ratios, shares of the peaks (FLOP/s in
    the same dtype), peak bytes, seconds to the end of the first step."""
    windows = {name: row["windows"] for name, row in contestants.items()}
    rows = []
    for name, row in contestants.items():
        mine = row["windows"]
        flops = statistics.median(w["flops"] / w["seconds"] for w in mine) if mine else None
        rows.append(
            {
                "contestant": name,
                "failed": row.get("failed"),
                "tokens_per_s": statistics.median(map(speed, mine)) if mine else None,
                "to_stock": ratio(mine, windows.get("stock")),
                "to_tuned": ratio(mine, windows.get("tuned")),
                "of_measured": flops / measured if flops and measured else None,
                "of_advertised": flops / advertised if flops and advertised else None,
                "peak": max((w["peak"] for w in mine), default=None),
                "first_step": row["built"] + row["first_step"] if "first_step" in row else None,
            }
        )
    return rows


def judge(
    task: str, rows: Sequence[Mapping[str, Any]], gpu: str | None
) -> dict[str, dict[str, Any]]:
    """The best figure of ours beside each target of a task, with its verdict; without a GPU, on
    models of another size, none is given."""
    target, judged = TARGETS[task], {}
    columns = (
        ("to_stock", target.stock),
        ("to_tuned", target.tuned),
        ("of_advertised", target.share),
    )
    for column, least in columns:
        values = [row[column] for row in rows if row["contestant"] in OURS]
        best = max((value for value in values if value is not None and gpu), default=None)
        judged[column] = {"best": best, "target": least, "verdict": verdict(best, least)}
    return judged
