"""What rank 0 tells the other processes of a run to do, and sends them.

    rank 0     begin ──> train ────> load the best, test, publish
                 │ pass    │ train      │ weights  │ pass     │ end
    the others   └> share  └> train     └> take    └> share   └> leave

Rank 0 has the folder, the log and the terminal. The others follow (follow.py): they have no folder,
and of what they work out outside the steps nothing is kept but what rank 0 is sent. Within the
steps and the evaluations between them all do the same, and nobody leads.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from engine.checkpoint import optimizer_tensors, put_optimizer_tensors, saved_tensors
from engine.plan import Progress
from engine.world import from_first, spread, world
from job.job import Job

Order = tuple[Literal["pass", "train", "weights", "end"], Any]


def give(job: Job, order: Order) -> None:
    """Have the others do it, where this process leads any."""
    if job.leads:
        from_first(order)


def take() -> Order:
    """What to do next, for all but rank 0."""
    order: Order = from_first(("end", None))
    return order


@contextmanager
def nobody_leads(job: Job) -> Iterator[None]:
    """While all do the same by themselves."""
    leads, job.leads = job.leads, False
    yield
    job.leads = leads


def spread_state(job: Job, progress: Progress, checkpoint: Path | None = None) -> None:
    """Rank 0's weights, optimizer, scaler and counters for all; `progress` is changed in place. Of
    a model in parts they are read from rank 0's `checkpoint`, where it goes on from one."""
    if world().alone:
        return
    own: dict[str, Tensor] = {}
    if world().rank == 0 and not job.in_parts:
        own = optimizer_tensors(job.built.model, job.optimizer)
    state: dict[str, Any] = from_first(
        {
            "progress": vars(progress),
            "scaler": job.scaler.state_dict(),
            "optimizer": {name: tensor.cpu() for name, tensor in own.items()},
            "resumed": checkpoint is not None,
        }
    )
    vars(progress).update(state["progress"])
    if job.in_parts:
        job.scaler.load_state_dict(state["scaler"])
        if state["resumed"]:
            from engine.parts import load_split

            load_split(checkpoint, job.built.model, job.optimizer)
        return
    if world().rank:
        put_optimizer_tensors(state["optimizer"], job.built.model, job.optimizer, "rank 0")
        job.scaler.load_state_dict(state["scaler"])
    spread_weights(job)


def spread_weights(job: Job) -> None:
    """What rank 0's model has learned, for all."""
    spread(saved_tensors(job.built.model).values())
