"""A bag of n-grams beside the encoder of a run: fitted, weighed, and tested beside it.

What each of the two says of a split is worked out once, (N, C) logits in the order of its rows;
everything is measured on these.
"""

import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from data.bags import encode_bags, filled_rows, flat_terms
from data.cache import cache_root
from engine.decision import Decision
from engine.evaluate import answers, inference
from engine.losses import Batch, LossFn
from engine.memory import give_back_memory
from engine.precision import Precision
from engine.stop import StopRequest
from job.fit import split_batches
from job.job import Job
from job.rows import text_columns
from job.testing.scorer import labels_of, scorer_of
from models.ngrams.bag import NgramBag, NgramTokenizer
from models.ngrams.fit import Terms, fit_bag, join_terms
from models.ngrams.fusion import Fusion, Weights, fit_weights
from report.format import format_seconds
from report.fusion import fusion_line

ENCODER, BAG_ALONE, BOTH = "encoder alone", "bag alone", "both"


def collect_logits(
    model: nn.Module, batches: Iterable[Batch], rows: Any, precision: Precision
) -> Tensor:
    """What a model says of `rows`, all of a split or some: (N, C) fp32 on the host, in their order.
    `batches` are those of the split."""
    places = {row: place for place, row in enumerate(rows["row"])}
    collected: Tensor | None = None
    with inference(model):
        for batch, logits in answers(model, batches, precision, shared=True):  # (B, C)
            if collected is None:
                collected = torch.zeros(len(places), logits.shape[1])
            numbers = [places.get(row, -1) for row in batch["rows"].tolist()]
            wanted = [place for place, number in enumerate(numbers) if number >= 0]
            collected[[numbers[place] for place in wanted]] = logits.float().cpu()[wanted]
    assert collected is not None
    return collected


def terms_of(
    rows: Any, tokenizer: NgramTokenizer, fingerprint: str, cached: bool
) -> tuple[Terms, np.ndarray]:
    """The terms of a split's texts, and (V,) in how many rows each bucket is met."""
    cache = cache_root() if cached else None
    encoded = encode_bags(rows, tokenizer, cache, fingerprint)
    terms = Terms(*(torch.from_numpy(part) for part in flat_terms(encoded)))
    return terms, filled_rows(encoded, 1 << tokenizer.bits)


def training_rows(
    job: Job, read: Callable[[Any], tuple[Terms, np.ndarray]]
) -> tuple[Terms, Tensor, np.ndarray]:
    """The terms and labels of all rows that the bag learns from, the encoder's first, and (V,) in
    how many each bucket is met."""
    parts = [job.data.splits["train"], *([job.data.left_out] if job.data.left_out else [])]
    pieces, filled = zip(*map(read, parts), strict=True)
    labels = torch.cat([labels_of(rows) for rows in parts])
    return join_terms(pieces), labels, np.sum(filled, axis=0)


def try_fuse(
    job: Job, say: Callable[[str], None], stop: StopRequest
) -> tuple[Fusion | None, Tensor | None]:
    """fuse(); no bag where none is asked for. What goes wrong with one is said, and takes nothing
    from what the encoder has learned: (N, C) of that alone are given then. Raises Stopped where it
    was asked to end meanwhile."""
    if job.config.bag is None:
        return None, None
    # apart from what may go wrong: other processes do their share, and nobody goes on without them
    batches, rows = stop.guard(split_batches(job, "validation")), job.data.splits["validation"]
    encoder = collect_logits(job.built.model, batches, rows, job.precision)
    try:
        return fuse(job, encoder, say, stop)
    except (RuntimeError, ValueError, MemoryError) as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        say(f"WARNING: the encoder stands alone, a bag could not be put beside it: {reason}")
        return None, encoder


def fuse(
    job: Job, encoder: Tensor, say: Callable[[str], None], stop: StopRequest
) -> tuple[Fusion, Tensor]:
    """Fit a bag on the training rows and weigh it beside the trained encoder, whose logits (N, C)
    of the validation rows these are; says what came of it. Also gives (N, C) what both together say
    of them. Raises Stopped where it was asked to end meanwhile."""
    give_back_memory()  # else what the steps freed would stand beside what the bag takes
    start, held_out = time.perf_counter(), job.data.splits["validation"]
    tokenizer = NgramTokenizer(len(text_columns(job.config)))
    read = partial(
        terms_of, tokenizer=tokenizer, fingerprint=job.data.fingerprint,
        cached=job.config.data.cache,
    )  # fmt: skip
    terms, labels, filled = training_rows(job, read)
    held_out_terms, _ = read(held_out)
    held_out_labels, loss_fn = labels_of(held_out), host_loss(job)
    give_back_memory()  # of the counting
    bag = NgramBag(1 << tokenizer.bits, job.num_labels)
    bag.weigh(filled, len(labels))
    strength = fit_bag(
        bag, terms, lambda logits: loss_fn(logits, labels),
        held_out_terms, lambda logits: loss_fn(logits, held_out_labels), stop.check,
    )  # fmt: skip
    took = format_seconds(time.perf_counter() - start)
    say(f"bag of n-grams: fitted on {len(labels):,} rows in {took}, strength {strength:g}")
    alone = Fusion(bag.eval(), tokenizer, Weights(0.0, 1.0, 0))
    beside = alone.answer_terms(held_out_terms)
    weights = fit_weights(
        encoder, beside, job.data.kind, lambda logits: loss_fn(logits, held_out_labels)
    )
    say(fusion_line(weights.encoder, weights.bag, weights.rows))
    return Fusion(bag, tokenizer, weights), weights.join(encoder, beside)


def host_loss(job: Job) -> LossFn:
    """The run's loss for logits and labels on the host. One of the user's own gets them in fp32, as
    it was tried: it may hold constants, and not every device knows float64."""
    device = job.precision.device
    fp32 = job.config.train.loss is not None or device.type == "mps"

    def loss_fn(logits: Tensor, labels: Tensor) -> Tensor:
        taken = logits.float() if fp32 else logits
        return job.loss_fn(taken.to(device), labels.to(device)).to(logits)

    return loss_fn


def fused_logits(
    model: nn.Module, fusion: Fusion, batches: Iterable[Batch], rows: Any,
    fingerprint: str, cached: bool, precision: Precision,
) -> dict[str, Tensor]:  # fmt: skip
    """(N, C) of the encoder alone, the bag alone, and both, over the rows of a split."""
    encoder = collect_logits(model, batches, rows, precision)
    terms, _ = terms_of(rows, fusion.tokenizer, fingerprint, cached)
    bag = fusion.answer_terms(terms)
    return {ENCODER: encoder, BAG_ALONE: bag, BOTH: fusion.weights.join(encoder, bag)}


def test_fused(
    job: Job, fusion: Fusion, decision: Decision, stop: StopRequest,
    on_batch: Callable[[Batch, Tensor], None],
) -> dict[str, dict[str, Any]]:  # fmt: skip
    """The test metrics of each alone, and of both, whose logits `on_batch` sees, and which the
    `decision` was fitted for."""
    rows = job.data.splits["test"]
    logits = fused_logits(
        job.built.model, fusion, stop.guard(split_batches(job, "test")), rows,
        job.data.fingerprint, job.config.data.cache, job.precision,
    )  # fmt: skip
    both = scorer_of(job, decision).score(rows, logits.pop(BOTH), on_batch)
    return {name: scorer_of(job).score(rows, part) for name, part in logits.items()} | {BOTH: both}
