"""An epoch from kept states beside the same epoch through the whole model.

    python benchmarks/cached.py
    python benchmarks/cached.py --pairs 5 --steps 20

The rows and the model of configs/imdb_quick.toml, in one process and in turns: so many steps of the
one, then as many of the other. Printed: milliseconds a step of both and their ratio, pair by pair.
What the frozen part costs once is said before; an epoch after the first does without it.
"""

import argparse
import itertools
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import child  # noqa: F401  makes the project importable

from configs.read import read_config
from engine.loop import train_step
from engine.losses import Batch, count_items
from engine.plan import Progress
from job.fit import epoch_batches
from job.job import Job
from job.tasks.table import prepare
from job.training.cached import open_cached

RECIPE = Path(__file__).parents[1] / "configs" / "imdb_quick.toml"
AIMS = {"head": 20.0, "last:1": 2.0}  # times as fast


def open_pair(what: str) -> tuple[Job, Job]:
    """The same run from kept states, and whole."""
    jobs = []
    for cache in ("auto", "off"):
        settings = [f"model.train={what}", f"model.cache={cache}", "train.epochs=100"]
        jobs.append(prepare(read_config(RECIPE, settings, ["lora"]), False))
    kept, whole = jobs
    assert kept.cached is not None, kept.notes
    print(open_cached(kept.cached, kept.encoded, kept.padding, kept.precision))
    return kept, whole


def batches_of(job: Job) -> Iterator[Batch]:
    """Epoch after epoch, as a run meets them."""
    return itertools.chain.from_iterable(epoch_batches(job, epoch, 0) for epoch in range(100))


def run_steps(job: Job, batches: Iterator[Batch], steps: int) -> float:
    """Seconds a step, loading included."""
    job.built.model.train()
    start = time.perf_counter()
    for batch in itertools.islice(batches, steps):
        train_step(
            job.built.model, [batch], job.compute_loss, count_items, job.optimizer, job.scaler,
            job.schedule, job.precision, job.plan, Progress(),
        ).result(Progress())  # fmt: skip
    return (time.perf_counter() - start) / steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--steps", type=int, default=10, help="of each in a pair")
    options = parser.parse_args()
    for what, aim in AIMS.items():
        kept, whole = open_pair(what)
        both = [(job, batches_of(job)) for job in (kept, whole)]
        for job, batches in both:
            run_steps(job, batches, 3)  # first products, first pages
        ratios = []
        for _ in range(options.pairs):
            fast, slow = (run_steps(job, batches, options.steps) for job, batches in both)
            ratios.append(slow / fast)
            print(
                f"model.train = {what}: {1000 * fast:8.2f} ms a step from kept states, "
                f"{1000 * slow:8.2f} ms whole, {slow / fast:7.1f} times as fast"
            )
        middle = statistics.median(ratios)
        print(f"model.train = {what}: median {middle:.1f} times as fast (aim: {aim:g})")


if __name__ == "__main__":
    main()
