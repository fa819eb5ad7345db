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
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from engine.stop import Stopped, StopRequest
from engine.store import open_store

if TYPE_CHECKING:  # commands need this file before torch is loaded
    from torch import Tensor

T = TypeVar("T")
ITEM, END, STOPPED = range(3)  # what a rank brings to a round of in_order


@dataclass(frozen=True)
class World:
    """Which process this is of the run's."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0  # on its machine
    local_size: int = 1
    tensor: int = 1  # neighbours that split every layer between them, and see the same rows
    lockstep: bool = False  # no forward pass is possible without that of all others

    @property
    def alone(self) -> bool:
        """Whether this process is the whole run."""
        return self.size == 1

    @property
    def share(self) -> slice:
        """What is its own of a sequence: every so-manyth, from its place on."""
        return slice(self.rank // self.tensor, None, self.shares)

    @property
    def shares(self) -> int:
        """In how many parts rows are dealt out."""
        return self.size // self.tensor


_joined = World()
_timeout: timedelta | None = None  # of a meeting
_joins = 0  # each run of a process meets under keys of its own: the last one's name the dead
_data: Any = None  # the processes with other rows than this one's and the same part of each layer


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


def join(timeout: timedelta, device: str, tensor: int = 1) -> World:
    """Meet the other processes; with one process, nothing. `device` is "cpu" or "cuda". A rank that
    does not come to a meeting within `timeout` ends the run. Raises ValueError where they cannot be
    put in groups of `tensor`."""
    global _joined, _timeout, _data, _joins
    told = started()
    if told.size % tensor:
        raise ValueError(
            f"parallel.tensor is {tensor}, and {told.size} processes make no whole groups of "
            f"{tensor}: start a multiple of {tensor}, with torchrun --nproc-per-node"
        )
    if told.alone or not _joined.alone:
        return told
    import torch.distributed as dist

    _joins += 1
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo", timeout=timeout,
        store=open_store(told.rank, f"meetings/{_joins}", timeout),
        rank=told.rank, world_size=told.size,
    )  # fmt: skip
    _joined, _timeout = replace(told, tensor=tensor), timeout
    if tensor > 1:
        columns = [list(range(place, told.size, tensor)) for place in range(tensor)]
        # every process makes all of them
        groups = [dist.new_group(column, timeout=timeout) for column in columns]
        _data = groups[told.rank % tensor]
    return _joined


def keep_step() -> None:
    """From now on no process can do a forward pass without the others."""
    global _joined
    _joined = replace(_joined, lockstep=True)


def wait_as_all(group: Any) -> None:
    """Have a group of processes wait as long for one of them as all do, not torch's half hour."""
    if _timeout is not None:
        from torch.distributed.distributed_c10d import _set_pg_timeout

        _set_pg_timeout(_timeout, group)


def leave() -> None:
    """The end of the run's meetings."""
    global _joined, _data
    if not _joined.alone:
        import torch.distributed as dist

        _joined, _data = World(), None
        dist.destroy_process_group()


def deal(numbers: Sequence[T]) -> Sequence[T]:
    """Those of `numbers` that are this process's."""
    return numbers[_joined.share]


def sum_shares(tensor: Tensor) -> None:
    """In place: its sum over all shares of the rows."""
    if not _joined.alone:
        import torch.distributed as dist

        dist.all_reduce(tensor, group=_data)


def sum_counts(*counts: int) -> list[int]:
    """Each count summed over all shares of the rows, exactly."""
    if _joined.alone:
        return list(counts)
    import torch
    import torch.distributed as dist

    summed = torch.tensor(counts, dtype=torch.int64)
    dist.all_reduce(summed, group=_data)
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


def gather_shares(value: T) -> list[T]:
    """What is made of each share of the rows, in their order."""
    return gather(value)[:: _joined.tensor]


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


def in_order(own: Iterator[T | None]) -> Iterator[T]:
    """What all processes make of their share, on each of them in the order of the whole: first that
    of rank 0's first, then that of rank 1's first. None is nothing, and stands behind all others.
    Where one raises Stopped, all do."""
    while True:
        try:
            item = next(own)
            brought: tuple[int, Any] = (END if item is None else ITEM, item)
        except StopIteration:
            brought = (END, None)
        except Stopped as stopped:
            brought = (STOPPED, stopped.signal)
        everyone = gather_shares(brought)
        if signals := [signal for kind, signal in everyone if kind == STOPPED]:
            raise Stopped(max(signals))
        items = [item for kind, item in everyone if kind == ITEM]
        yield from items
        if len(items) < len(everyone):  # only the last round has fewer
            return


def in_step(batches: Iterator[T]) -> Iterator[tuple[T, bool]]:
    """The batches, each True. In lockstep all processes get as many: who has no more gets one
    again, which is False, and is to be worked on like the others. Where one raises Stopped, all
    do."""
    if not _joined.lockstep:
        yield from ((batch, True) for batch in batches)
        return
    filler: Any = None
    while True:
        signal, batch = 0, None
        try:
            batch = next(batches, None)
        except Stopped as stopped:
            signal = stopped.signal
        if signal := highest(signal):
            raise Stopped(signal)
        if not highest(batch is not None):
            return
        if filler is None:  # the first round: rank 0 has one if any has
            filler = from_first(batch)
        filler = filler if batch is None else batch
        yield filler, batch is not None
