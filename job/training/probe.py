"""A user's own code, tried on a few rows before step 1: what it gives must be what a step takes."""

import inspect
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from data.encode import Encoded
from data.loaders import Padding, collate
from engine.estimate import repeat
from engine.evaluate import inference, to_device
from engine.loop import fit
from engine.losses import Batch, loss_from_logits
from engine.precision import Precision
from engine.randomness import preserve_randomness
from files.errors import meets_limit
from job.parallel.placed import settle, through
from models.args import ModelArgs
from models.build import Built
from models.code import code_file, where_raised
from models.heads import Classifier

if TYPE_CHECKING:
    from job.job import Job
    from job.training.distill import Distilled

ROWS = 3  # not two, which many labels have too: (B, C) must not look like (C, B)
DOUBLED = 0.01  # how far from twice the loss that of twice the rows may lie


def make_probe(encoded: Encoded, padding: Padding, precision: Precision) -> Batch:
    """The first training rows, as one padded batch on the device."""
    rows = [encoded.dataset[row % encoded.rows] for row in range(ROWS)]
    return to_device(collate(rows, padding), precision.device)


def check_head(
    built: Built, args: ModelArgs, encoded: Encoded, padding: Padding, precision: Precision
) -> None:
    """Call a head from a user's own file once. Raises ValueError where it fails, and where what it
    returns is no logits (B, C), with its file and the shapes; heads of ours are not tried."""
    model, file = built.model, code_file(args.head_kind)
    if file is None or not isinstance(model, Classifier):
        return
    batch = make_probe(encoded, padding, precision)
    batch["inputs"].pop("windows", None)  # of texts in windows each window is a row to the head
    got: list[Tensor] = []
    hook = model.head.register_forward_pre_hook(lambda _, inputs: got.extend(inputs))
    try:
        with inference(model), precision.autocast():
            logits = model(**batch["inputs"])
    except Exception as error:  # whatever the user's own code raises
        if not got or meets_limit(error):  # not the head's: the backbone comes before it
            raise
        hidden, mask = (shape(tensor) for tensor in got)
        raise ValueError(
            f"head.kind {args.head_kind!r}: forward(hidden {hidden}, mask {mask}) failed: "
            f"{where_raised(error, file)}"
        ) from error
    finally:
        hook.remove()
    expected = (len(batch["inputs"]["input_ids"]), args.num_labels)
    if not (isinstance(logits, Tensor) and logits.shape == expected and logits.is_floating_point()):
        hidden, mask = (shape(tensor) for tensor in got)
        raise ValueError(
            f"head.kind {args.head_kind!r}: forward(hidden {hidden}, mask {mask}) returned "
            f"{shape(logits)}; expected logits (B, C), here {expected}: one row a text and "
            f"num_labels = {args.num_labels} columns of floating-point numbers"
        )


@contextmanager
def trial_step(source: str) -> Iterator[None]:
    """A model's own code that fails in the trial step becomes a ValueError with the place: nobody
    has to read a traceback to learn that an architecture does not go with texts as they are. What a
    limit on memory or threads causes stays as it is."""
    try:
        yield
    except (ValueError, AssertionError):  # in words already, or our own mistake
        raise
    except Exception as error:  # whatever a model's code raises
        if meets_limit(error):
            raise
        last = traceback.extract_tb(error.__traceback__)[-1]
        words = " ".join(str(error).split())[:300]
        raise ValueError(
            f"model.source {source!r} fails on a batch of texts before step 1: "
            f"{type(error).__name__}: {words} ({last.filename}:{last.lineno}); "
            "precision.dtype = 'fp32' or --plain may help, else choose another model"
        ) from error


def shape(value: Any) -> str:
    """A tensor by its shape, and its dtype where it holds no floating-point numbers; other things
    by their type."""
    if not isinstance(value, Tensor):
        return f"a {type(value).__name__}"
    exact = "" if value.is_floating_point() else f" of {str(value.dtype).removeprefix('torch.')}"
    return f"{tuple(value.shape)}{exact}"


def replaced(job: "Job") -> dict[str, str]:
    """What a program put into the job in place of ours, by field: where it stands in which file."""
    parts = {}
    if job.compute_loss is not job.probed_loss:
        parts["compute_loss"] = where_defined(job.compute_loss)
    if job.fit is not fit:
        parts["fit"] = where_defined(job.fit)
    return parts


def where_defined(function: Callable) -> str:
    """A function by file and name; an object by those of its class."""
    named: Any = function if hasattr(function, "__qualname__") else type(function)
    try:
        file = Path(inspect.getfile(named)).name
    except (OSError, TypeError):
        file = "unknown"  # typed in, or built in
    return f"{file}:{named.__qualname__}"


def try_loss(
    compute_loss: Callable[[nn.Module, Batch], Tensor], made: "Distilled | None"
) -> Callable[[nn.Module, Batch], Tensor]:
    """The same loss for batches that no teacher has seen."""
    if made is None:
        return compute_loss
    return lambda model, batch: compute_loss(model, made.blank(batch))


def check_loss(job: "Job") -> list[str]:
    """Notes on what a program put in place of ours. A loss is tried on a few rows, without dropout.

    Raises ValueError where it gives no number that can be minimised.
    """
    notes = [f"{name} is a program's own: {place}" for name, place in replaced(job).items()]
    ours = job.compute_loss is job.probed_loss
    if ours and job.config.train.loss is None:
        return notes
    model = job.built.model
    place = job.config.train.loss if ours else where_defined(job.compute_loss)
    batch = make_probe(job.encoded["train"], job.padding, job.precision)
    model.eval()
    try:
        with preserve_randomness(), job.precision.autocast():
            # a loss of the labels by itself: beside it a step may have other parts
            own = loss_from_logits(job.loss_fn) if ours else job.compute_loss
            tried = try_loss(through(job.placed, own), job.distilled)
            once, twice = (tried(model, rows) for rows in (batch, repeat(batch)))
    finally:
        model.train()
        model.zero_grad(set_to_none=True)
        settle(job.placed)  # there was no backward pass
    if not isinstance(once, Tensor) or once.shape != () or not once.requires_grad:
        raise ValueError(
            f"the loss {place} returned {shape(once)} for {ROWS} rows; expected the sum of "
            "their losses as a tensor of shape () that depends on the model's parameters"
        )
    if not torch.isfinite(once):
        raise ValueError(f"the loss {place} returned {once.item()} for the first {ROWS} rows")
    ratio = (twice / once).item() if once else 2.0
    if abs(ratio - 2) > 2 * DOUBLED:
        notes.append(
            f"WARNING: the loss {place} is {ratio:.3g} times as large for twice the rows, "
            "expected 2: give the sum over the rows, which the engine divides by their number; a "
            "mean would be divided twice, and train.accumulate would change what is trained"
        )
    return notes
