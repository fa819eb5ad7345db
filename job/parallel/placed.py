"""Where a model is, and how it is called there: in shards what is in no block is gathered first."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor, nn

from engine.losses import Batch
from engine.ways import Way
from models.fast.speed import Speed

Loss = Callable[[nn.Module, Batch], Tensor]


@dataclass(frozen=True)
class Placed:
    """Where a model is. `plain`: on rank 0 of a model in parts, the whole of it as it was built."""

    way: Way
    speed: Speed
    notes: list[str]
    plain: nn.Module | None = None

    @property
    def in_parts(self) -> bool:
        """Whether no process has all of it."""
        return self.way.strategy == "fsdp" or self.way.tensor > 1


def through(placed: Placed | None, compute_loss: Loss) -> Loss:
    """The loss as it is worked out on a model that may be in shards."""
    if placed is None or placed.way.strategy == "ddp":
        return compute_loss
    from engine.sharded import through_whole

    return through_whole(compute_loss)


def settle(placed: Placed | None) -> None:
    """After forward passes that no backward pass follows, of a model that may be in shards."""
    if placed is not None and placed.way.strategy == "fsdp":
        from engine.sharded import settle

        settle()


@contextmanager
def ready(placed: Placed | None) -> Iterator[None]:
    """For forward passes without a loss, of a model that may be in shards."""
    if placed is None or placed.way.strategy == "ddp":
        yield
        return
    from engine.sharded import gathered

    with gathered():
        yield
