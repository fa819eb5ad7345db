"""One steady step under torch's profiler: kernels by time, gaps between them, the host's share."""

import time
from typing import Any

import torch
from child import wait_for_device
from torch.profiler import ProfilerActivity, profile

from engine.loop import StepResult
from engine.plan import Progress
from gpu_steps.context import Context
from gpu_steps.shapes import TASKS, tiny
from gpu_steps.timeline import Kernel, summarise
from gpu_steps.work import Work, make_work, set_up_torch, train, write_model

NAMES = ("minilm_lora", "bert_lora")
WARM, TIMED, SEEN = 12, 10, 2  # steps before, those timed without the profiler, those seen by it
LARGEST = 15 * 2**20  # bytes of a trace that is kept


def list_kernels(seen: Any, device: str) -> list[Kernel]:
    """What ran on the device; on a CPU the operations that run in no other, in their stead."""
    events = list(seen.events())
    if device == "cuda":
        there = [e for e in events if e.device_type == torch.autograd.DeviceType.CUDA]
        wanted = [e for e in there if not getattr(e, "is_user_annotation", False)]
    else:
        wanted = [e for e in events if e.cpu_parent is None and e.name.startswith("aten::")]
    return [Kernel(e.name, e.time_range.start, e.time_range.end) for e in wanted]


def watch(work: Work, activities: list[ProfilerActivity]) -> tuple[dict[str, float], Any]:
    """Microseconds of a step without the profiler and with it, and what it saw of the steps."""
    seen, clock = profile(activities=activities), {"start": 0.0}
    took: dict[str, float] = {}

    def on_step(result: StepResult, progress: Progress) -> None:
        done = progress.step - WARM
        if done not in (0, TIMED, TIMED + SEEN):
            return
        wait_for_device()
        seconds = time.perf_counter() - clock["start"]
        if done == TIMED:
            took["step_us"] = seconds / TIMED * 1e6
            seen.start()
        elif done == TIMED + SEEN:
            took["seen_us"] = seconds / SEEN * 1e6
            seen.stop()
        clock["start"] = time.perf_counter()

    train(work, on_step)
    return took, seen


def host_wait(seen: Any) -> float:
    """Microseconds a step in which the host stood still until the device was done."""
    waits = [e for e in seen.key_averages() if e.key.startswith("cuda") and "Synchronize" in e.key]
    return sum(e.self_cpu_time_total for e in waits) / SEEN


def look_at(name: str, context: Context) -> tuple[dict[str, Any], Any]:
    """The figures of a task, and the profiler that saw it."""
    task = tiny(TASKS[name]) if context.size == "dry" else TASKS[name]
    model = write_model(task, context.scratch / name)
    steps = WARM + TIMED + SEEN + 1
    work = make_work(task, model, context.device, context.dtype, context.compiled, steps=steps)
    on_gpu = context.device == "cuda"
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if on_gpu else [])
    took, seen = watch(work, activities)
    waits = host_wait(seen)
    figures = took | {"host_wait_us": waits, "host_us": took["seen_us"] - waits}
    return figures | summarise(list_kernels(seen, context.device), SEEN), seen


def run(context: Context, figures: dict[str, Any]) -> None:
    set_up_torch()
    for name in NAMES if context.size == "full" else NAMES[:1]:
        figures[name], seen = look_at(name, context)
        context.keep(figures)
        trace = context.out / f"gpu_trace_{name}.json.gz"
        seen.export_chrome_trace(str(trace))
        if trace.stat().st_size > LARGEST:
            trace.unlink()
