"""Which micro-batches make a window, and which of them are this process's."""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice

from engine.losses import Batch
from engine.plan import Plan, window
from engine.world import deal, from_first, sum_counts, world


def windows(batches: Iterable[Batch], plan: Plan, start: int) -> Iterator[list[Batch]]:
    """This process's micro-batches of each window, from that of number `start` to the epoch's end;
    of a ragged one some processes have none. Raises ValueError where `batches` gives others than
    the plan has."""
    iterator, taken = iter(batches), 0
    for first in range(start, plan.micro_batches_per_epoch, plan.accumulate):
        share = len(deal(window(plan, first)))
        own = list(islice(iterator, share))
        taken += len(own)
        if len(own) < share:
            raise wrong_number(plan, start, f"only {taken}")
        yield in_lockstep(own, len(window(plan, first))) if world().lockstep else own
    if next(iterator, None) is not None:
        raise wrong_number(plan, start, f"more than {taken}")


def in_lockstep(own: list[Batch], micro_batches: int) -> list[Batch]:
    """A window's own ones, as many for each process: who has fewer gets a stand-in behind, which is
    worked on like the others and counts for nothing."""
    shares = world().shares
    model = own[-1:]
    if micro_batches < shares:  # some have none at all; rank 0 has
        model = from_first(own[:1])
    missing = -(-micro_batches // shares) - len(own)
    return own + [{**model[0], "rows": model[0]["rows"][:0], "stand_in": True}] * missing


def count_window(micro_batches: list[Batch], count: Callable[[Batch], int]) -> tuple[int, int]:
    """Items and real tokens of a window, those of all processes; stand-ins have none."""
    real = [batch for batch in micro_batches if "stand_in" not in batch]
    items, tokens = sum_counts(
        sum(count(batch) for batch in real), sum(batch.get("tokens", 0) for batch in real)
    )
    return items, tokens


def own_micro_batches(plan: Plan, start: int) -> Iterator[int]:
    """The numbers of an epoch's micro-batches from `start` on that are this process's."""
    for first in range(start, plan.micro_batches_per_epoch, plan.accumulate):
        yield from deal(window(plan, first))


def wrong_number(plan: Plan, start: int, number: str) -> ValueError:
    """The error for an epoch of another length than planned."""
    return ValueError(
        f"batches(epoch, {start}) gave {number} micro-batches; the plan has "
        f"{plan.micro_batches_per_epoch} an epoch: it must give all of them from index start on, "
        "in one of several processes those that are its own"
    )
