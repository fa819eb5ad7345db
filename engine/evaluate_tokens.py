"""One pass of a language model over labelled conversations: loss, perplexity, token accuracy.

Each learned token weighs the same, whichever batch or row it stood in. Every conversation keeps its
own sums, in float64: the tokens of one hang together, so intervals are over conversations.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from engine.evaluate import inference, to_device
from engine.intervals import ratio_interval
from engine.losses import IGNORE, Batch
from engine.precision import Precision
from engine.tokens import choose_learned, score_tokens
from engine.world import in_order, in_step, world


class Head(Protocol):
    """What is asked of an output layer; token_losses says what each is for."""

    @property
    def weight(self) -> Tensor: ...
    @property
    def bias(self) -> Tensor | None: ...
    @property
    def softcap(self) -> float | None: ...
    @property
    def scale(self) -> float: ...


def evaluate_tokens(
    model: nn.Module,
    batches: Iterable[Batch],
    hidden_of: Callable[[nn.Module, dict[str, Tensor]], Tensor],
    head_of: Callable[[nn.Module], Head],
    precision: Precision,
    shared: bool = False,
) -> dict[str, Any]:
    """Figures over all learned tokens: "loss", "perplexity", "token_accuracy" (the likeliest token
    is the true one), "n" tokens of so many "conversations", "intervals" of the three, 95 % each.

    `hidden_of(model, inputs)` gives hidden (B, T, D), `head_of(model)` the output layer. What is in
    one batch or one packed row moves nothing: not the batch size, nor the order. Memory goes with
    the learned tokens, 13 bytes each. `shared` as in evaluate.answers(). Raises ValueError where no
    token is learned.
    """
    with inference(model):
        scored = score_batches(model, batches, hidden_of, head_of, precision)
        if shared and not world().alone:
            scored = in_order(batch and tuple(part.cpu() for part in batch) for batch in scored)
        kept = [batch for batch in scored if batch is not None]
    if not sum(len(numbers) for numbers, _, _ in kept):
        raise ValueError("nothing to evaluate: no token of the split is learned")
    numbers, losses, right = (torch.cat(part).cpu() for part in zip(*kept, strict=True))
    return token_figures(numbers, losses.double(), right.double())


def score_batches(
    model: nn.Module,
    batches: Iterable[Batch],
    hidden_of: Callable[[nn.Module, dict[str, Tensor]], Tensor],
    head_of: Callable[[nn.Module], Head],
    precision: Precision,
) -> Iterator[tuple[Tensor, ...] | None]:
    """Of the learned tokens of each batch (n,): the conversation they are of, their losses, and
    whether each is the likeliest; the two last on the model's device. None for one that does not
    count (world.in_step)."""
    for on_host, counts in in_step(iter(batches)):
        places = (on_host["labels"].flatten() != IGNORE).nonzero().squeeze(1)  # (n,)
        numbers = on_host["rows"][conversations_of(on_host).flatten()[places]]
        batch = to_device(on_host, precision.device)
        places = places.to(precision.device, non_blocking=True)
        with precision.autocast():
            hidden = hidden_of(model, batch["inputs"])  # (B, T, D)
            rows, targets = choose_learned(hidden, batch["labels"], places)
            head = head_of(model)
            losses, right = score_tokens(
                rows, head.weight, head.bias, targets, head.softcap, head.scale
            )
        yield (numbers, losses, right) if counts else None


def conversations_of(batch: Batch) -> Tensor:
    """(B, T) int64: which of the batch's conversations each position belongs to, as a place in its
    "rows". A row is one, or where positions are given begins another at each position 0; padding
    counts to what is before it."""
    inputs, rows = batch["inputs"], batch["rows"]
    if "position_ids" not in inputs:
        return torch.arange(len(rows)).unsqueeze(1).expand_as(batch["labels"])
    begins = (inputs["position_ids"] == 0) & (inputs["attention_mask"] == 1)
    numbers = begins.flatten().cumsum(0) - 1
    assert numbers[-1] + 1 == len(rows), "a number for each conversation of the pack"
    return numbers.view_as(batch["labels"])


def token_figures(numbers: Tensor, losses: Tensor, right: Tensor) -> dict[str, Any]:
    """The figures of evaluate_tokens from each token's conversation (n,) and, float64 (n,), its
    loss and whether it is right."""
    conversations, owners = numbers.unique(return_inverse=True)  # (K,) in order, (n,)

    def sums(values: Tensor) -> np.ndarray:
        """(K,) by conversation."""
        zeros = torch.zeros(len(conversations), dtype=torch.float64)
        return np.asarray(zeros.index_add_(0, owners, values).numpy())

    sizes = sums(torch.ones_like(losses))
    loss, low, high = ratio_interval(sums(losses), sizes)
    accuracy, least, most = ratio_interval(sums(right), sizes)
    return {
        "loss": loss,
        "perplexity": _exp(loss),
        "token_accuracy": accuracy,
        "n": len(losses),
        "conversations": len(conversations),
        "intervals": {
            "loss": (max(0.0, low), high),
            "perplexity": (_exp(max(0.0, low)), _exp(high)),
            "token_accuracy": (max(0.0, least), min(1.0, most)),
        },
    }


def _exp(loss: float) -> float:
    """e to the loss; infinity where that is more than a number holds."""
    return math.exp(loss) if loss < 709 else loss * math.inf
