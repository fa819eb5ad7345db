"""One pass over labelled batches: streaming metrics, no training state touched, memory O(batch)."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from engine.losses import Batch, LossFn, count_items, logits_of
from engine.metrics import Counter
from engine.precision import Precision
from engine.randomness import preserve_randomness
from engine.world import in_order, in_step, world

PARTS = ("inputs", "teacher", "learned")  # of a batch, each a table of tensors


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch with its tensors on `device`; from pinned memory the copy does not block."""
    if device.type == "cpu":
        return batch
    moved = {
        part: {k: v.to(device, non_blocking=True) for k, v in batch[part].items()}
        for part in PARTS
        if part in batch
    }
    return {**batch, **moved, "labels": batch["labels"].to(device, non_blocking=True)}


@contextmanager
def inference(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; every module's own mode and all randomness come back.

    Not inference_mode: a table that a model makes at its first call and keeps must serve training.
    """
    training = [module for module in model.modules() if module.training]
    if training:  # a walk through all modules takes as long as a layer on a short text
        model.eval()
    try:
        with preserve_randomness(), torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True


def answers(
    model: nn.Module, batches: Iterable[Batch], precision: Precision, shared: bool = False
) -> Iterator[tuple[Batch, Tensor]]:
    """Each batch, on its device, with its logits (B, C). To be used within inference().

    `shared`: each process of the run has its share of the batches. All of them get the answers of
    all, in the order of the whole, so that what is counted does not depend on their number; those
    of several come without the inputs.
    """

    def own() -> Iterator[tuple[Batch, Tensor] | None]:
        for on_host, counts in in_step(iter(batches)):
            batch = to_device(on_host, precision.device)
            with precision.autocast():
                logits = logits_of(model(**batch["inputs"]))
            yield (batch, logits) if counts else None

    if not shared or world().alone:
        yield from filter(None, own())
        return
    for batch, logits in in_order(map(send, own())):
        yield to_device({**batch, "inputs": {}}, precision.device), logits.to(precision.device)


def send(answered: tuple[Batch, Tensor] | None) -> tuple[Batch, Tensor] | None:
    """What other processes are sent of a batch and its logits."""
    if answered is None:
        return None
    batch, logits = answered
    few = {name: value for name, value in batch.items() if name not in PARTS}
    return {**few, "labels": batch["labels"].cpu()}, logits.cpu()


def evaluate(
    model: nn.Module,
    batches: Iterable[Batch],
    loss_fn: LossFn,
    counter: Counter,
    precision: Precision,
    on_batch: Callable[[Batch, Tensor], None] | None = None,
    shared: bool = False,
) -> dict[str, Any]:
    """Metrics of `model` over `batches`: "loss" and the counter's results.

    The loss is the sum over all items divided by their number, so an uneven last batch weighs what
    it should. `on_batch(batch, logits)` sees each batch, on its device, and its logits (B, C), to
    write predictions. `shared` as answers() has it.
    """
    device = precision.device
    home = torch.device("cpu") if device.type == "mps" else device  # MPS has no float64
    loss_sum = torch.zeros((), dtype=torch.float64, device=home)
    count = 0
    with inference(model):
        for batch, logits in answers(model, batches, precision, shared):  # (B, C)
            count += count_items(batch)
            loss_sum += loss_fn(logits, batch["labels"]).to(home)
            counter.update(logits, batch["labels"])
            if on_batch is not None:
                on_batch(batch, logits)
    if count == 0:
        raise ValueError("nothing to evaluate: the split has no rows")
    return {"loss": loss_sum.item() / count, **counter.results()}
