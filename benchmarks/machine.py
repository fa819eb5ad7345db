"""What a machine is and what its matrix products reach, told by a process of its own.

    python benchmarks/machine.py          one JSON line: {"fingerprint": ..., "peak": ..., ...}

The fingerprint holds what figures may not be mixed across: processor, cores, instruction set,
bf16 units (as measured, not as advertised), versions, and a digest of the code being measured.
"""

import hashlib
import json
import os
import platform
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from child import ROOT, wait_for_device  # first: it makes the project importable

# what a measured process runs: packages of the project, and files beside this one
PACKAGES = ("configs", "data", "engine", "files", "job", "models")
FILES = (
    "arithmetic.py", "arithmetic_decoder.py", "child.py", "contestants.py", "random_gpt2.py",
    "stock.py", "tasks.py", "trainer.py",
)  # fmt: skip
SIZES = {"cpu": (1024, 2048), "cuda": (8192,)}
SECONDS = 2.0  # of products of each size, of which the best counts


def processor() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def usable_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def code_digest(root: Path = ROOT) -> str:
    """Hash of the code that is measured: figures of another code are not its figures."""
    digest = hashlib.sha256()
    paths = [path for package in PACKAGES for path in sorted((root / package).rglob("*"))]
    paths += [root / "benchmarks" / name for name in FILES]
    for path in paths:
        if path.suffix in (".py", ".cpp", ".h"):
            digest.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def matmul_peak(dtype_name: str, seconds: float = SECONDS) -> float:
    """FLOP/s of the best of many square matrix products in this dtype. Small ones too: on a shared
    machine they find a quiet moment."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    best = 0.0
    for size in SIZES[device]:
        a, b = (torch.randn(size, size, device=device).to(dtypes[dtype_name]) for _ in range(2))
        out = torch.mm(a, b)
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            wait_for_device()
            start = time.perf_counter()
            torch.mm(a, b, out=out)  # into the same memory: fresh pages are no arithmetic
            wait_for_device()
            best = max(best, 2 * size**3 / (time.perf_counter() - start))
    return best


def has_matrix_units(peak: Mapping[str, float]) -> bool:
    """Whether bf16 products reach four times fp32's: units for whole tiles give eight and more,
    instructions for pairs of numbers (AVX512_BF16) two."""
    return peak.get("bf16", 0.0) >= 4 * peak["fp32"]


def describe() -> dict[str, Any]:
    """Fingerprint, fast dtype with its reason, and the peaks of the dtypes worth using here."""
    import torch

    from engine.machine import choose_threads
    from engine.precision import choose_device, probe_dtype

    choose_threads(None)  # as a run does
    device, _ = choose_device("auto")
    dtype, reason = probe_dtype(device)
    names = ("torch", "transformers", "peft", "accelerate")
    return {
        "fingerprint": {
            "processor": processor() if device.type == "cpu" else torch.cuda.get_device_name(0),
            "architecture": platform.machine(),
            "cores": usable_cores(),
            "threads": torch.get_num_threads(),
            "capability": torch.backends.cpu.get_cpu_capability(),
            "fast_dtype": dtype,
            "versions": {"python": platform.python_version()} | {n: version(n) for n in names},
            "code": code_digest(),
        },
        "reason": reason,
        "peak": {name: matmul_peak(name) for name in dict.fromkeys(("fp32", dtype))},
    }


if __name__ == "__main__":
    print(json.dumps(describe()))
