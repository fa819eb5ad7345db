"""A GPU's memory: how much fits, and what to say when it did not; and memory between two runs."""

import ctypes
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from torch import nn

CPU_FAILS = "can't allocate memory"
MOST_TOKENS = 65_536  # in one forward pass: from there on a GPU gains nothing


def token_budget(model: nn.Module, device: torch.device) -> int:
    """Tokens in one forward pass without gradients that a quarter of the free memory holds, a power
    of two, so that a little more or less of it changes nothing."""
    free, _ = torch.cuda.mem_get_info(device)
    free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    fits = max(1, min(MOST_TOKENS, free // 4 // bytes_per_token(model)))
    return 1 << (fits.bit_length() - 1)


def room_of(device: torch.device, processes: int) -> int:
    """Bytes that one of so many processes of this machine may take, nine tenths of what is there:
    of its own GPU, or of the memory that is free, divided."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory * 9 // 10
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
        free = next(line for line in lines if line.startswith("MemAvailable:"))
        return int(free.split()[1]) * 1024 * 9 // 10 // processes
    return 2**63 - 1  # of another system nothing is known: whatever fits


def bytes_per_token(model: nn.Module) -> int:
    """What a token takes at the widest place of a forward pass without gradients: input and output
    of the widest linear layer in fp32, four times over for all that stands beside them."""
    widths = [sum(m.weight.shape) for m in model.modules() if isinstance(m, nn.Linear)]
    return 4 * 4 * max(widths, default=1)


@contextmanager
def explained(advice: str) -> Iterator[None]:
    """Running out of memory becomes a ValueError that says what to lower."""
    try:
        yield
    except RuntimeError as error:  # as torch.OutOfMemoryError is; of a CPU it is known by its words
        if not isinstance(error, torch.OutOfMemoryError) and CPU_FAILS not in str(error):
            raise
        first = str(error).strip().partition("\n")[0]
        raise ValueError(f"out of memory: {first or 'on the GPU'}\n{advice}") from error


def give_back_memory() -> None:
    """Give freed memory, which the allocators keep for the next step, back to the system. Where the
    system has no such call, nothing."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # another C library
            ctypes.CDLL(None).malloc_trim(0)


def release_memory() -> None:
    """Give back what a finished run of this process held, and forget its peak, so that the next one
    measures its own. Where the system has no such call, nothing."""
    give_back_memory()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    forget_peak()


def forget_peak() -> None:
    """Let the process's peak of memory be what it holds now. Elsewhere than on Linux, nothing."""
    if sys.platform == "linux":
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # VmHWM is VmRSS again
