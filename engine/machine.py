"""What the process asks of the machine: threads, kernels and memory, each with its reason."""

import ctypes
import os
import platform
from pathlib import Path

import torch

from engine.world import started

# glibc's mallopt: M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD
TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD = -1, -2, -3
LARGE = 1 << 30  # bytes
# what oneDNN and torch's layer above it each read at their first matrix product
CAPACITIES = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY")
KERNELS = 64  # of a kind: those of one pass over an evaluation's batches, or of a few steps


def choose_threads(wanted: int | None) -> str:
    """Set torch's threads to `wanted`, or to no more than this process may use; says which.

    Torch counts the cores of the machine; a container may be granted fewer, and threads beyond
    that only wait for one another.
    """
    if wanted is not None:
        torch.set_num_threads(wanted)
        return f"threads: {wanted}, as configured"
    here = started()
    if not here.alone:
        share = max(1, (granted_cores() or available_cores()) // here.local_size)
        torch.set_num_threads(share)
        return f"threads: {share} for each of {here.local_size} processes on this machine"
    threads, granted = torch.get_num_threads(), granted_cores()
    if granted is not None and granted < threads:
        torch.set_num_threads(granted)
        return f"threads: {granted}, the cores this container is granted (torch counts {threads})"
    return f"threads: {threads}, torch's own choice for this machine"


def available_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def use_deterministic_algorithms() -> str:
    """Let torch use no kernel whose sums depend on who comes first; says so. To be called before
    the first matrix product on CUDA."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS asks for it
    torch.use_deterministic_algorithms(True)
    return "deterministic algorithms only: slower on CUDA, and the same bits each time"


def granted_cores(root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Cores that a control group's quota allows, at least 1; None where there is no quota."""
    try:
        quota, period = (root / "cpu.max").read_text(encoding="utf-8").split()
    except (OSError, ValueError):
        return None
    return None if quota == "max" else max(1, int(quota) // int(period))


def keep_freed_memory() -> str:
    """Let glibc keep what is freed: the next step asks for the same sizes again, and memory that
    was given back comes page by page, each zeroed first. Says what was done."""
    if platform.libc_ver()[0] != "glibc":
        return "allocator: as it is; only glibc's is known here"
    if any(name in os.environ for name in ("LD_PRELOAD", "MALLOC_MMAP_THRESHOLD_")):
        return "allocator: as the environment has it"
    libc = ctypes.CDLL(None)
    if not any(libc.mallopt(MMAP_THRESHOLD, size) for size in (LARGE, 32 << 20)):
        return "allocator: as it is; glibc refused the setting"
    libc.mallopt(TRIM_THRESHOLD, LARGE)
    libc.mallopt(TOP_PAD, 64 << 20)
    return "allocator: freed memory is kept for the next step"


def keep_few_kernels() -> str:
    """Let oneDNN keep 64 kernels of a kind, not 1,024. To be called before the first matrix product
    on the CPU; says what was done.

    Nearly every step is of a new length and needs kernels of its own, a quarter of a megabyte each
    and scattered over the memory that the next step wants whole (benchmarks/LOG.md 37).
    """
    if any(os.environ.get(name, str(KERNELS)) != str(KERNELS) for name in CAPACITIES):
        return "oneDNN: keeps as many kernels as the environment says"
    for name in CAPACITIES:
        os.environ[name] = str(KERNELS)
    return f"oneDNN: keeps {KERNELS} kernels of a kind, for most steps are of a new length"
