"""Two runs side by side on one machine, and what the way their threads wait costs a run alone.

    python benchmarks/sharing.py
    python benchmarks/sharing.py --rounds 7 --seconds 20

LoRA at 256 tokens. "sleeping" is what a run does (engine/wait_policy.py); "spinning" is GNU
OpenMP as it comes, 300,000 turns between two parallel regions. Each round takes both in turn:
one run alone, then two at once. A fair share is half of the speed that the same run has alone.
"""

import argparse
import statistics
import sys
from collections.abc import Mapping
from typing import Any

from contestants import start_child
from tables import show_ratio
from tasks import TASKS, make_config
from windows import WARM_UP, Child, look_at_machine, speed

TASK = "lora256"
SPINNING, SLEEPING = "spinning", "sleeping"
ENVIRONMENTS = {SPINNING: {"GOMP_SPINCOUNT": "300000"}, SLEEPING: {}}
Round = dict[str, float]  # "alone", and "first" and "second" of two at once: tokens per second


def measure(pair: tuple[Child, Child], seconds: float) -> Round:
    """One window alone, then one with both at once."""
    alone = speed(pair[0].ask(seconds))
    for child in pair:
        child.send(seconds)
    first, second = (speed(child.read()) for child in pair)
    return {"alone": alone, "first": first, "second": second}


def share(row: Mapping[str, float]) -> float:
    """What the slower of two at once gets, of half of what a run has alone."""
    return min(row["first"], row["second"]) / (row["alone"] / 2)


def spread(values: list[float]) -> dict[str, float]:
    """Median, lowest and highest."""
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def table(rounds: Mapping[str, list[Round]]) -> str:
    """One row a way of waiting."""
    lines = [
        "| threads that wait | alone, tokens/s | alone, times spinning "
        "| two at once, tokens/s each | of a fair share, the slower one |",
        "| :-- | --: | --: | --: | --: |",
    ]
    for name, rows in rounds.items():
        pairs = zip(rows, rounds[SPINNING], strict=True)
        ratio = spread([mine["alone"] / other["alone"] for mine, other in pairs])
        alone = statistics.median(row["alone"] for row in rows)
        first, second = (statistics.median(row[key] for row in rows) for key in ("first", "second"))
        lines.append(
            f"| {name} | {alone:,.0f} | {'' if name == SPINNING else show_ratio(ratio)} "
            f"| {first:,.0f} and {second:,.0f} | {show_ratio(spread([share(r) for r in rows]))} |"
        )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=30.0, help="length of a window")
    options = parser.parse_args()
    machine: dict[str, Any] = look_at_machine()["fingerprint"]
    config = make_config(TASK, "openloop", machine["fast_dtype"])
    pairs: dict[str, tuple[Child, Child]] = {}
    rounds: dict[str, list[Round]] = {name: [] for name in ENVIRONMENTS}
    try:
        for name, environment in ENVIRONMENTS.items():
            children = [start_child("openloop", "train", config, environment) for _ in range(2)]
            pairs[name] = (children[0], children[1])
            for child in children:
                child.ask(WARM_UP)
        for number in range(options.rounds):
            # turned round each time, so that a machine that slows down favours neither
            for name in list(ENVIRONMENTS)[:: 1 if number % 2 == 0 else -1]:
                row = measure(pairs[name], options.seconds)
                rounds[name].append(row)
                print(f"round {number + 1}, {name}: {row['alone']:,.0f} alone, {row['first']:,.0f} "
                      f"and {row['second']:,.0f} at once", flush=True)  # fmt: skip
    finally:
        for pair in pairs.values():
            for child in pair:
                child.close()
    print(f"\n{TASKS[TASK].says}, {machine['processor']}, {machine['cores']} cores; median of "
          f"{options.rounds} rounds (lowest to highest)\n\n{table(rounds)}")  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
