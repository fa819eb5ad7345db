"""The frozen part of a model, run once a row: whether that pays, where it is kept, what to say.

models/cut.py cuts the model, data/kept.py keeps what comes out below; here they meet. The choice is
a function of the recipe, the model and, where space is short, the disk; a checkpoint records it.
"""

import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from configs.schema import Config
from data.cache import HOME, cache_root, code_digest, make_key
from data.encode import Encoded
from data.kept import Kept, open_kept, pad_states, vector_inputs
from data.loaders import Batch, Padding, collate, eval_batches
from engine.checkpoint import environment
from engine.evaluate import inference, to_device
from engine.plan import Plan
from engine.precision import DTYPES, Precision
from files.errors import meets_limit
from job.training.probe import ROWS
from models.build import Built
from models.cut import Cut, find_cut
from models.fast.speed import Speed
from models.ngrams.bag import NgramBag
from report.format import format_bytes, format_seconds

AT_ONCE = 8  # rows of the longest in a pass; always so many: other sums round otherwise
# what makes the states
CODE = ("models", "job/training/cached.py", "engine/evaluate.py", "engine/precision.py")
MOST_BYTES = 20 * 10**9  # of kept states on disk, together
MOST_OF_DISK = 0.5  # of what is free
WORTH = 1.2  # times that a row is read at least, on average, for each time it is computed


@dataclass
class Cached:
    """A cut whose states are to be kept, or are. `seconds`: about what a missing split costs."""

    cut: Cut
    dtype: torch.dtype
    folders: dict[str, Path]
    sizes: dict[str, int]  # bytes
    seconds: dict[str, float]
    kept: dict[str, Kept] = field(default_factory=dict)  # once they are opened

    @property
    def missing(self) -> list[str]:
        """Splits whose states are not there; what is there is verified when it is opened."""
        return [name for name, folder in self.folders.items() if not folder.exists()]

    @property
    def line(self) -> str:
        """What is kept, as a checkpoint records it."""
        return f"{self.cut.sentence}, {str(self.dtype).removeprefix('torch.')}"

    def lines(self) -> list[str]:
        """For the plan: size, time, hit or miss."""
        missing = self.missing
        splits = [f"{name} {'miss' if name in missing else 'hit'}" for name in self.folders]
        line = (
            f"cache of the frozen part: {self.line}; {format_bytes(sum(self.sizes.values()))} in "
            f"{cache_root() / 'kept'}; {', '.join(splits)}"
        )
        if missing:
            seconds = sum(self.seconds[name] for name in missing)
            line += f"; computed once before step 1, in about {format_seconds(seconds)}"
        return [line, "dropout below that place is off: every epoch sees the same states"]

    def batch_of(self, batch: Batch) -> Batch:
        """A padded batch with what is kept of it, as those of training have it."""
        with torch.no_grad():
            states = self.cut.keep(batch["inputs"]).to(self.dtype)
        inputs = batch["inputs"]
        if self.cut.vectors:
            return {**batch, "inputs": vector_inputs(states)}
        kept = {"kept": pad_states(states, inputs["attention_mask"])}
        return {**batch, "inputs": {**inputs, **kept}}


def choose_cache(
    config: Config, built: Built, encoded: Mapping[str, Encoded], padding: Padding,
    precision: Precision, plan: Plan, speed: Speed, rows: int,
) -> tuple[Cached | None, list[str]]:  # fmt: skip
    """The cut that pays, put into the model, and lines for the plan; None, and the reason, where
    there is none. An epoch reads `rows`. Nothing is said of a run that leaves no part of the
    backbone frozen."""
    freezes = config.model.train not in (None, "all")
    if isinstance(built.model, NgramBag):
        return None, []
    layer, reason = find_cut(built.model)
    if reason is not None and not freezes:
        return None, []
    if config.model.cache == "off":
        reason = reason or "as configured"
    elif config.distill is not None and config.distill.hidden:
        reason = reason or "distill.hidden reads what every layer leaves"
    elif config.data.stream:
        reason = reason or "training rows stream, and what would be kept of them is larger"
    elif config.model.compile:
        reason = reason or "torch.compile sees the whole model"
    reason = reason or why_not_worth(encoded, plan, rows)
    if reason is None:
        cached = put_in(built, layer, encoded, precision, speed)
        reason = why_no_room(cached, encoded) or why_unproven(cached, encoded, padding, precision)
        if reason is None:
            return cached, cached.lines()
        cached.cut.remove()
    return None, [f"cache of the frozen part: none, {reason}"]


def put_in(
    built: Built, layer: int | None, encoded: Mapping[str, Encoded], precision: Precision,
    speed: Speed,
) -> Cached:  # fmt: skip
    """The cut in the model, and the places of what is kept: under the hash of the rows as they are
    encoded, of all that is frozen, of this machine's ways to round, and of the code."""
    cut = Cut(built.model, layer)
    dtype = torch.float32 if cut.vectors else DTYPES[precision.dtype]
    if dtype == torch.float16:  # whose range some layers leave
        dtype = torch.float32
    states = make_key(
        model=cut.digest(),
        dtype=str(dtype),
        at_once=AT_ONCE,
        environment=environment(precision, speed.resolved),
        code=code_digest(*(HOME / name for name in CODE)),
    )
    keys = {name: make_key(states=states, rows=split.key) for name, split in encoded.items()}
    folders = {name: cache_root() / "kept" / key[:32] for name, key in keys.items()}
    width = cut.backbone.config.get_text_config().hidden_size * dtype.itemsize
    sizes = {n: (s.rows if cut.vectors else s.tokens) * width for n, s in encoded.items()}
    return Cached(cut, dtype, folders, sizes, {})


def why_not_worth(encoded: Mapping[str, Encoded], plan: Plan, rows: int) -> str | None:
    """Where rows are hardly read more often than they would be computed, the arithmetic."""
    epochs = plan.total_steps / plan.steps_per_epoch
    evaluations = epochs if plan.evaluate_every is None else plan.total_steps / plan.evaluate_every
    times = {"validation": max(1.0, evaluations), "test": 1.0}
    held_out = {name: split for name, split in encoded.items() if name != "train"}
    reads = rows * epochs + sum(split.rows * times[name] for name, split in held_out.items())
    computed = sum(split.rows for split in encoded.values())
    if reads >= WORTH * computed:
        return None
    return (
        f"{epochs:.3g} epoch{'' if epochs == 1 else 's'} with evaluations and the test read "
        f"{reads:,.0f} rows, and {computed:,} would be computed for it"
    )


def why_no_room(cached: Cached, encoded: Mapping[str, Encoded]) -> str | None:
    """Where what is missing takes more than it may, the arithmetic."""
    place = cache_root()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    needed = sum(cached.sizes[name] for name in cached.missing)
    most = min(MOST_BYTES, int(MOST_OF_DISK * free))
    if needed <= most:
        return None
    tokens = sum(encoded[name].tokens for name in cached.missing)
    return (
        f"{tokens:,} tokens would take {format_bytes(needed)}, and it may have "
        f"{format_bytes(most)}: at most {format_bytes(MOST_BYTES)} and {MOST_OF_DISK:.0%} of the "
        f"{format_bytes(free)} that are free in {place}"
    )


def why_unproven(
    cached: Cached, encoded: Mapping[str, Encoded], padding: Padding, precision: Precision
) -> str | None:
    """Try the cut on the first training rows: why it does not give the head the same, None where it
    does. Notes what a row takes."""
    split = encoded["train"]
    rows = [split.dataset[row % split.rows] for row in range(ROWS)]
    whole = to_device(collate(rows, padding), precision.device)
    try:
        with inference(cached.cut.model), precision.autocast():
            kept = cached.batch_of(whole)
            reason = cached.cut.differs(whole["inputs"], kept["inputs"])
            start = time.perf_counter()
            cached.batch_of(whole)["inputs"]["kept"].sum().item()  # waits for a device
            seconds = time.perf_counter() - start
    except Exception as error:  # whatever a model's own code raises: it then runs whole
        if meets_limit(error):
            raise
        words = " ".join(str(error).split())[:200]
        return f"this model does not run from the cut ({type(error).__name__}: {words})"
    each = seconds / whole["tokens"]
    cached.seconds.update({name: each * split.tokens for name, split in encoded.items()})
    return reason


def open_cached(
    cached: Cached, encoded: Mapping[str, Encoded], padding: Padding, precision: Precision
) -> str:
    """Open the states of all splits, computing what is missing; what happened, as a line."""
    start, splits = time.perf_counter(), []
    for name, split in encoded.items():
        made = compute_states(cached, split, padding, precision)
        kept = open_kept(cached.folders[name], split, cached.cut.vectors, cached.dtype, made)
        cached.kept[name] = kept
        splits.append(f"{name} {'hit' if kept.hit else 'computed'}")
    took = format_seconds(time.perf_counter() - start)
    return f"cache of the frozen part: {', '.join(splits)}, in {took}"


def compute_states(
    cached: Cached, split: Encoded, padding: Padding, precision: Precision
) -> Iterator[tuple[list[int], Tensor]]:
    """(numbers of rows, their states) for all rows of a split, longest rows first."""
    place = {row: number for number, row in enumerate(split.dataset["row"])}
    with inference(cached.cut.model):
        for batch in eval_batches(split.dataset, AT_ONCE, padding):
            moved = to_device(batch, precision.device)
            with precision.autocast():
                states = cached.cut.keep(moved["inputs"])
            yield [place[row] for row in batch["rows"].tolist()], states
