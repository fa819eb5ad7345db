"""The processes of a run, as torchrun starts them: who am I, and what all of them agree on.

    three processes               rank  0   1   2
    a window of seven micro-batches     0   1   2      whose each one is
                                        3   4   5
                                        6

One process is the plain case: rank 0 of 1. Every sum is then what it was, and nothing distributed
is imported. What is worked out from all ranks comes out the same on all of them, in an order that
does not depend on who was first. So all take the same steps; rank 0 alone writes.

Numbers of the host (counts, flags, rows) travel by gloo, gradients of a GPU by NCCL: no rank waits
for its device to say how many items there are.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import groupby
from typing import TYPE_CHECKING, Any, TypeVar

from engine.stop import Stopped, StopRequest
from engine.store import open_store

if TYPE_CHECKING:  # commands need this file before torch is loaded
    import torch
    from torch import Tensor

T = TypeVar("T")
BUCKET = 2**25  # elements of gradients that are summed at once: 128 MiB of fp32
ITEM, END, STOPPED = range(3)  # what a rank brings to a round of in_order


@dataclass(frozen=True)
class World:
    """Which process this is of the run's."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0  # on its machine
    local_size: int = 1

    @property
    def alone(self) -> bool:
        """Whether this process is the whole run."""
        return self.size == 1

    @property
    def share(self) -> slice:
        """What is its own of a sequence: every size-th, from its rank on."""
        return slice(self.rank, None, self.size)


_joined = World()


def world() -> World:
    """This process's place in the run."""
    return _joined


def started() -> World:
    """What the starter (torchrun, srun with these variables) says of this process, before anything
    is joined. Raises ValueError where it contradicts itself."""
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    try:
        rank, size, local_rank, local_size = (
            int(os.environ.get(name, usual)) for name, usual in zip(names, "0101", strict=True)
        )
    except ValueError:
        told = ", ".join(f"{name}={os.environ.get(name)!r}" for name in names)
        raise ValueError(f"the processes of a run are counted by integers; got {told}") from None
    if not 0 <= rank < size:
        raise ValueError(f"got RANK={rank} and WORLD_SIZE={size}; ranks go from 0 to size - 1")
    return World(rank, size, local_rank, local_size)


def join(timeout: timedelta, device: str) -> World:
    """Meet the other processes; with one process, nothing. `device` is "cpu" or "cuda". A rank that
    does not come to a meeting within `timeout` ends the run."""
    global _joined
    told = started()
    if told.alone or not _joined.alone:
        return told
    import torch.distributed as dist

    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo", timeout=timeout,
        store=open_store(told.rank, "meetings", timeout), rank=told.rank, world_size=told.size,
    )  # fmt: skip
    _joined = told
    return told


def leave() -> None:
    """The end of the run's meetings."""
    global _joined
    if not _joined.alone:
        import torch.distributed as dist

        _joined = World()
        dist.destroy_process_group()


def deal(numbers: Sequence[T]) -> Sequence[T]:
    """Those of `numbers` that are this process's."""
    return numbers[_joined.share]


def sum_counts(*counts: int) -> list[int]:
    """Each count summed over all processes, exactly."""
    if _joined.alone:
        return list(counts)
    import torch
    import torch.distributed as dist

    summed = torch.tensor(counts, dtype=torch.int64)
    dist.all_reduce(summed)
    return summed.tolist()


def highest(number: int) -> int:
    """The largest of all processes' numbers."""
    if _joined.alone:
        return number
    import torch
    import torch.distributed as dist

    largest = torch.tensor(number)
    dist.all_reduce(largest, dist.ReduceOp.MAX)
    return int(largest)


def agree_to_stop(stop: StopRequest) -> bool:
    """Whether any process was asked to stop; then all are. A signal that comes while they agree is
    for the next time: none may stop that the others do not know of."""
    if agreed := highest(stop.signal or 0):
        stop.signal = agreed
        if not _joined.alone and _joined.rank == 0:
            stop.announce()
    return agreed > 0


def gather(value: T) -> list[T]:
    """What each process brings, by rank."""
    if _joined.alone:
        return [value]
    import torch.distributed as dist

    values: list[Any] = [None] * _joined.size
    dist.all_gather_object(values, value)
    return values


def from_first(value: T) -> T:
    """What rank 0 brings, for all."""
    if _joined.alone:
        return value
    import torch.distributed as dist

    values: list[Any] = [value if _joined.rank == 0 else None]
    dist.broadcast_object_list(values, src=0)
    return values[0]


def spread(tensors: Iterable[Tensor]) -> None:
    """Tensors of the same shapes on all processes become rank 0's, in place."""
    if _joined.alone:
        return
    import torch.distributed as dist

    for tensor in tensors:
        dist.broadcast(tensor, src=0)


def in_order(own: Iterator[T]) -> Iterator[T]:
    """What all processes make of their share, on each of them in the order of the whole: first that
    of rank 0's first, then that of rank 1's first. Where one raises Stopped, all do."""
    if _joined.alone:
        yield from own
        return
    while True:
        try:
            brought: tuple[int, Any] = (ITEM, next(own))
        except StopIteration:
            brought = (END, None)
        except Stopped as stopped:
            brought = (STOPPED, stopped.signal)
        everyone = gather(brought)
        if signals := [signal for kind, signal in everyone if kind == STOPPED]:
            raise Stopped(max(signals))
        items = [item for kind, item in everyone if kind == ITEM]
        yield from items
        if len(items) < len(everyone):  # only the last round has fewer
            return


def sum_gradients(
    parameters: Sequence[Tensor], losses: Sequence[Tensor], device: torch.device
) -> Tensor:
    """The sum of all processes' losses, (). Every gradient becomes such a sum too. What no process
    has a gradient of keeps none; a process without one takes part with zeros.

    A sum, not the mean of torch's DistributedDataParallel: each loss was divided by the items of
    the whole window before.
    """
    import torch

    if _joined.alone:
        return torch.stack(list(losses)).sum()
    import torch.distributed as dist

    present = sum_counts(*(p.grad is not None for p in parameters))
    wanted = [p for p, ranks in zip(parameters, present, strict=True) if ranks]
    for p in wanted:
        if p.grad is None:
            p.grad = torch.zeros_like(p)
    for bucket in buckets(wanted):
        flat = torch.cat([p.grad.flatten() for p in bucket])  # type: ignore[union-attr]
        dist.all_reduce(flat)
        for p, part in zip(bucket, flat.split([p.numel() for p in bucket]), strict=True):
            p.grad = part.view_as(p)
    own = torch.zeros((), dtype=torch.float64, device=device)  # whatever dtype others have
    for loss in losses:
        own += loss
    dist.all_reduce(own)
    return own


def buckets(parameters: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Parameters of one dtype together, in their order, up to BUCKET elements."""
    for _, alike in groupby(parameters, key=lambda p: (p.grad.dtype, p.grad.device)):  # type: ignore[union-attr]
        bucket: list[Tensor] = []
        for p in alike:
            if bucket and sum(one.numel() for one in bucket) + p.numel() > BUCKET:
                yield bucket
                bucket = []
            bucket.append(p)
        yield bucket
