"""The one vector a text that a head answers from: watched while the model runs."""

from typing import Any

import torch
from torch import Tensor, nn

from models.apart import needs_apart


class PooledVectors:
    """Watches a head that pools first. After a forward pass `read` gives the vector of each text.

    Raises ValueError where a head shows none, or the rows of a batch run apart.
    """

    def __init__(self, model: nn.Module) -> None:
        head: Any = getattr(model, "head", None)
        if not (hasattr(head, "pool_tokens") and hasattr(head, "answer")):
            raise ValueError(
                f"[contrast] compares the vectors that the head answers from; "
                f"{type(head).__name__} shows none. It needs pool_tokens(hidden (B, T, D), mask "
                "(B, T)) -> pooled (B, D) and answer(pooled (B, D)) -> logits (B, C), and a "
                "forward that calls both, as LinearHead in models/heads.py has them"
            )
        if reason := needs_apart(model):
            raise ValueError(
                f"[contrast] compares the texts of a batch, and this model runs its rows in parts, "
                f"for {reason}; remove the section (--unset contrast), or take another model"
            )
        self.head = head
        self.plain_answer = head.answer
        self.pooled: Tensor | None = None
        head.answer = self.answer

    def answer(self, pooled: Tensor) -> Tensor:
        """The head's own answer (B, C); the vectors (B, D) that it is given are kept."""
        self.pooled = pooled
        return self.plain_answer(pooled)

    def read(self) -> Tensor:
        """(B, D) of the last pass; it is forgotten then. Raises ValueError where the head did not
        pass by here, and where no parameter that learns stands before it."""
        pooled, self.pooled = self.pooled, None
        if pooled is None:
            raise ValueError(
                f"[contrast] compares the vectors that the head answers from; the forward of "
                f"{type(self.head).__name__} does not call its own answer(pooled (B, D))"
            )
        if torch.is_grad_enabled() and not pooled.requires_grad:
            raise ValueError(
                "[contrast] moves the vectors of texts, and nothing before the head learns: choose "
                "a method ([lora]) or other layers to train (model.train), or remove the section "
                "(--unset contrast)"
            )
        return pooled
