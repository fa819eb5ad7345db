"""What a run of a bag of n-grams does otherwise than one of a transformer."""

from dataclasses import replace
from typing import Any

from torch import nn

from data.bags import filled_rows
from data.encode import Encoded
from engine.precision import Precision, choose_precision
from models.ngrams.bag import NgramBag, NgramTokenizer


def settle_precision(
    device: str, dtype: str, tokenizer: Any, resolved_dtype: str | None = None
) -> Precision:
    """choose_precision, but that for a bag of n-grams "auto" means fp32 on the CPU: it has no
    matrix product. Raises ValueError as that does, and for a bag of another dtype."""
    if not isinstance(tokenizer, NgramTokenizer):
        return choose_precision(device, dtype, resolved_dtype)
    if dtype not in ("auto", "fp32"):
        raise ValueError(
            f"precision.dtype is {dtype}; a bag of n-grams has no matrix product that would be "
            "faster so: use auto or fp32"
        )
    why = "a bag of n-grams is quick there"
    chosen = choose_precision("cpu" if device == "auto" else device, "fp32")
    reason = why if device == "auto" else chosen.device_reason
    return replace(chosen, device_reason=reason, dtype_reason="it has no matrix products")


def weigh_terms(model: nn.Module, train: Encoded) -> None:
    """Let a bag of n-grams learn from the training rows how common its terms are; other models are
    left alone."""
    if isinstance(model, NgramBag):
        model.weigh(filled_rows(train, len(model.idf)), train.rows)
