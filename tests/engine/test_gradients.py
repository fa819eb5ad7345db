"""Gradients of which a process has all of some and a part of others."""

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

from engine.gradients import clip_gradients, unscale_gradients


@pytest.fixture
def mixed():
    """A parameter that is split over a mesh of one process, and a plain one, with gradients."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    mesh = init_device_mesh("cpu", (1,))
    made = [nn.Parameter(distribute_tensor(torch.ones(2, 2), mesh, [Shard(0)])),
            nn.Parameter(torch.ones(3))]  # fmt: skip
    for p in made:
        p.grad = torch.full_like(p, 8.0)
    yield made
    dist.destroy_process_group()


@pytest.mark.parametrize("overflow", [False, True])
def test_the_scale_is_taken_off_split_and_whole_gradients(mixed, overflow):
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    scaler.scale(torch.ones(()))
    if overflow:
        mixed[0].grad.to_local()[1, 1] = torch.inf
    unscale_gradients(scaler, mixed)
    assert mixed[0].grad.to_local()[0, 0] == 2
    assert mixed[1].grad.tolist() == [2, 2, 2]
    scaler.update()
    assert scaler.get_scale() == (2.0 if overflow else 4.0)


def test_the_norm_of_no_gradient_is_0(mixed):
    for p in mixed:
        p.grad = None
    assert clip_gradients(mixed, 1.0) == 0
