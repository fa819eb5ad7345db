"""The mask that an attention of ours is given where a batch is padded: of keys where that says all.

transformers asks a mask function for the pairs of tokens that may see each other. Ours read the
padding's own mask (B, T), and what is causal from the module; only where a mask means more than
that (several conversations in one row, a cache with room left in it) it is written out in pairs.
"""

from typing import Any

import torch
from torch import Tensor
from transformers.masking_utils import bidirectional_mask_function, causal_mask_function

from models.methods.prefixed import whole_mask

SIMPLE = (bidirectional_mask_function, causal_mask_function)


def keys_or_pairs(
    q_length: int, kv_length: int, q_offset: int = 0, attention_mask: Tensor | None = None,
    mask_function: Any = causal_mask_function, **others: Any,
) -> Tensor | None:  # fmt: skip
    """The mask (B, T) of keys as it is, or none, where the last query stands at the last key;
    otherwise one of pairs, (B, 1, M, T). Nothing is asked of a device."""
    at_end = isinstance(q_offset, int) and q_offset + q_length == kv_length
    if mask_function in SIMPLE and at_end:
        return attention_mask
    return whole_mask(
        q_length=q_length, kv_length=kv_length, q_offset=q_offset, attention_mask=attention_mask,
        mask_function=mask_function, **others,
    )  # fmt: skip


def pairs_of(mask: Tensor, width: int, causal: bool) -> Tensor:
    """mask (B, T) of keys -> (B, 1, 1, T), or for the last `width` as queries that look back only
    (B, 1, width, T); true where a key is read."""
    pairs = mask[:, None, None, :].bool()
    if not causal or width == 1:
        return pairs
    longer = mask.shape[1]
    back = torch.ones(width, longer, dtype=torch.bool, device=mask.device).tril_(longer - width)
    return pairs & back
