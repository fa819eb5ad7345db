"""The machine's settings and the fast paths of a run, from [run] and [speed]."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial

import torch
from torch import nn

from configs.schema import Config
from engine.feed import feed
from engine.losses import Batch, count_items
from engine.machine import (
    choose_threads,
    keep_few_kernels,
    keep_freed_memory,
    use_deterministic_algorithms,
)
from engine.memory import token_budget
from engine.precision import DTYPES, Precision, multiply_in_tf32
from engine.wait_policy import wait_passively
from engine.world import gather
from models.fast.speed import Speed, SpeedArgs, speed_up
from models.fast.streams import lay_out
from models.ngrams.bag import NgramBag

EVALUATION_ROWS = 8  # on a CPU, whose caches more would leave
BAG_ROWS = 64  # of a bag of n-grams, which takes a few bytes for each term


def set_up_torch(config: Config) -> list[str]:
    """Threads and how they wait, kernels, allocator and determinism; a note for each."""
    notes = [choose_threads(config.run.threads), wait_passively(), keep_few_kernels()]
    if config.speed.allocator:
        notes.append(keep_freed_memory())
    else:
        notes.append("allocator: the system's own, as configured")
    if config.run.deterministic:
        notes.append(use_deterministic_algorithms())
    return notes


def speed_up_model(
    model: nn.Module,
    config: Config,
    precision: Precision,
    compiled: bool = False,
    answers: bool = False,
) -> Speed:
    """Put the fast paths of [speed] into a model that is on its device. `compiled`: torch.compile
    will see it; `answers`: it has a few texts to answer, for which nobody waits for a compiler."""
    args = SpeedArgs(**config.speed.model_dump(exclude={"allocator"}))
    if answers:
        args = replace(args, compile=False)
    dtype = DTYPES[precision.dtype]
    speed = speed_up(model, args, precision.device, dtype, compiled)
    tf32 = config.precision.tf32
    if note := multiply_in_tf32(precision, tf32):
        (speed.notes if tf32 else speed.details).append(note)
    return speed


def evaluation_rows(config: Config, model: nn.Module, device: torch.device) -> int:
    """Rows of data.max_length in one forward pass of an evaluation or a prediction; of several
    processes, whose GPUs may hold more or less, what all can: they deal the same batches out."""
    if config.eval.micro_batch_size != "auto":
        return config.eval.micro_batch_size
    if isinstance(model, NgramBag):
        return BAG_ROWS
    if device.type != "cuda":
        return EVALUATION_ROWS
    return max(1, min(gather(token_budget(model, device))) // config.data.max_length)


def feed_batches(batches: Iterable[Batch], speed: Speed, device: torch.device) -> Iterator[Batch]:
    """Batches as the model takes them, ahead of the training and on its device: the host, which
    knows the lengths, says where the texts lie in the stream."""
    if speed.streams:
        batches = map(partial(lay_out, in_front=speed.in_front), batches)
    return feed(batches, device, count_items)
