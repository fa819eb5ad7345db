"""The machine's settings and the fast paths of a run, from [run] and [speed]."""

import os
from collections.abc import Iterable, Iterator

import torch
from torch import nn

from configs.schema import Config
from engine.feed import feed
from engine.losses import Batch, count_items
from engine.machine import choose_threads, keep_few_kernels, keep_freed_memory
from engine.precision import DTYPES, Precision
from models.fast.speed import Speed, SpeedArgs, speed_up
from models.fast.streams import lay_out


def set_up_torch(config: Config) -> list[str]:
    """Threads, kernels, allocator and determinism; a note for each."""
    notes = [choose_threads(config.run.threads), keep_few_kernels()]
    if config.speed.allocator:
        notes.append(keep_freed_memory())
    else:
        notes.append("allocator: the system's own, as configured")
    if config.run.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS asks for it
        torch.use_deterministic_algorithms(True)
        notes.append("deterministic algorithms only: slower on CUDA, and the same bits each time")
    return notes


def speed_up_model(
    model: nn.Module,
    config: Config,
    precision: Precision,
    padding_side: str,
    compiled: bool = False,
) -> Speed:
    """Put the fast paths of [speed] into a model that is on its device. `compiled`: torch.compile
    will see it."""
    args = SpeedArgs(**config.speed.model_dump(exclude={"allocator"}))
    dtype = DTYPES[precision.dtype]
    return speed_up(
        model, args, precision.device, dtype, compiled, left_padded=padding_side == "left"
    )


def feed_batches(batches: Iterable[Batch], speed: Speed, device: torch.device) -> Iterator[Batch]:
    """Batches as the model takes them, ahead of the training and on its device: the host, which
    knows the lengths, says where the texts lie in the stream."""
    if speed.resolved.get("batches") == "streams":
        batches = map(lay_out, batches)
    return feed(batches, device, count_items)
