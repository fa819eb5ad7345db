"""Stock attention on a GPU without asking the host: for models that keep their padding there.

Replaces transformers' mask function for scaled_dot_product_attention, which looks whether a batch
holds any padding at all; the answer makes the host wait for the device in every forward. Here the
mask is always built. What that gains could not be measured: no CUDA device was at hand.
"""

from typing import Any

from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "openloop_sdpa"


def mask_without_asking(*args: Any, **others: Any) -> Tensor | None:
    """sdpa_mask, whatever the caller would let it leave out after a look at the mask."""
    never = {"allow_is_bidirectional_skip": False, "allow_is_causal_skip": False}
    return sdpa_mask(*args, **(others | never))


def use_lean_sdpa(model: PreTrainedModel) -> bool:
    """Let a model that runs on stock SDPA run on it without the question; whether it did."""
    if model.config._attn_implementation != "sdpa":
        return False
    AttentionInterface.register(NAME, sdpa_attention_forward)
    AttentionMaskInterface.register(NAME, mask_without_asking)
    model.set_attn_implementation(NAME)
    return True
