"""What a run will need, measured on a small forward and backward before step 1."""

import resource
import sys
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from engine.evaluate import inference, to_device
from engine.gradients import is_split, own_part
from engine.losses import Batch
from engine.memory import forget_peak
from engine.precision import Precision
from engine.randomness import preserve_randomness

# of the bytes of a step's tensors on the CPU: glibc's holes between those of one length and the
# next, and oneDNN's kernels for each (benchmarks/LOG.md 42)
HOLES = 0.3


@dataclass(frozen=True)
class Estimate:
    """Bytes by what holds them, and seconds."""

    weights: int
    gradients: int
    optimizer: int
    activations: int  # all other tensors at the peak of a step or an evaluation
    libraries: int  # on the CPU: what they took at their first products, and keep
    holes: int  # on the CPU: HOLES of the activations
    seconds_per_token: float  # forward and backward, tokens of the probe with their padding
    idle: tuple[str, ...] = ()  # parameters that train and had no gradient, or zeros, in the probe

    @property
    def total(self) -> int:
        held = self.weights + self.gradients + self.optimizer + self.libraries
        return held + self.activations + self.holes


class LiveBytes(TorchDispatchMode):
    """Counts the storages that operations make while it is on: `most` bytes that lived at once."""

    def __init__(self, known: Iterable[Tensor]) -> None:
        """What is `known` was there before, and a view of it is nothing new."""
        super().__init__()
        self.now = self.most = 0
        self.alive = {tensor.untyped_storage().data_ptr() for tensor in known}

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        out = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self.add(tensor.untyped_storage())
        return out

    def add(self, storage: torch.UntypedStorage) -> None:
        """Count a storage until it is freed."""
        address, size = storage.data_ptr(), storage.nbytes()
        if size and address not in self.alive:
            self.alive.add(address)
            self.now += size
            self.most = max(self.most, self.now)
            weakref.finalize(storage, self.remove, address, size)

    def remove(self, address: int, size: int) -> None:
        self.alive.discard(address)
        self.now -= size


def repeat(batch: Batch, times: int = 2) -> Batch:
    """The batch with all of its rows so many times."""
    inputs = {name: torch.cat([tensor] * times) for name, tensor in batch["inputs"].items()}
    again = {name: torch.cat([batch[name]] * times) for name in ("labels", "rows")}
    return {**batch, "inputs": inputs, **again}


def most_bytes(run: Callable[[], object], model: nn.Module, device: torch.device) -> int:
    """Most bytes of tensors that `run` held at once, beside what was there."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    if is_split(model):  # shards are gathered into storages that grow and shrink: not countable
        forget_peak()
        before = resident_bytes("VmRSS")
        run()
        return max(0, resident_bytes("VmHWM") - before)
    with LiveBytes([*model.parameters(), *model.buffers()]) as live:
        run()
    return live.most


def grow(sizes: tuple[int, int], times: float) -> int:
    """Bytes for so many times the probe, from those for the probe and for twice the probe: what
    doubled grows, the rest (half-precision copies of weights) is there once."""
    small, large = sizes
    return int(small + (large - small) * (times - 1))


def estimate(
    model: nn.Module,
    compute_loss: Callable[[nn.Module, Batch], Tensor],
    probe: Batch,
    precision: Precision,
    tokens: int,
    evaluated: int = 0,
) -> Estimate:
    """Memory of a step over a micro-batch of `tokens` and of an evaluation of `evaluated` tokens at
    a time, padding included where it is computed, and time per token.

    `probe` is a small batch without padding, whose activations outweigh any parameter's gradient.
    The tensors that live at once in its forward and backward pass are counted byte by byte, for the
    probe and for twice the probe; gradients of parameters, dropped as they come, are counted apart.
    On the CPU what the libraries took at their first products, beside those tensors, and HOLES come
    on top. AdamW keeps two fp32 numbers a parameter. No gradient, weight, buffer or random state is
    left behind.
    """
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    trained = sum(own_part(p).nbytes for p in trainable.values())
    probe_tokens = probe["inputs"]["input_ids"].numel()
    small, large = (to_device(batch, precision.device) for batch in (probe, repeat(probe)))
    on_cpu = precision.device.type == "cpu"

    def forward(batch: Batch) -> Tensor:
        with precision.autocast():
            return compute_loss(model, batch)

    def most(run: Callable[[Batch], object]) -> tuple[int, int]:
        once, twice = (partial(run, batch) for batch in (small, large))
        device = precision.device
        return most_bytes(once, model, device), most_bytes(twice, model, device)

    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    resident = resident_bytes("VmRSS")
    with preserve_randomness(), dropped_gradients(trainable) as reached:
        steps = most(lambda batch: forward(batch).backward())
        taken = max(0, resident_bytes("VmRSS") - resident - steps[1]) if on_cpu else 0
        start = time.perf_counter()
        forward(large).backward()
        if precision.device.type == "cuda":
            torch.cuda.synchronize(precision.device)
        seconds = time.perf_counter() - start
        with inference(model):
            evaluations = most(forward)
    with torch.no_grad():
        for name, before in buffers.items():
            model.get_buffer(name).copy_(before)
    peak = max(grow(steps, tokens / probe_tokens), grow(evaluations, evaluated / probe_tokens))
    return Estimate(
        weights=sum(own_part(p).nbytes for p in model.parameters()),
        gradients=trained,
        optimizer=2 * trained,
        activations=peak,
        libraries=taken,
        holes=int(HOLES * peak) if on_cpu else 0,
        seconds_per_token=seconds / (2 * probe_tokens),
        idle=tuple(name for name in trainable if name not in reached),
    )


@contextmanager
def dropped_gradients(parameters: Mapping[str, nn.Parameter]) -> Iterator[set[str]]:
    """Each gradient is dropped as soon as a backward pass has made it; gives the names, which grow
    meanwhile, of the parameters that had one other than zero."""
    reached = set[str]()

    def drop(name: str, parameter: Tensor) -> None:
        if name not in reached and bool(parameter.grad.any()):  # type: ignore[union-attr]
            reached.add(name)
        parameter.grad = None

    hooks = [
        p.register_post_accumulate_grad_hook(partial(drop, name)) for name, p in parameters.items()
    ]
    try:
        yield reached
    finally:
        for hook in hooks:
            hook.remove()


def held_memory(device: torch.device) -> int:
    """Bytes held at this moment: of the device on CUDA, of the whole process on the CPU."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    return resident_bytes("VmRSS")


def peak_memory(device: torch.device) -> int:
    """Most bytes held so far: of the device on CUDA, of the whole process on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resident_bytes("VmHWM")


def resident_bytes(field: str) -> int:
    """VmRSS (now) or VmHWM (the most so far) of this process; elsewhere than on Linux always the
    most so far. Not ru_maxrss on Linux, which also knows the parent's memory from before exec."""
    try:
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith(field + ":"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
