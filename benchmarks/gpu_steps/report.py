"""The results as Markdown: a table of all steps first, then the figures of each."""

from collections.abc import Callable, Mapping
from typing import Any

from gpu_steps.contestant import CONTESTANTS
from gpu_steps.shapes import TASKS
from gpu_steps.targets import advertised_peak, judge, task_rows

SHOWN = 8  # kernels in the table; gpu_check.json has more
GIB = 2**30


def show(value: float | None, form: str = ",.2f", unit: str = "") -> str:
    """A figure, or a dash where there is none."""
    return "–" if value is None else f"{value:{form}}{unit}"


def environment(figures: Mapping[str, Any]) -> str:
    gpu, versions = figures.get("gpu"), figures.get("versions", {})
    name = f"{gpu['name']}, CUDA {gpu['cuda']}" if gpu else "no CUDA device"
    peak = figures.get("peak", {})
    products = ", ".join(f"{dtype} {value / 1e12:,.1f} TFLOP/s" for dtype, value in peak.items())
    return f"{name}; torch {versions.get('torch')}; best products: {products or 'not measured'}"


def cuda_tests(figures: Mapping[str, Any]) -> str:
    lacking = sorted(set(figures.get("lacking", {}).values()))
    counts = (
        f"{figures['passed']} passed, {figures['skipped']} skipped, {len(figures['failed'])} failed"
    )
    return counts + (f"; files left out for want of {', '.join(lacking)}" if lacking else "")


def resume(figures: Mapping[str, Any]) -> str:
    runs = {kind: figures[kind] for kind in ("full", "lora") if kind in figures}
    return "; ".join(
        f"{kind}: killed after step {run['killed_after']}, "
        + ("the same bits" if not run["unlike"] else f"{len(run['unlike'])} differ")
        for kind, run in runs.items()
    )


def syncs(figures: Mapping[str, Any]) -> str:
    return "; ".join(f"{name}: {task['waits']:g} a window" for name, task in figures.items())


def curves(figures: Mapping[str, Any]) -> str:
    parts = [
        f"{dtype}: {figures[dtype]['mean']:.1e} apart on average, {figures[dtype]['largest']:.1e} "
        "at most"
        for dtype in ("fp32", "bf16")
        if dtype in figures
    ]
    if drop := figures.get("dropout"):
        parts.append(f"with dropout the last are {drop['last']:.3f}, CPU {drop['last_there']:.3f}")
    return "; ".join(parts)


def throughput(figures: Mapping[str, Any]) -> str:
    lacking = [f"without {name} ({reason})" for name, reason in figures["not_run"].items()]
    return "; ".join([f"{len(figures['tasks'])} tasks", *lacking])


def profiles(figures: Mapping[str, Any]) -> str:
    return "; ".join(
        f"{name}: {task['launches']:.0f} launches, idle {task.get('idle_share', 0):.0%}"
        for name, task in figures.items()
    )


SAYS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "environment": environment,
    "cuda_tests": cuda_tests,
    "resume": resume,
    "syncs": syncs,
    "curves": curves,
    "throughput": throughput,
    "profiles": profiles,
}


def say(name: str, step: Mapping[str, Any]) -> str:
    """One line on what a step found; where it was ended early, on what it has."""
    try:
        text = SAYS[name](step["figures"])
    except KeyError:  # ended before that figure was there
        text = ""
    return "; ".join(filter(None, [step["reason"], text]))


def steps_table(steps: Mapping[str, Mapping[str, Any]]) -> str:
    """One row a step."""
    lines = ["| step | result | seconds | |", "| :-- | :-- | --: | :-- |"]
    for name, step in steps.items():
        text = say(name, step).replace("|", "/").replace("\n", " ")
        lines.append(f"| {name} | {step['status']} | {step['seconds']:.0f} | {text} |")
    return "\n".join(lines)


def throughput_table(steps: Mapping[str, Mapping[str, Any]]) -> str:
    """One row a task and contestant, and one with the targets; "" where nothing was measured."""
    tasks = steps.get("throughput", {}).get("figures", {}).get("tasks", {})
    if not tasks:
        return ""
    machine = steps.get("environment", {}).get("figures", {})
    measured = machine.get("peak", {}).get("bf16")
    gpu = (machine.get("gpu") or {}).get("name")
    advertised = advertised_peak(gpu)
    lines = [
        "| task | contestant | real tokens/s | × stock | × tuned | of the best product "
        "| of the data sheet | peak GiB | to the first step |",
        "| :-- | :-- | --: | --: | --: | --: | --: | --: | --: |",
    ]
    for task, contestants in tasks.items():
        rows = task_rows(contestants, measured, advertised)
        for row in rows:
            memory = None if row["peak"] is None else row["peak"] / GIB
            lines.append(
                f"| {task} | {row['contestant']} | {show(row['tokens_per_s'], ',.0f')} "
                f"| {show(row['to_stock'])} | {show(row['to_tuned'])} "
                f"| {show(row['of_measured'], '.1%')} | {show(row['of_advertised'], '.1%')} "
                f"| {show(memory, '.2f')} | {show(row['first_step'], '.1f', ' s')} |"
            )
        judged = judge(task, rows, gpu)
        stock, tuned, share = (
            f"{part['target']:{'.0%' if column == 'of_advertised' else 'g'}}: {part['verdict']}"
            for column, part in judged.items()
        )
        lines.append(f"| {task} | *target* | | {stock} | {tuned} | | {share} | | |")
    says = [f"- **{name}**: {TASKS[name].says}" for name in tasks]
    says += [f"- **{name}**: {what}" for name, what in CONTESTANTS.items()]
    return "\n".join([*lines, "", *says])


def profile_table(steps: Mapping[str, Mapping[str, Any]]) -> str:
    """The kernels that take longest, for each task; "" where nothing was seen."""
    parts = []
    for task, step in steps.get("profiles", {}).get("figures", {}).items():
        if not step.get("kernels"):
            continue
        lines = [
            f"{task}: a step takes {step['step_us'] / 1e3:.2f} ms, its kernels "
            f"{step['kernel_us'] / 1e3:.2f} ms in {step['launches']:.0f} launches; nothing runs "
            f"{step['idle_share']:.0%} of the time ({step['waits']:.0f} waits, "
            f"{step['wait_us'] / 1e3:.2f} ms); the host is busy {step['host_us'] / 1e3:.2f} ms "
            "(under the profiler).",
            "",
            "| kernel | calls | ms | share |",
            "| :-- | --: | --: | --: |",
        ]
        for kernel in step["kernels"][:SHOWN]:
            name = kernel["name"].replace("|", "/")[:80]
            lines.append(
                f"| `{name}` | {kernel['calls']} | {kernel['us'] / 1e3:.2f} "
                f"| {kernel['share']:.1%} |"
            )
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def report(content: Mapping[str, Any]) -> str:
    """The whole as Markdown."""
    steps = content["steps"]
    head = (
        f"# GPU check\n\n    {content['command']}\n\n{content['date']}, commit {content['commit']}"
    )
    head += f", {content['seconds']:.0f} s in all"
    parts = [head, steps_table(steps), throughput_table(steps), profile_table(steps)]
    return "\n\n".join(filter(None, parts)) + "\n"
