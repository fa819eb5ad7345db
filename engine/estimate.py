"""What a run will need, measured on a small forward and backward before step 1."""

import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from engine.evaluate import to_device
from engine.losses import Batch
from engine.precision import Precision
from engine.randomness import preserve_randomness


@dataclass(frozen=True)
class Estimate:
    """Bytes by what holds them, and seconds."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    seconds_per_token: float  # forward and backward, tokens of the probe with their padding

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.activations


def double(batch: Batch) -> Batch:
    """The batch with each row twice."""
    inputs = {name: torch.cat([tensor, tensor]) for name, tensor in batch["inputs"].items()}
    twice = {name: torch.cat([batch[name], batch[name]]) for name in ("labels", "rows")}
    return {**batch, "inputs": inputs, **twice}


def run_probe(
    model: nn.Module,
    compute_loss: Callable[[nn.Module, Batch], Tensor],
    probe: Batch,
    precision: Precision,
) -> tuple[int, float]:
    """Bytes autograd keeps of a forward pass, weights not counted, and seconds with backward."""
    weights = {p.data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    batch = to_device(probe, precision.device)
    start = time.perf_counter()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t), precision.autocast():
        loss = compute_loss(model, batch)
    trainable = [p for p in model.parameters() if p.requires_grad]
    torch.autograd.grad(loss, trainable, allow_unused=True)
    if precision.device.type == "cuda":
        torch.cuda.synchronize(precision.device)
    return sum(kept.values()), time.perf_counter() - start


def estimate(
    model: nn.Module,
    compute_loss: Callable[[nn.Module, Batch], Tensor],
    probe: Batch,
    precision: Precision,
    tokens: int,
) -> Estimate:
    """Memory of a step over a micro-batch of `tokens` (padding included), and time per token.

    `probe` is a small batch of the same width. What autograd keeps for the backward pass is counted
    byte by byte, for the probe and for twice the probe: what doubled grows with the tokens, the
    rest (half-precision copies of weights) is there once. AdamW keeps two fp32 numbers a parameter.
    No gradient, weight, buffer or random state is left behind.
    """
    trained = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    probe_tokens = probe["inputs"]["input_ids"].numel()
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    with preserve_randomness():
        small, _ = run_probe(model, compute_loss, probe, precision)  # warms up as well
        large, seconds = run_probe(model, compute_loss, double(probe), precision)
    with torch.no_grad():
        for name, before in buffers.items():
            model.get_buffer(name).copy_(before)
    return Estimate(
        weights=sum(p.numel() * p.element_size() for p in model.parameters()),
        gradients=trained,
        optimizer=2 * trained,
        activations=int(small + (large - small) * (tokens / probe_tokens - 1)),
        seconds_per_token=seconds / (2 * probe_tokens),
    )


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
