"""What scale.py measured, as Markdown."""

import shlex
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

Rows = Sequence[Mapping[str, Any]]


def median(rows: Rows, key: str) -> float:
    return statistics.median(row[key] for row in rows)


def ratios(rows: Rows, alone: Rows) -> list[float]:
    """How much faster than the one process of its own round each was."""
    pairs = zip(rows, alone, strict=True)
    return [one["step_s"] / many["step_s"] for many, one in pairs]


def show_bytes(number: float) -> str:
    """Mebibytes, or kibibytes where they are few."""
    return f"{number / 2**20:,.1f} MiB" if number >= 2**20 else f"{number / 2**10:,.1f} KiB"


def line(size: int, rows: Rows, smallest: int, alone: Rows) -> str:
    """One number of processes."""
    step = median(rows, "step_s")
    gains = ratios(rows, alone)
    gain = statistics.median(gains)
    spread = f" ({min(gains):.2f} to {max(gains):.2f})" if len(gains) > 1 and rows != alone else ""
    cells = [str(size), f"{1 / step:.2f}", f"{median(rows, 'tokens_per_s'):,.0f}"]
    cells += [f"{gain:.2f}{spread}", f"{gain * smallest / size:.0%}"]
    if size == 1:
        return f"| {' | '.join([*cells, '–', '–', '–', '–'])} |"
    waiting, speed = median(rows, "waiting_s"), link_speed(rows)
    cells.append(f"{waiting:.3f} ({waiting / step:.0%})")
    cells += [show_bytes(median(rows, key)) for key in ("arithmetic_bytes", "summed_bytes")]
    return f"| {' | '.join([*cells, f'{speed / 1e9:.2f} GB/s'])} |"


def link_speed(rows: Rows) -> float:
    """Bytes a second that a rank sends in a plain sum of the gradients' size."""
    return median(rows, "arithmetic_bytes") / median(rows, "link_s")


def page(result: Mapping[str, Any]) -> str:
    """The table with what it was measured on."""
    rounds = {int(size): rows for size, rows in result["rounds"].items()}
    smallest = min(rounds)
    alone, last = rounds[smallest], rounds[max(rounds)][0]
    loads = [row["load"] for rows in rounds.values() for row in rows]
    machine = result["machine"]
    lines = [
        f"    {shlex.join(result['command'])}",
        "",
        f"{machine['processor']}, {machine['cores']} cores, {last['device']}, {last['backend']}; "
        f"{result['steps']} steps a turn, {len(alone)} rounds, medians (lowest to highest). "
        f"The load of the machine was {min(loads):.1f} to {max(loads):.1f}: above the processes "
        f"measured it is that of others, who share it. Recipe: `{shlex.join(result['recipe'])}`.",
        "",
        "| processes | steps/s | tokens/s | times "
        f"{'one process' if smallest == 1 else f'{smallest} processes'} | efficiency "
        "| in sums, s a step | sent by arithmetic, a step and rank | given to sums | link |",
        "| --: | --: | --: | --: | --: | --: | --: | --: | --: |",
        *(line(size, rows, smallest, alone) for size, rows in sorted(rounds.items())),
    ]
    return "\n".join(lines)
