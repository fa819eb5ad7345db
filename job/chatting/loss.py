"""What a language model minimises and is measured by: the learned tokens, and no others."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from engine.evaluate_tokens import evaluate_tokens
from engine.losses import IGNORE, Batch
from engine.precision import Precision
from engine.tokens import choose_learned, token_losses
from models.language import Head, head_of, hidden_of


def chat_loss(model: nn.Module) -> Callable[[nn.Module, Batch], Tensor]:
    """(model, batch) -> the sum of cross-entropies over the learned tokens. Raises ValueError where
    the model's head is none that is known."""
    head_of(model)  # before step 1 rather than in it

    def compute_loss(model: nn.Module, batch: Batch) -> Tensor:
        hidden, targets, head = learned_states(model, batch)
        return token_losses(hidden, head.weight, head.bias, targets, head.softcap, head.scale)

    return compute_loss


def learned_states(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor, Head]:
    """What the head reads of the positions that are learned (n, D), what follows them (n,), and
    the head."""
    hidden = hidden_of(model, batch["inputs"])  # (B, T, D)
    places = batch.get("learned", {}).get("places")
    return *choose_learned(hidden, batch["labels"], places), head_of(model)


def with_places(batches: Iterator[Batch]) -> Iterator[Batch]:
    """The batches, each with the places (n,) of its learned labels in the flattened ones: the host
    says them, so that no device has to be asked how many there are."""
    for batch in batches:
        places = torch.nonzero(batch["labels"].flatten() != IGNORE).squeeze(1)
        yield {**batch, "learned": {"places": places}}


def evaluate_chats(
    model: nn.Module, batches: Iterator[Batch], precision: Precision, shared: bool = False
) -> dict[str, Any]:
    """Figures over the learned tokens of a split, as evaluate_tokens has them."""
    return evaluate_tokens(model, batches, hidden_of, head_of, precision, shared)
