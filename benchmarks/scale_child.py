"""One process of scale.py: it takes the steps of a recipe with others, and says what they took.

scale_child.py '{"config": …, "words": […], "steps": 10, "warm_up": 2}'   with RANK and so on
"""

import json
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import Any

from child import answer, wait_for_device  # first: it makes the project importable

LINK_TIMES = 5  # sums of a plain buffer, after one that does not count


class Sums:
    """The time in torch's all_reduce and the bytes given to it: on a GPU between two events of its
    stream, else by the clock."""

    def __init__(self) -> None:
        import torch.distributed as dist

        self.bytes, self.seconds, self.events = 0, 0.0, []  # type: tuple[int, float, list[Any]]
        self.plain: Callable[..., Any] = dist.all_reduce
        dist.all_reduce = self.reduce  # the engine asks for it by this name at each step

    def reduce(self, tensor: Any, *words: Any, **named: Any) -> Any:
        """As all_reduce does it."""
        import torch

        self.bytes += tensor.nbytes
        if tensor.device.type == "cuda":
            before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            before.record()
            result = self.plain(tensor, *words, **named)
            after.record()
            self.events.append((before, after))
            return result
        start = time.perf_counter()
        result = self.plain(tensor, *words, **named)
        self.seconds += time.perf_counter() - start
        return result

    def restart(self) -> None:
        self.bytes, self.seconds, self.events = 0, 0.0, []

    def waited(self) -> float:
        """Seconds since restart()."""
        wait_for_device()
        return self.seconds + sum(one.elapsed_time(other) for one, other in self.events) / 1e3


def measure(config: Any, steps: int, warm_up: int) -> dict[str, Any]:
    """The steps of a recipe after a warm-up: seconds, tokens, waiting and bytes of this rank."""
    from openloop import open_job
    from engine import loop
    from engine.losses import count_items
    from engine.plan import Progress
    from engine.stop import StopRequest
    from engine.world import world
    from job.fit import epoch_batches

    job, plain = open_job(config), loop.train_step
    job.task.begin(job, None)
    sums = None if world().alone else Sums()
    results: list[Any] = []
    begun: list[float] = []

    def timed_step(*words: Any) -> Any:
        if len(begun) == warm_up:
            wait_for_device()
            if sums:
                sums.restart()
        begun.append(time.perf_counter())
        return plain(*words)

    loop.train_step = timed_step  # type: ignore[assignment]  # any words, any result
    job.fit(
        job.built.model, lambda epoch, start: epoch_batches(job, epoch, start), job.compute_loss,
        count_items, job.optimizer, job.scaler, job.schedule, job.precision, job.plan, Progress(),
        lambda result, *_: results.append(result), lambda _: None, lambda _: None, StopRequest(),
    )  # fmt: skip
    wait_for_device()
    seconds = time.perf_counter() - begun[warm_up]
    if len(results) != steps + warm_up:
        raise ValueError(f"{len(results)} steps are fewer than {steps + warm_up}: give more rows")
    trained = loop.trained(job.optimizer)
    return {
        "seconds": seconds, "steps": steps, "tokens": sum(r.tokens for r in results[warm_up:]),
        "loss": results[-1].loss, "waiting": sums.waited() if sums else 0.0,
        "summed_bytes": sums.bytes if sums else 0, "device": job.precision.device.type,
        "gradient_bytes": sum(p.nbytes for p in trained), **link(sums, trained),
    }  # fmt: skip


def link(sums: Sums | None, trained: list[Any]) -> dict[str, Any]:
    """Seconds of a plain sum of as many bytes as the gradients have, the quickest of some."""
    if sums is None:
        return {"link_s": None, "backend": "none"}
    import torch
    import torch.distributed as dist

    buffer = torch.zeros(sum(p.numel() for p in trained), device=trained[0].device)
    times = []
    for _ in range(1 + LINK_TIMES):
        dist.barrier()
        wait_for_device()
        start = time.perf_counter()
        sums.plain(buffer)
        wait_for_device()
        times.append(time.perf_counter() - start)
    backend = "nccl" if buffer.device.type == "cuda" else "gloo"
    return {"link_s": min(times[1:]), "backend": backend}


def main() -> None:
    settings, unset = json.loads(sys.argv[1]), ["samples"]
    from engine.wait_policy import wait_passively

    wait_passively()  # before torch is loaded, as train.py does
    from configs.read import read_config

    with redirect_stdout(sys.stderr):  # the plan
        config = read_config(settings["config"], settings["words"], unset)
        measured = measure(config, settings["steps"], settings["warm_up"])
    from engine.world import leave

    leave()
    answer(measured)


if __name__ == "__main__":
    main()
