"""Weights, gradients and optimizer in shards, one on each process (ZeRO: Rajbhandari et al. 2020,
arXiv:1910.02054), by torch's FSDP2 (Zhao et al. 2023, arXiv:2304.11277).

    forward, backward   the shards of one block after another are gathered, used and dropped
    the last backward   gradients are summed over all processes, each keeps its shard of the sum
    AdamW               each process moves its own shard

What lies in no block (embeddings, the last norm, the head) is gathered for the whole of a forward
and backward pass. A collective waits for all processes, so all do as many passes: one that has no
micro-batch left takes part with a stand-in that counts for nothing (windows.py).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from engine.losses import Batch
from engine.world import keep_step, wait_as_all, world

FULL, GRAD_OP, HYBRID = "full", "grad_op", "hybrid"
Loss = Callable[[nn.Module, Batch], Tensor]


class Whole(nn.Module):
    """The root of all blocks: while its forward runs, what lies in no block is gathered. A model is
    called in parts (its layers, then its head's weight in a loss), so it is not the root itself."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, run: Callable[[], Tensor]) -> Tensor:
        return run()


_whole: Any = None  # of this run, where it is sharded, and how
_shard = FULL


def mesh_of(device: str, shard: str) -> DeviceMesh:
    """The processes as (copies, shards, parts of a layer). With "hybrid" those of one machine share
    a model between them, and each machine has a copy. Raises ValueError where they make no such
    groups."""
    here, copies = world(), 1
    if shard == HYBRID:
        if here.size % here.local_size or here.local_size % here.tensor:
            raise ValueError(
                f"parallel.shard is 'hybrid', and {here.size} processes make no whole machines of "
                f"{here.local_size}: start as many on each, or take parallel.shard = 'full'"
            )
        copies = here.size // here.local_size
    sizes = (copies, here.shares // copies, here.tensor)
    mesh = init_device_mesh(device, sizes, mesh_dim_names=("replicate", "shard", "tensor"))
    for group in mesh.get_all_groups():
        wait_as_all(group)
    return mesh


def shard_model(
    model: nn.Module, blocks: Sequence[Sequence[nn.Module]], device: torch.device, shard: str,
    offload: bool = False, compiled: bool = False,
) -> None:  # fmt: skip
    """Put the model's parameters in shards, in place: each becomes a DTensor of the same name, on
    `device` or, to `offload`, on the host. `blocks` are gathered one at a time; with "grad_op" they
    stay for the whole step. `compiled`: each block by torch.compile."""
    global _whole, _shard
    keep_step()
    _shard = shard
    mesh = mesh_of(device.type, shard)
    mesh = mesh["replicate", "shard"] if shard == HYBRID else mesh["shard"]
    policy = CPUOffloadPolicy() if offload else OffloadPolicy()
    whole = Whole(model)
    for block in blocks:
        for module in block:
            if compiled:
                module.compile()
            fully_shard(
                module, mesh=mesh, reshard_after_forward=shard != GRAD_OP, offload_policy=policy
            )
    _whole = fully_shard(whole, mesh=mesh, offload_policy=policy)
    for module in _whole.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)  # sums: losses were divided before
            module.set_force_sum_reduction_for_comms(True)
    with torch.no_grad():
        _whole(lambda: torch.zeros(()))  # who is the root is settled by the first that runs
    settle()


def through_whole(compute_loss: Loss) -> Loss:
    """The loss, worked out while what lies in no block is gathered."""

    def compute(model: nn.Module, batch: Batch) -> Tensor:
        loss: Tensor = _whole(lambda: compute_loss(model, batch))
        if not torch.is_grad_enabled():
            settle()  # no backward pass will
        return loss

    return compute


@contextmanager
def gathered() -> Iterator[None]:
    """Forward passes without a loss, as evaluations do them."""
    _whole.unshard()
    try:
        yield
    finally:
        settle()


def settle() -> None:
    """Drop what is gathered: the model's parameters are the shards again, which the optimizer has.
    To be called where a forward pass has no backward pass behind it."""
    for module in _whole.modules():  # reshard() is of a module's own parameters alone
        if isinstance(module, FSDPModule):
            module.reshard()


def sum_in_backward(last: bool) -> None:
    """Whether the next backward pass, a window's last, sums the gradients over all processes. With
    "grad_op" weights stay gathered until then: no update moves them before."""
    _whole.set_requires_gradient_sync(last)
    if _shard == GRAD_OP:
        _whole.set_reshard_after_backward(last)


def whole_tensors(tensors: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """(name, tensor) of split and plain ones, each put together, one at a time: all processes have
    to ask for the same."""
    for name, tensor in tensors.items():
        yield name, tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def put_whole(tensor: Tensor, value: Tensor) -> None:
    """Make a tensor, split or plain, what rank 0 brings as `value`, of its whole shape; of the
    others' only shape and dtype count."""
    with torch.no_grad():
        if not isinstance(tensor, DTensor):
            here = value.to(tensor.device, tensor.dtype)
            dist.broadcast(here, src=0)
            tensor.copy_(here)
            return
        here = value.to(tensor.device_mesh.device_type, tensor.dtype)
        dist.broadcast(here, src=0)
        cut = distribute_tensor(here, tensor.device_mesh, tensor.placements, src_data_rank=None)
        tensor.to_local().copy_(cut.to_local())
