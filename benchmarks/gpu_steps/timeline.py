"""Where the time of a step went, from when each kernel began and ended."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

SHORT = 2.0  # microseconds: gaps below are those between two kernels that were waiting in line


@dataclass(frozen=True)
class Kernel:
    """Microseconds on the device's clock."""

    name: str
    start: float
    end: float


def sum_by_name(kernels: Sequence[Kernel], most: int) -> list[dict[str, Any]]:
    """The kernels that take longest, all calls of a name together; `share` is of all kernels."""
    groups: dict[str, list[float]] = {}
    for kernel in kernels:
        groups.setdefault(kernel.name, []).append(kernel.end - kernel.start)
    total = sum(map(sum, groups.values()))
    longest = sorted(groups.items(), key=lambda item: -sum(item[1]))[:most]
    return [
        {"name": name, "calls": len(times), "us": sum(times), "share": sum(times) / total}
        for name, times in longest
    ]


def find_gaps(kernels: Sequence[Kernel]) -> list[dict[str, Any]]:
    """The times at which nothing ran between the first and the last kernel, and what ran before
    and after each; longest first. Kernels may overlap."""
    gaps: list[dict[str, Any]] = []
    busy: Kernel | None = None  # of those so far the one that ended last
    for kernel in sorted(kernels, key=lambda k: k.start):
        if busy is not None and kernel.start > busy.end:
            gap = {"us": kernel.start - busy.end, "after": busy.name, "before": kernel.name}
            gaps.append(gap)
        if busy is None or kernel.end > busy.end:
            busy = kernel
    return sorted(gaps, key=lambda gap: -gap["us"])


def summarise(kernels: Sequence[Kernel], steps: int, most: int = 25) -> dict[str, Any]:
    """Figures of one step, from the kernels of several: microseconds of kernels, of the whole, and
    of the gaps longer than SHORT; launches; the longest kernels and gaps."""
    if not kernels:
        return {"launches": 0}
    gaps = find_gaps(kernels)
    span = max(k.end for k in kernels) - min(k.start for k in kernels)
    idle = sum(gap["us"] for gap in gaps)
    waits = [gap["us"] for gap in gaps if gap["us"] > SHORT]
    return {
        "launches": len(kernels) / steps,
        "kernel_us": sum(k.end - k.start for k in kernels) / steps,
        "span_us": span / steps,
        "idle_share": idle / span if span else 0.0,
        "waits": len(waits) / steps,
        "wait_us": sum(waits) / steps,
        "kernels": sum_by_name(kernels, most),
        "gaps": gaps[:10],
    }
