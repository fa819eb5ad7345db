"""What machine this is, which versions it holds, and what its matrix products and memory reach."""

import platform
import subprocess
import time
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import machine
import torch
from child import wait_for_device

from gpu_steps.context import Context

PACKAGES = ("torch", "transformers", "peft", "accelerate", "triton", "tokenizers", "safetensors",
            "numpy", "pytest", "hypothesis", "datasets", "pydantic")  # fmt: skip
LAUNCHES = 1000


def find_version(name: str) -> str | None:
    """A package's version; None where it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def driver() -> str | None:
    """The driver's version, asked of nvidia-smi."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def describe_gpu() -> dict[str, Any]:
    """Name, size and software of the first CUDA device."""
    properties = torch.cuda.get_device_properties(0)
    return {
        "name": properties.name,
        "memory": properties.total_memory,
        "multiprocessors": properties.multi_processor_count,
        "capability": f"{properties.major}.{properties.minor}",
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "driver": driver(),
    }


def launch_seconds(device: str) -> float:
    """Host seconds to queue one tiny operation: what a step of many small ones cannot go below."""
    x = torch.zeros(1, device=device)
    for _ in range(LAUNCHES):
        x.add_(1)
    wait_for_device()
    start = time.perf_counter()
    for _ in range(LAUNCHES):
        x.add_(1)
    return (time.perf_counter() - start) / LAUNCHES


def copy_bandwidth(device: str, size: int) -> float:
    """Bytes a second of a copy on the device, read and written, best of ten."""
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target, best = torch.empty_like(source), float("inf")
    for _ in range(10):
        wait_for_device()
        start = time.perf_counter()
        target.copy_(source)
        wait_for_device()
        best = min(best, time.perf_counter() - start)
    return 2 * size / best


def run(context: Context, figures: dict[str, Any]) -> None:
    figures["python"] = platform.python_version()
    figures["system"] = platform.platform()
    figures["processor"] = machine.processor()
    figures["cores"] = machine.usable_cores()
    figures["versions"] = {name: find_version(name) for name in PACKAGES}
    figures["code"] = machine.code_digest()
    figures["gpu"] = describe_gpu() if torch.cuda.is_available() else None
    context.keep(figures)
    if figures["gpu"] is None and context.size != "dry":
        return
    dtypes = ("fp32",) if context.size == "dry" else ("bf16", "fp32")
    seconds = 0.2 if context.size == "dry" else 1.0
    figures["peak"] = {name: machine.matmul_peak(name, seconds) for name in dtypes}
    figures["launch_us"] = launch_seconds(context.device) * 1e6
    size = 2**24 if context.size == "dry" else 2**30
    figures["copy_bytes_per_s"] = copy_bandwidth(context.device, size)
