"""Where a token stands in its text, as the architectures count."""

from typing import Any

import torch
from torch import Tensor

from models.architectures import position_tables


def column_positions(input_ids: Tensor, pad: int | None) -> Tensor:
    """(B, T): the place in the padded row, as BERT counts."""
    return torch.arange(input_ids.shape[1], device=input_ids.device).expand_as(input_ids)


def counted_positions(input_ids: Tensor, pad: int | None) -> Tensor:
    """(B, T): RoBERTa counts the tokens that are not the pad token, from pad + 1 on."""
    assert pad is not None
    real = (input_ids != pad).long()
    return real.cumsum(1) * real + pad


def positions_behind(inner: Any, input_ids: Tensor, tokens: int) -> Tensor:
    """(B, T): the positions that a model gives to a text behind so many other tokens."""
    pads = [t.padding_idx for t in position_tables(inner) if t.padding_idx is not None]
    if not pads:
        return column_positions(input_ids, None) + tokens
    return counted_positions(input_ids, pads[0]) + tokens * (input_ids != pads[0])
