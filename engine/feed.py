"""Batches on their way to a GPU while it computes: made ahead, pinned, copied on a stream of its own.

    loader thread   ──make 3──make 4──make 5──────      (host, data/loaders.py)
    feeding thread  ────pin+copy 2──pin+copy 3──        (host, side stream)
    training        ──launch 0──launch 1──launch 2──    (host, main stream)

The host only says where a copy goes; the device waits for it, on the stream that needs it.
"""

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch

from engine.evaluate import to_device
from engine.losses import Batch

AHEAD = 3  # batches on the device before they are needed


def feed(
    batches: Iterable[Batch], device: torch.device, count: Callable[[Batch], int]
) -> Iterator[Batch]:
    """The same batches in the same order, on `device`, with their number of items under "items".
    On the CPU they pass as they are."""
    if device.type != "cuda":
        yield from batches
        return
    side = torch.cuda.Stream(device)

    def send(on_host: Batch) -> tuple[Batch, Any]:
        with torch.cuda.stream(side):
            sent = to_device({**pinned(on_host), "items": count(on_host)}, device)
        return sent, side.record_event()

    for batch, copied in ahead(map(send, batches)):
        current = torch.cuda.current_stream(device)
        current.wait_event(copied)
        for tensor in tensors_of(batch):
            tensor.record_stream(current)  # its memory is not the side stream's to give away
        yield batch


def ahead(items: Iterator[Any], size: int = AHEAD) -> Iterator[Any]:
    """The same items in the same order, up to `size` of them made by a thread before they are asked
    for. What the thread raises is raised here, in its turn."""
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
    inputs = {name: value.pin_memory() for name, value in batch["inputs"].items()}
    return {**batch, "inputs": inputs, "labels": batch["labels"].pin_memory()}


def tensors_of(batch: Batch) -> Iterator[torch.Tensor]:
    """The tensors of a batch that are on its device, those inside a layout included."""
    for value in [*batch["inputs"].values(), batch["labels"]]:
        parts = [value] if isinstance(value, torch.Tensor) else vars(value).values()
        yield from (part for part in parts if isinstance(part, torch.Tensor) and part.is_cuda)
