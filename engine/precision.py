"""Device and dtype, each chosen with a reason that is printed; autocast and GradScaler."""

import os
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch

from engine.world import started

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Precision:
    """Where and in what dtype the arithmetic runs; the master weights stay fp32."""

    device: torch.device
    device_reason: str
    dtype: str  # "fp32" | "bf16" | "fp16"
    dtype_reason: str

    def autocast(self) -> AbstractContextManager:
        """Context in which matrix products run in `dtype` and delicate sums stay fp32."""
        return torch.autocast(
            self.device.type, dtype=DTYPES[self.dtype], enabled=self.dtype != "fp32"
        )

    def scaler(self) -> torch.amp.GradScaler:
        """Loss scaling (Micikevicius et al. 2018, arXiv:1710.03740): only fp16 needs it."""
        return torch.amp.GradScaler(self.device.type, enabled=self.dtype == "fp16")


def choose_precision(device: str, dtype: str, resolved_dtype: str | None = None) -> Precision:
    """Resolve "auto". `resolved_dtype` is what an earlier part of the same run resolved it to.

    Raises ValueError for a device that is not here or a dtype it cannot compute in.
    """
    chosen, device_reason = choose_device(device)
    if dtype == "auto" and resolved_dtype is not None:
        return Precision(chosen, device_reason, resolved_dtype, "as when this run started")
    if dtype == "auto":
        return Precision(chosen, device_reason, *probe_dtype(chosen))
    if dtype == "bf16" and chosen.type == "cuda" and not torch.cuda.is_bf16_supported(False):
        raise ValueError("precision.dtype is bf16; this GPU has no bf16 units: use fp16 or auto")
    return Precision(chosen, device_reason, dtype, "as configured")


def multiply_in_tf32(precision: Precision, wanted: bool) -> str | None:
    """Let a GPU round the factors of fp32 products to TF32, ten bits of mantissa, or not; a note
    where products are in fp32 and there is a choice."""
    if precision.device.type != "cuda":
        return "precision.tf32: only GPUs have it" if wanted else None
    torch.set_float32_matmul_precision("high" if wanted else "highest")
    if precision.dtype != "fp32":
        return None
    if wanted:
        return "fp32 products: their factors are rounded to TF32, as configured"
    return "fp32 products: all 24 bits; precision.tf32 = true is faster, with 11"


def choose_device(device: str) -> tuple[torch.device, str]:
    """The device named by `precision.device`, and why."""
    if device == "auto":
        if torch.cuda.is_available():
            own = own_gpu(None)
            return own, f"found {torch.cuda.get_device_name(own)}"
        return torch.device("cpu"), "no CUDA device found"
    try:
        resolved = torch.device(device)
    except RuntimeError:
        resolved = torch.device("meta")
    if resolved.type not in ("cpu", "cuda", "mps"):
        raise ValueError(f"precision.device is {device!r}; expected auto, cpu, cuda, cuda:N or mps")
    if resolved.type == "mps":
        if not torch.backends.mps.is_available():
            raise ValueError("precision.device is 'mps', which is not here: use auto or cpu")
        return torch.device("mps"), "as configured; WARNING: untested, nothing was ever run on it"
    if resolved.type == "cuda":
        count = torch.cuda.device_count()
        if (resolved.index or 0) >= count:
            raise ValueError(
                f"precision.device is {device!r}; torch {torch.__version__} sees {count} CUDA "
                "devices here: use auto or cpu, or install a CUDA build of torch"
            )
        resolved = own_gpu(resolved.index)
    return resolved, "as configured"


def own_gpu(number: int | None) -> torch.device:
    """The GPU of this number, else this process's of its machine, made the current one: streams,
    events and the others' collectives are there. Raises ValueError where processes would share
    one, which NCCL does not allow."""
    here, count = started(), torch.cuda.device_count()
    # as Slurm gives each task a GPU, the only one that it sees
    assigned = count == 1 and bool(os.environ.get("CUDA_VISIBLE_DEVICES"))
    if here.local_size > 1 and number is not None and not assigned:
        raise ValueError(
            f"precision.device is 'cuda:{number}' for each of {here.local_size} processes: use "
            "'cuda' or 'auto', with which each has a GPU of its own"
        )
    if here.local_size > count and not assigned:
        raise ValueError(
            f"{here.local_size} processes on this machine, and torch sees {count} GPUs here: start "
            "one for each GPU (torchrun --nproc-per-node), or set precision.device = 'cpu'"
        )
    own = torch.device("cuda", 0 if assigned else here.local_rank if number is None else number)
    torch.cuda.set_device(own)
    return own


def probe_dtype(device: torch.device) -> tuple[str, str]:
    """bf16 where matrix products are at least 1.5 times faster in it, else fp32. Under a second.

    A processor without bf16 units still computes in bf16, up to hundreds of times slower, so the
    only honest question is how long it takes.
    """
    if device.type == "mps":
        return "fp32", "nothing else was tried on MPS"
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(False):
            return "bf16", "this GPU has bf16 units"
        return "fp16", "this GPU has no bf16 units; fp16 with loss scaling"
    # small products first: where bf16 is emulated the large one would take seconds
    small = seconds_for_product(torch.bfloat16, 128) / seconds_for_product(torch.float32, 128)
    if small > 4:
        return "fp32", f"bf16 products take {small:.0f} times as long as fp32 here (measured)"
    fp32 = seconds_for_product(torch.float32, size=512)
    ratio = fp32 / seconds_for_product(torch.bfloat16, size=512)
    if ratio >= 1.5:
        return "bf16", f"bf16 products run {ratio:.1f} times as fast as fp32 here (measured)"
    return "fp32", f"bf16 products run only {ratio:.1f} times as fast as fp32 here (measured)"


def seconds_for_product(dtype: torch.dtype, size: int) -> float:
    """Best of at least three products of two (size, size) matrices on the CPU, after one to warm
    up, over at least 50 ms and on one thread: on a busy machine threads wait for one another, and
    a few products in a row for a core."""
    a, b = torch.ones(size, size, dtype=dtype), torch.ones(size, size, dtype=dtype)
    times: list[float] = []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        end = time.perf_counter() + 0.05
        while len(times) < 4 or time.perf_counter() < end:
            start = time.perf_counter()
            torch.mm(a, b)
            times.append(time.perf_counter() - start)
    finally:
        torch.set_num_threads(threads)
    return min(times[1:])
