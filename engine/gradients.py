"""The gradients of a step, whatever the number of processes: their sum, their norm, an overflow.

A gradient is the same tensor on all processes, or each has a part of it (a DTensor, sharded.py).
"""

import math
from collections.abc import Iterator, Sequence
from itertools import groupby
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from engine.world import highest, sum_counts, sum_shares, world

BUCKET = 2**25  # elements of gradients that are summed at once: 128 MiB of fp32


def sum_in_this_backward(last: bool) -> None:
    """Where weights are split, gradients go around in a window's last backward pass alone."""
    if world().lockstep:
        from engine.sharded import sum_in_backward

        sum_in_backward(last)


def sum_gradients(
    parameters: Sequence[Tensor], losses: Sequence[Tensor], device: torch.device
) -> Tensor:
    """The sum of all processes' losses, (). Every gradient becomes such a sum too, unless the
    backward passes have made it one (sharded.py). What no process has a gradient of keeps none; a
    process without one takes part with zeros.

    A sum, not the mean of torch's DistributedDataParallel: each loss was divided by the items of
    the whole window before.
    """
    if world().alone:
        return torch.stack(list(losses)).sum()
    if not world().lockstep:
        present = sum_counts(*(p.grad is not None for p in parameters))
        wanted = [p for p, ranks in zip(parameters, present, strict=True) if ranks]
        for p in wanted:
            if p.grad is None:
                p.grad = torch.zeros_like(p)
        for bucket in buckets([own_part(p.grad) for p in wanted if p.grad is not None]):
            flat = torch.cat([gradient.flatten() for gradient in bucket])
            sum_shares(flat)
            parts = flat.split([gradient.numel() for gradient in bucket])
            for gradient, part in zip(bucket, parts, strict=True):
                gradient.copy_(part.view_as(gradient))
    own = torch.zeros((), dtype=torch.float64, device=device)  # whatever dtype others have
    for loss in losses:
        own += loss
    sum_shares(own)
    return own


def own_part(tensor: Tensor) -> Tensor:
    """What this process has of a tensor that is split over several, as a view of it."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def is_split(model: nn.Module) -> bool:
    """Whether this process has but a part of some tensors."""
    return any(own_part(p) is not p for p in model.parameters())


def buckets(gradients: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Gradients of one dtype together, in their order, up to BUCKET elements."""
    for _, alike in groupby(gradients, key=lambda g: (g.dtype, g.device)):
        bucket: list[Tensor] = []
        for gradient in alike:
            if bucket and sum(one.numel() for one in bucket) + gradient.numel() > BUCKET:
                yield bucket
                bucket = []
            bucket.append(gradient)
        yield bucket


def clip_gradients(parameters: Sequence[Tensor], max_norm: float | None) -> Tensor:
    """Scale all gradients to a joint norm of at most `max_norm`; returns the norm before, ()."""
    limit = math.inf if max_norm is None else max_norm
    if all(p.grad is None or own_part(p) is p for p in parameters):
        return nn.utils.clip_grad_norm_(parameters, limit)
    # torch takes the norm of those that are split in one way; they are joined here
    split: dict[object, list[Tensor]] = {}
    for p in parameters:
        if p.grad is not None:
            split.setdefault(getattr(p, "device_mesh", None), []).append(p.grad)
    norms = [whole(nn.utils.get_total_norm(gradients)) for gradients in split.values()]
    total = torch.linalg.vector_norm(torch.stack(norms))
    shrink = (limit / (total + 1e-6)).clamp(max=1.0)  # as clip_grad_norm_
    if max_norm is not None:
        for gradients in split.values():
            torch._foreach_mul_([own_part(gradient) for gradient in gradients], shrink)
    return total


def whole(tensor: Tensor) -> Tensor:
    """A tensor put together from the parts of all processes, on each of them."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def unscale_gradients(scaler: torch.amp.GradScaler, parameters: Sequence[Tensor]) -> None:
    """Take the scale of fp16 off every gradient, and note an overflow for the scaler's update. Each
    process sees its own parts alone, which torch would not take beside whole tensors; where any
    of any process overflowed, it did on all, so that they go on with the same scale."""
    if not scaler.is_enabled():
        return
    own: list[Tensor] = []
    for p in parameters:
        if p.grad is not None:
            own.append(own_part(p.detach()))
            own[-1].grad = own_part(p.grad)
    parts: Any = SimpleNamespace(param_groups=[{"params": own}])  # what it asks of an optimizer
    scaler.unscale_(parts)
    for overflow in scaler._found_inf_per_device(parts).values():
        overflow.fill_(highest(int(overflow)))
