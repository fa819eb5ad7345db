"""From windows to figures, and from figures to Markdown."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from child import ROOT  # noqa: F401  makes the project importable
from tasks import CONTESTANTS, TASKS, Comparison, why_not
from windows import round_ratio, speed

from report.intervals import mean_interval, welch_interval

Windows = dict[str, list[dict[str, Any]]]
MIB = 2**20


def best_stock(windows: Windows) -> str:
    """The contestant with the highest median speed, openloop's own left out."""
    stock = [name for name in windows if not name.startswith("openloop")]
    return max(stock, key=lambda name: statistics.median(map(speed, windows[name])))


def summarise(windows: Windows, peak: Mapping[str, float]) -> dict[str, dict[str, Any]]:
    """For each contestant: speed, ratios to `stock` and to the best stock contestant, memory,
    utilisation of the machine's `peak` FLOP/s in the contestant's dtype."""
    best = best_stock(windows)
    rows = {}
    for name, mine in windows.items():
        dtype = mine[-1]["dtype"]
        flops = statistics.median(w["flops"] / w["seconds"] for w in mine)
        rows[name] = {
            "dtype": dtype,
            "tokens_per_s": statistics.median(map(speed, mine)),
            "learned_per_s": statistics.median(w["learned"] / w["seconds"] for w in mine),
            "to_stock": round_ratio(mine, windows["stock"]) if "stock" in windows else None,
            "to_best": round_ratio(mine, windows[best]),
            "best": best,
            "peak": max(w["peak"] for w in mine),
            "less_imports": max(w["peak"] - w["imports"] for w in mine),
            "utilisation": flops / peak[dtype] if dtype in peak else None,
        }
    return rows


def show_ratio(ratio: Mapping[str, float] | None) -> str:
    """Median with the lowest and the highest round."""
    if ratio is None:
        return "–"
    return f"{ratio['median']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})"


def show_memory(name: str, rows: Mapping[str, dict[str, Any]], key: str) -> str:
    """MiB, and the share of what stock takes as it comes."""
    text = f"{rows[name][key] / MIB:,.0f}"
    if "stock" in rows and name != "stock":
        text += f" ({rows[name][key] / rows['stock'][key]:.2f}×)"
    return text


def speed_table(results: Mapping[str, dict[str, dict[str, Any]]], fast_dtype: str) -> str:
    """One row a task and contestant. `results`: task -> what summarise() gave."""
    lines = [
        "| task | contestant | dtype | real tokens/s | learned/s | × stock as it comes "
        "| × best stock | peak MiB | less imports | utilisation |",
        "| :-- | :-- | :-- | --: | --: | --: | --: | --: | --: | --: |",
    ]
    for task, rows in results.items():
        for name in TASKS[task].contestants:
            if name in rows:
                row = rows[name]
                star = " (the best)" if name == row["best"] else ""
                used, learned = row["utilisation"], row["learned_per_s"]
                lines.append(
                    f"| {task} | {name}{star} | {row['dtype']} | {row['tokens_per_s']:,.0f} "
                    f"| {f'{learned:,.0f}' if learned else '–'} "
                    f"| {show_ratio(row['to_stock'])} | {show_ratio(row['to_best'])} "
                    f"| {show_memory(name, rows, 'peak')} "
                    f"| {show_memory(name, rows, 'less_imports')} "
                    f"| {'–' if used is None else f'{used:.1%}'} |"
                )
            elif reason := why_not(name, fast_dtype):
                lines.append(f"| {task} | {name} | – | {reason} | – | – | – | – | – | – |")
    return "\n".join(lines)


def legend(names: Sequence[str]) -> str:
    """What the names in the table mean."""
    parts = [f"- **{name}**: {TASKS[name].says}" for name in names]
    took_part = {name for task in names for name in TASKS[task].contestants}
    parts += [f"- **{name}**: {says}" for name, says in CONTESTANTS.items() if name in took_part]
    return "\n".join(parts)


def seconds_to(curve: Sequence[Sequence[float]], compared: Comparison) -> float | None:
    """Seconds of training until the figure is first as good as `compared.reached`; None if it never
    is."""
    sign = -1 if compared.figure == "perplexity" else 1
    return next(
        (seconds for _, seconds, value in curve if sign * value >= sign * compared.reached), None
    )


def show_interval(value: tuple[float, float, float], digits: int) -> str:
    """An estimate with its interval."""
    middle, low, high = (f"{part:.{digits}f}" for part in value)
    return f"{middle} ({low} to {high})"


def learning_table(curves: Mapping[str, list[list[list[float]]]], compared: Comparison) -> str:
    """One row a contestant from its seeds' curves, and the difference of the first two."""
    figure, digits = compared.figure, 2 if compared.figure == "perplexity" else 4
    lines = [
        f"| contestant | seconds of training to {compared.reached:.2f}, each seed "
        f"| final {figure} (95 % over seeds) | seconds in all, median |",
        "| :-- | --: | --: | --: |",
    ]
    finals: dict[str, list[float]] = {}
    for name, seeds in curves.items():
        finals[name] = [curve[-1][2] for curve in seeds]
        reached = [seconds_to(curve, compared) for curve in seeds]
        shown = ", ".join("not reached" if s is None else f"{s:,.0f}" for s in reached)
        whole = statistics.median(curve[-1][1] for curve in seeds)
        final = show_interval(mean_interval(finals[name]), digits)
        lines.append(f"| {name} | {shown} | {final} | {whole:,.0f} |")
    first, second = list(finals)[:2]
    apart = show_interval(welch_interval(finals[first], finals[second]), digits)
    lines += ["", f"Final {figure}, {first} minus {second}: {apart} (Welch, 95 %)."]
    return "\n".join(lines)


def machine_lines(
    machine: Mapping[str, Any], peak: Mapping[str, float], commands: Sequence[str]
) -> str:
    """Commands, machine and versions."""
    fingerprint = machine["fingerprint"]
    versions = ", ".join(f"{name} {value}" for name, value in fingerprint["versions"].items())
    peaks = ", ".join(f"{value / 1e9:,.0f} GFLOP/s in {name}" for name, value in peak.items())
    return "\n".join(
        [
            *(f"    {command}" for command in commands),
            "",
            f"- machine: {fingerprint['processor']} ({fingerprint['architecture']}, "
            f"{fingerprint['capability']}), {fingerprint['cores']} cores, "
            f"{fingerprint['threads']} threads",
            f"- bf16 units: {'yes' if fingerprint['fast_dtype'] == 'bf16' else 'no'}; "
            f"{machine['reason']}",
            f"- best matrix products: {peaks}",
            f"- versions: {versions}; code {fingerprint['code']}",
        ]
    )
