"""What a run will need: its largest batches, which are known beforehand, and a small probe."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn

from configs.schema import Config
from data.encode import Encoded
from data.loaders import Padding, collate, fill_batches
from data.long import widest_window
from data.pairs import Order
from data.prepare import Data, learnt_rows
from engine.estimate import Estimate, estimate, repeat
from engine.evaluate import inference, to_device
from engine.losses import Batch
from engine.plan import Plan
from engine.precision import Precision
from job.predicting.predictor import length_args
from job.rows import text_columns
from job.training.cached import Cached
from models.ngrams.bag import NgramTokenizer

Collate = Callable[[Sequence[Mapping[str, Any]], Padding], Batch]

PROBE_TOKENS = 512  # so many that activations outweigh the gradient of any one parameter
SAMPLED = 64  # training rows whose terms are counted before the run
BYTES_A_TERM = 90  # in models/ngrams/fit.py, where rows and buckets each have an order: measured
FITS = 8  # times as long as counting a text's terms take keeping them and the fit: measured
WEIGHTS = 20  # times that L-BFGS and the path over strengths hold the weights


@dataclass(frozen=True)
class BagNeeds:
    """Bytes at the peak and seconds of a bag beside an encoder."""

    bytes: int
    seconds: float


def measure_needs(
    model: nn.Module, compute_loss: Callable[[nn.Module, Batch], Tensor],
    encoded: Mapping[str, Encoded], order: Order, padding: Padding, precision: Precision,
    plan: Plan, micro_batch_size: int, evaluation_rows: int, streams: bool,
    cached: Cached | None = None, collate: Collate = collate,
) -> Estimate:  # fmt: skip
    """Memory and time by a probe of the longest training row, several times where it is short.
    `streams`: padding costs nothing; `cached`: steps begin at its cut."""
    longest = int(row_lengths(encoded["train"]).argmax())
    probe = collate([encoded["train"].dataset[longest]], padding)
    if cached is not None:
        probe = to_device(probe, precision.device)
        with inference(model), precision.autocast():
            probe = cached.batch_of(probe)
        if cached.cut.vectors:
            evaluation_rows *= int(row_lengths(encoded["train"])[longest])
    lengths = {name: row_lengths(split, cached, streams) for name, split in encoded.items()}
    copies = PROBE_TOKENS // int(lengths["train"][longest]) // order.together
    probe = repeat(probe, max(1, copies) * order.together)
    held_out = [
        held_out_tokens(
            rows, evaluation_rows, padding.multiple,
            adds_up(encoded[name], streams), widest_of(encoded[name], cached),
        )
        for name, rows in lengths.items()
        if name != "train"
    ]  # fmt: skip
    return estimate(
        model, compute_loss, probe, precision,
        tokens=most_tokens(
            lengths["train"], order, plan, micro_batch_size, adds_up(encoded["train"], streams)
        ),
        evaluated=max(held_out, default=0),
    )  # fmt: skip


def describe_idle(idle: Sequence[str], own: Mapping[str, Sequence[str]]) -> list[str]:
    """A line on trained parameters that no gradient of the probe reached; none where all had one.
    `own` lists by module the parameters that a method added: one that starts at zero keeps the
    others of its module without a gradient for a step, so a module counts as a whole. Raises
    ValueError where every one of them is idle: nothing would be learned."""
    unused = {name: parts for name, parts in own.items() if set(parts) <= set(idle)}
    if unused and len(unused) == len(own):
        raise ValueError(
            f"the model's answer depends on none of the {len(own)} places that the method changes "
            f"({shorten(list(unused))}); choose others, as with lora.targets = 'all-linear'"
        )
    waiting = {part for parts in own.values() for part in parts}
    idle = [name for name in idle if name not in waiting] + list(unused)
    if not idle:
        return []
    return [
        f"in a trial step no gradient reached {len(idle)} of the parameter tensors that train; "
        f"those that no text reaches stay as they are: {shorten(idle)}"
    ]


def shorten(names: Sequence[str], most: int = 6) -> str:
    """The first names, and how many more there are."""
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest


def held_out_tokens(
    lengths: np.ndarray, size: int, multiple: int, streams: bool, widest: int | None = None
) -> int:
    """Tokens of the largest batch of an evaluation of rows with these many (N,): the batches of
    short rows hold more of them, and in a stream more tokens."""
    batches = fill_batches(lengths.tolist(), size, multiple, widest)
    if streams:
        return max((int(lengths[batch].sum()) for batch in batches), default=0)
    widths = [-(-int(lengths[batch].max()) // multiple) * multiple for batch in batches]
    counts = [len(batch) for batch in batches]
    return max((w * n for w, n in zip(widths, counts, strict=True)), default=0)


def row_lengths(encoded: Encoded, cached: Cached | None = None, streams: bool = True) -> np.ndarray:
    """Tokens (N,) of each row that a step computes: of a kept vector, one; of windows that are
    padded, as many as of the longest window for each."""
    if cached is not None and cached.cut.vectors:
        return np.ones(encoded.rows, dtype=np.int64)
    widest = None if streams else widest_of(encoded, cached)
    if widest is not None:
        return widest * np.array([len(windows) for windows in encoded.dataset["windows"]])
    return encoded.dataset.with_format("numpy")["length"][:]


def widest_of(encoded: Encoded, cached: Cached | None = None) -> int | None:
    """Tokens of the longest window; None where a step computes a row a text, or a kept vector."""
    if "windows" not in encoded.dataset.column_names or (cached and cached.cut.vectors):
        return None
    return widest_window(encoded.dataset["windows"])


def adds_up(encoded: Encoded, streams: bool) -> bool:
    """Whether the tokens of a batch are those of its rows together: in a stream, and in windows,
    each of which is padded on its own."""
    return streams or "windows" in encoded.dataset.column_names


def batch_tokens(lengths: np.ndarray, size: int, streams: bool) -> np.ndarray:
    """Tokens that each batch of `size` rows computes, from those of the rows (N,) in their order:
    its own, or where batches are padded those of its longest row for each."""
    starts = np.arange(0, len(lengths), size)
    if streams:
        return np.add.reduceat(lengths, starts)
    rows = np.diff(np.append(starts, len(lengths)))
    return np.maximum.reduceat(lengths, starts) * rows


def most_tokens(
    lengths: np.ndarray, order: Order, plan: Plan, micro_batch_size: int, streams: bool
) -> int:
    """Tokens of the largest micro-batch that a run will see: the order of its rows is counted. Of a
    stream, whose `lengths` are a sample, what a micro-batch of the longest would have."""
    if order.streamed:
        return micro_batch_size * int(lengths.max())
    most, epochs = 0, math.ceil(plan.total_steps / plan.steps_per_epoch)
    for epoch in range(epochs):
        steps = min(plan.steps_per_epoch, plan.total_steps - epoch * plan.steps_per_epoch)
        seen = batch_tokens(lengths[order.epoch(epoch)], micro_batch_size, streams)
        most = max(most, int(seen[: steps * plan.accumulate].max()))
    return most


def memory_advice(config: Config) -> str:
    """What to lower where a run takes more memory than there is. Of these eval.micro_batch_size
    alone leaves the training as it was, so that a run can go on."""
    length = f"data.max_length (now {config.data.max_length})"
    if config.data.long == "chunks":
        length += f" or data.max_windows (now {length_args(config).most_windows})"
    return (
        f"Lower train.micro_batch_size (now {config.train.micro_batch_size}) and raise "
        f"train.accumulate (now {config.train.accumulate}) as much: the same steps in less memory. "
        f"A lower {length} and "
        "model.activation_checkpointing = true save more. All of them make another run of it: use "
        "another run.name, or --fresh. Where an evaluation ran out, lower eval.micro_batch_size, "
        "and --resume goes on"
    )


def measure_bag(config: Config, data: Data, num_labels: int) -> BagNeeds | None:
    """What a bag beside the encoder will need, from the terms of some training rows and the time to
    count them; None without one."""
    if config.bag is None:
        return None
    train, tokenizer = data.splits["train"], NgramTokenizer(len(text_columns(config)))
    rows = len(learnt_rows(data))
    sample = train[:: max(1, len(train) // SAMPLED)]
    start = time.perf_counter()
    buckets, _, ends = tokenizer.count(sample["text"], sample.get("text_pair"))
    seconds = (time.perf_counter() - start) / (len(ends) - 1) * rows
    terms = len(buckets) / (len(ends) - 1) * rows
    weights = min(terms, 1 << tokenizer.bits) * num_labels * 4
    return BagNeeds(int(BYTES_A_TERM * terms + WEIGHTS * weights), FITS * seconds)
