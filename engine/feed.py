"""Batches made ahead of the training, and on their way to a GPU while it computes.

    feeding thread   make 2, pin it, copy it      make 3 …      host and side stream
    training         launch 1                     launch 2 …    host and main stream

The host only says where a copy goes; the device waits for it, on the stream that needs it.
"""

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch

from engine.evaluate import PARTS, to_device
from engine.losses import Batch

AHEAD = 3  # batches that wait on a GPU for their turn; on the CPU they share it with the training


def feed(
    batches: Iterable[Batch], device: torch.device, count: Callable[[Batch], int]
) -> Iterator[Batch]:
    """The same batches in the same order, each with its number of items under "items"; on CUDA
    already there. What making one raises is raised in its turn."""
    if device.type != "cuda":
        yield from ahead(({**batch, "items": count(batch)} for batch in batches), size=1)
        return
    side = torch.cuda.Stream(device)

    def send(on_host: Batch) -> tuple[Batch, Any]:
        with torch.cuda.stream(side):
            sent = to_device({**pinned(on_host), "items": count(on_host)}, device)
        return sent, side.record_event()

    for batch, copied in ahead(map(send, batches), AHEAD):
        current = torch.cuda.current_stream(device)
        current.wait_event(copied)
        for tensor in tensors_of(batch):
            tensor.record_stream(current)  # its memory is not the side stream's to give away
        yield batch


def ahead(items: Iterator[Any], size: int) -> Iterator[Any]:
    """The same items in the same order, up to `size` and one more of them made by a thread before
    they are asked for."""
    made: queue.Queue[tuple[str, Any]] = queue.Queue(maxsize=size)
    closed = threading.Event()

    def put(kind: str, item: Any) -> None:
        while not closed.is_set():
            try:
                made.put((kind, item), timeout=0.1)
                return
            except queue.Full:
                continue

    def work() -> None:
        try:
            for item in items:
                put("item", item)
                if closed.is_set():
                    return
            put("end", None)
        except BaseException as error:  # for the one who waits for it
            put("error", error)

    thread = threading.Thread(target=work, name="feed", daemon=True)
    thread.start()
    try:
        while (got := made.get())[0] == "item":
            yield got[1]
        if got[0] == "error":
            raise got[1]
    finally:
        closed.set()
        thread.join()


def pinned(batch: Batch) -> Batch:
    """The batch in memory from which a device copies while the host goes on."""
    parts = {
        part: {name: value.pin_memory() for name, value in batch[part].items()}
        for part in PARTS
        if part in batch
    }
    return {**batch, **parts, "labels": batch["labels"].pin_memory()}


def tensors_of(batch: Batch) -> Iterator[torch.Tensor]:
    """The tensors of a batch that are on its device, those inside a layout included."""
    parts = [value for part in PARTS for value in batch.get(part, {}).values()]
    for value in [*parts, batch["labels"]]:
        inner = [value] if isinstance(value, torch.Tensor) else vars(value).values()
        yield from (one for one in inner if isinstance(one, torch.Tensor) and one.is_cuda)
