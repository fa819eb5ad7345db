"""What a process of a run holds and sends, by how the model is spread over them: arithmetic.

    ddp             each has all of it; gradients are summed
    fsdp, full      weights, gradients and optimizer in shards (ZeRO-3)
          grad_op   the same, but weights are gathered once a step and stay (ZeRO-2)
          hybrid    shards within a machine, a copy on each (HSDP)
    tensor          so many neighbours split every layer, with any of these

(ZeRO: Rajbhandari et al. 2020, arXiv:1910.02054.) Bytes are those of one process; what libraries
and the allocator add is not in it.
"""

import math
from dataclasses import dataclass

BUCKET_BYTES = 2**27  # of gradients that are summed at once (gradients.py)


@dataclass(frozen=True)
class Way:
    """How a model is spread."""

    strategy: str  # "ddp" | "fsdp"
    shard: str = "full"  # "full" | "grad_op" | "hybrid", of fsdp
    tensor: int = 1
    offload: bool = False

    def __str__(self) -> str:
        words = "ddp" if self.strategy == "ddp" else f"fsdp, {self.shard}"
        words += f", layers in {self.tensor} parts" if self.tensor > 1 else ""
        return words + (", offloaded" if self.offload else "")


@dataclass(frozen=True)
class Processes:
    """How many there are, in all and on each machine."""

    size: int
    local_size: int

    def shards(self, way: Way) -> int:
        """Over how many a weight is spread, beside the parts of its layer."""
        if way.strategy == "ddp":
            return 1
        return (self.local_size if way.shard == "hybrid" else self.size) // way.tensor

    def shares(self, way: Way) -> int:
        """In how many parts rows are dealt out."""
        return self.size // way.tensor


@dataclass(frozen=True)
class Sizes:
    """Bytes of a model and of its largest micro-batch."""

    frozen: int
    trained: int
    block: int  # of the largest one
    outside: int  # of any block
    splittable: int  # in layers that `tensor` splits
    activations: int

    @property
    def weights(self) -> int:
        return self.frozen + self.trained


@dataclass(frozen=True)
class Held:
    """Bytes of one process by what holds them, on its device."""

    weights: int
    gradients: int
    optimizer: int
    gathered: int  # weights of others, for as long as a block needs them
    activations: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.gathered + self.activations


def held(sizes: Sizes, way: Way, processes: Processes, accumulate: int) -> Held:
    """What one process holds at the peak of a step of `accumulate` micro-batches. AdamW keeps two
    numbers a trained one. Gradients are summed in a window's last backward pass, so they are kept
    whole where a process does more than one."""
    shards, part = processes.shards(way), _part(sizes, way)
    weights, trained = sizes.weights * part, sizes.trained * part
    several = accumulate > processes.shares(way)
    if way.strategy == "ddp":
        flat = min(trained, BUCKET_BYTES) if processes.shares(way) > 1 else 0
        gradients, gathered = trained + flat, 0.0
    else:
        share = sizes.trained / max(sizes.weights, 1)
        whole = trained if several else (2 * sizes.block + sizes.outside) * part * share
        gradients = whole + trained / shards
        blocks = sizes.weights if way.shard == "grad_op" else 2 * sizes.block + sizes.outside
        gathered = min(blocks, sizes.weights) * part
    own = 0.0 if way.offload else 1 / shards
    if way.offload:
        gradients -= trained / shards
    return Held(
        int(weights * own), int(gradients), int(2 * trained * own), int(gathered),
        sizes.activations,
    )  # fmt: skip


def sent(sizes: Sizes, way: Way, processes: Processes, accumulate: int) -> int:
    """Bytes that one process sends for a step, by ring algorithms: a sum over n takes 2 (n-1)/n of
    the tensor, gathering or scattering it (n-1)/n. Sums inside of split layers go with the
    activations and are not in it."""
    shards, part = processes.shards(way), _part(sizes, way)
    weights, trained = sizes.weights * part, sizes.trained * part
    if way.strategy == "ddp":
        return int(2 * _around(processes.shares(way)) * trained)
    own = math.ceil(accumulate / processes.shares(way))
    gathers = 1 if way.shard == "grad_op" else 2 * own
    copies = processes.shares(way) // shards
    inside = _around(shards) * (gathers * weights + trained)
    return int(inside + 2 * _around(copies) * trained / shards)


def choose(sizes: Sizes, processes: Processes, accumulate: int, room: int, wanted: Way) -> Way:
    """DDP where it fits into `room` bytes, else shards as `wanted` says."""
    plain = Way("ddp", tensor=wanted.tensor)
    if held(sizes, plain, processes, accumulate).total <= room:
        return plain
    return Way("fsdp", wanted.shard, wanted.tensor, wanted.offload)


def _part(sizes: Sizes, way: Way) -> float:
    """Of the weights what each of the parts of a layer holds."""
    rest = sizes.weights - sizes.splittable
    return (rest + sizes.splittable / way.tensor) / max(sizes.weights, 1)


def _around(size: int) -> float:
    """What a ring of so many sends of a tensor."""
    return (size - 1) / size
