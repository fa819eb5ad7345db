"""Where one training step of openloop spends its time, beside the arithmetic floor.

    python benchmarks/profile_step.py
    python benchmarks/profile_step.py --steps 8 speed.native=off
    python benchmarks/profile_step.py --task chat512 data.packing=false

Times a few steps as they are, then as many under torch's profiler. The profiler slows small
operations, so what it saw is scaled to the time of the steps without it.
"""

import argparse
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from typing import Any

from contestants import Openloop, batch_numbers, make_shape
from machine import matmul_peak
from random_gpt2 import build_gpt2, random_gpt2
from tasks import TASKS, make_config

ATTENTION, DROPOUT = "attention, with its products", "dropout"
HEAD, GATES = "head and loss, with its products", "GELU and gates"
PRODUCTS, OTHER, PYTHON = "matrix products", "other operations", "Python and waiting"
MARKS = {  # methods of the kernels -> group of all that happens inside
    "attend": ATTENTION,
    "attend_backward": ATTENTION,
    "drop": DROPOUT,
    "gelu_backward": GATES,
    "gated": GATES,
    "gated_backward": GATES,
    "rotate": ATTENTION,
    "add_norm": "norms",
    "add_norm_backward": "norms",
    "pre_norm": "norms",
    "pre_norm_backward": "norms",
    "token_losses": HEAD,  # a function of job/chatting/loss.py
}
WORDS = {  # first match in an operation's name decides
    PRODUCTS: ("mm", "linear", "matmul"),
    ATTENTION: ("softmax", "attention"),
    DROPOUT: ("dropout", "bernoulli"),
    GATES: ("gelu", "silu"),
    "norms": ("layer_norm", "rms_norm", "rsqrt", "pow"),
    "optimizer": ("adam", "foreach", "linalg_vector_norm"),
    "copies, casts, sums": (
        "copy", "_to", "add", "sub", "mul", "div", "cat", "index", "clone", "fill", "zero_", "sum",
        "zeros", "empty", "stack", "gather", "scatter",
    ),
}  # fmt: skip


def group_of(name: str, above: list[str]) -> str:
    """The group of an operation, from its name and those it runs inside, innermost first."""
    marks = [outer for outer in [name, *above] if outer in MARKS.values()]  # innermost first
    if marks:
        return marks[0]
    if not name.startswith(("aten::", "mkldnn::")):  # of an autograd function: overhead
        return "optimizer" if "Optimizer" in name else PYTHON
    return next((g for g, words in WORDS.items() if any(w in name for w in words)), OTHER)


def marked(function: Callable, group: str) -> Callable:
    """The function as an event of its own: calls into a compiled library are none by themselves."""
    import torch

    @wraps(function)
    def wrapper(*args: Any) -> Any:
        with torch.profiler.record_function(group):
            return function(*args)

    return wrapper


@contextmanager
def marked_kernels() -> Iterator[None]:
    """The kernels' methods, and the loss over tokens, become events while this lasts."""
    from job.chatting import loss
    from models.fast.cpu.kernels import PlainKernels
    from models.fast.cpu.native import NativeKernels

    before = {}
    for owner in (PlainKernels, NativeKernels, loss):
        for method, group in MARKS.items():
            if not hasattr(owner, method):  # native only
                continue
            before[owner, method] = getattr(owner, method)
            setattr(owner, method, marked(before[owner, method], group))
    try:
        yield
    finally:
        for (owner, method), function in before.items():
            setattr(owner, method, function)


def take_step(contestant: Openloop, micro_batches: list) -> None:
    """One optimizer step of the engine."""
    from engine.loop import train_step

    job = contestant.job
    train_step(
        job.built.model, micro_batches, job.compute_loss, contestant.count_items, job.optimizer,
        job.scaler, job.schedule, job.precision, job.plan, contestant.progress,
    ).result(contestant.progress)  # fmt: skip


def group_times(events: Any) -> dict[str, float]:
    """Seconds by group, each event's own time only."""
    groups: dict[str, float] = {}
    for event in events:
        above, parent = [], event.cpu_parent
        while parent is not None:
            above.append(parent.name)
            parent = parent.cpu_parent
        name = group_of(event.name, above)
        groups[name] = groups.get(name, 0.0) + event.self_cpu_time_total / 1e6
    return groups


def table(groups: Mapping[str, float], step: float, floor: float) -> str:
    """Milliseconds and shares of one step, the largest first, and the floor."""
    lines = ["| group | ms | share |", "| :-- | --: | --: |"]
    for name, seconds in sorted(groups.items(), key=lambda item: -item[1]):
        lines.append(f"| {name} | {seconds * 1e3:,.1f} | {seconds / step:.1%} |")
    lines.append(f"| one step | {step * 1e3:,.1f} | 100.0% |")
    lines.append(f"| arithmetic floor | {floor * 1e3:,.1f} | {floor / step:.1%} |")
    return "\n".join(lines)


def measure(task: str, overrides: list[str], steps: int) -> str:
    """The table, and a line on what was measured."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    contestant = Openloop(make_config(task, "openloop", "fp32", overrides=overrides))
    job = contestant.job
    stream = contestant.epoch_batches(job, 0, 0)
    batches = [next(stream) for _ in range(steps)]
    job.built.model.train()
    peak = matmul_peak(contestant.dtype)
    with marked_kernels():
        for batch in batches[:2]:
            take_step(contestant, [batch])
        start = time.perf_counter()
        for batch in batches:
            take_step(contestant, [batch])
        step = (time.perf_counter() - start) / steps
        with profile(activities=[ProfilerActivity.CPU]) as seen:
            start = time.perf_counter()
            for batch in batches:
                take_step(contestant, [batch])
            slowed = (time.perf_counter() - start) / steps
    groups = {name: seconds / steps for name, seconds in group_times(seen.events()).items()}
    groups[PYTHON] = groups.get(PYTHON, 0.0) + max(0.0, slowed - sum(groups.values()))
    groups = {name: seconds * step / slowed for name, seconds in groups.items()}
    numbers = [n for batch in batches for n in batch_numbers(batch)]
    shape = make_shape(job.config, contestant.backbone, "train")
    flops = shape.step_flops(numbers) / steps
    peak = max(peak, matmul_peak(contestant.dtype))
    summary = (
        f"{task}: {steps} steps in {contestant.dtype} on {torch.get_num_threads()} threads, "
        f"{shape.tokens(numbers) / steps:,.0f} real tokens and {flops / 1e9:,.0f} GFLOP a step; "
        f"best matrix product {peak / 1e9:,.0f} GFLOP/s. Fast paths: "
        f"{', '.join(f'{k} {v}' for k, v in job.speed.resolved.items()) or 'none'}."
    )
    return summary + "\n\n" + table(groups, step, flops / peak)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    trained = [name for name, task in TASKS.items() if task.work == "train"]
    parser.add_argument("--task", choices=trained, default="lora256")
    parser.add_argument("--steps", type=int, default=5, help="steps to time, and to profile")
    parser.add_argument("overrides", nargs="*", help="settings, as in speed.native=off")
    options = parser.parse_args()
    if TASKS[options.task].source == random_gpt2():
        build_gpt2()
    print(measure(options.task, options.overrides, options.steps))


if __name__ == "__main__":
    main()
