"""A text in several windows, each with a vector of its own: they become the text's one vector."""

import torch
from torch import Tensor, nn


def join_windows(pooled: Tensor, windows: Tensor, how: str) -> Tensor:
    """(B, D), the mean or in each dimension the largest of a text's vectors. pooled (W, D): one a
    window; windows (B, K): which of them are a text's, -1 where it has fewer than K. The only one
    of a text comes back as it was, to the bit."""
    exact = torch.promote_types(pooled.dtype, torch.float32)  # bf16 sums lose the mean
    there = (windows >= 0).unsqueeze(-1)  # (B, K, 1)
    each = pooled.to(exact)[windows.clamp(min=0)]  # (B, K, D)
    if how == "max":
        return each.masked_fill(~there, -torch.inf).amax(1).to(pooled.dtype)
    return (each.masked_fill(~there, 0).sum(1) / there.sum(1)).to(pooled.dtype)


def check_windows(head: nn.Module, how: str | None) -> None:
    """Raises ValueError where a head has no vector of a window that could be joined."""
    if how is not None and not (hasattr(head, "pool_tokens") and hasattr(head, "answer")):
        raise ValueError(
            f'data.long = "chunks" joins the vectors of a text\'s windows; {type(head).__name__} '
            "shows none. It needs pool_tokens(hidden (W, T, D), mask (W, T)) -> pooled (W, D) and "
            "answer(pooled (B, D)) -> logits (B, C), as LinearHead in models/heads.py has them"
        )
