"""A language model in two halves: the backbone, which makes a hidden state of each token, and the
head, which makes of each a number for every word.

    hidden_of (B, T, D)     then, of the positions that are learned alone, head_of: (n, V)

They are called apart because the second is the large one: of 49,152 words it holds a hundred times
what the first does. check_halves holds both to what the model itself answers.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from models.heads import transformers_model

CLOSE = 1e-4  # of the largest logit
# what a config calls the factor of all logits, and whether it divides
SCALES = {"logit_scale": False, "logits_scaling": True}


@dataclass(frozen=True)
class Head:
    """logits = softcap · tanh(scale · (W h + b) / softcap), without a softcap scale · (W h + b).
    `weight` (V, D) is the model's own parameter, `bias` (V,)."""

    weight: Tensor
    bias: Tensor | None
    softcap: float | None
    scale: float

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., D) -> (..., V)."""
        logits = nn.functional.linear(hidden, self.weight, self.bias)
        if self.scale != 1:
            logits = logits * self.scale
        if self.softcap is None:
            return logits
        return torch.tanh(logits / self.softcap) * self.softcap


def hidden_of(model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    """(B, T, D): what the head of a language model reads of each token, behind the last norm.

    `inputs` are those of a batch: input_ids (B, T) and attention_mask (B, T), 1 for a real token;
    of packed rows also position_ids (B, T), which begin again with each conversation. By them alone
    transformers keeps the attention of conversations apart, so then no mask goes with them. Padding
    stands after the text, where no real token looks.
    """
    inner: Any = transformers_model(model)
    if "position_ids" in inputs:
        inputs = {name: tensor for name, tensor in inputs.items() if name != "attention_mask"}
    return inner.base_model(**inputs, use_cache=False).last_hidden_state


def head_of(model: nn.Module) -> Head:
    """The output layer of a language model. Raises ValueError where it is no linear layer."""
    inner: Any = transformers_model(model)
    layer = inner.get_output_embeddings()
    if not isinstance(layer, nn.Linear):
        raise ValueError(
            f"the head of {inner.config.model_type!r} is a {type(layer).__name__}; expected a Linear"
        )
    config = inner.config
    scale = 1.0
    for name, divides in SCALES.items():
        if factor := getattr(config, name, None):
            scale = scale / factor if divides else scale * factor
    return Head(layer.weight, layer.bias, getattr(config, "final_logit_softcapping", None), scale)
