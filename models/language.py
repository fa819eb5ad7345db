"""A language model in two halves: the backbone, which makes a hidden state of each token, and the
head, which makes of each a number for every word.

    hidden_of (B, T, D)     then, of the positions that are learned alone, head_of: (n, V)

They are called apart because the second is the large one: of 49,152 words it holds a hundred times
what the first does. check_language holds both to what the model itself answers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from models.heads import transformers_model
from models.methods.method import tokens_in_front
from models.methods.trial import trial

CLOSE = 1e-4  # relative to the largest number beside it
APART = 1e-6
TRIED = 12  # tokens
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
            f"the head of {inner.config.model_type!r} is a {type(layer).__name__}, no Linear"
        )
    config = inner.config
    scale = 1.0
    for name, divides in SCALES.items():
        if factor := getattr(config, name, None):
            scale = scale / factor if divides else scale * factor
    return Head(layer.weight, layer.bias, getattr(config, "final_logit_softcapping", None), scale)


def check_language(model: nn.Module) -> None:
    """Raises ValueError where what a language model makes of a token depends on those after it,
    where its two halves do not answer as it does itself, and where nothing that trains has a part
    in it: tried on a few words."""
    inner: Any = transformers_model(model)
    kind, ids = inner.config.model_type, _some_ids(inner)  # (2, T), which differ in the last
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    with trial(model, f"the language model of {kind!r} does not run: {{}}", 300):
        with torch.enable_grad():
            halves = head_of(model).logits(hidden := hidden_of(model, inputs))
        whole = inner(**inputs, use_cache=False).logits
    if not alike(hidden[0, :-1], hidden[1, :-1], CLOSE):
        raise ValueError(
            f"{kind!r} reads what comes after a token too, so it cannot write from left to right: "
            "take a model that is a decoder"
        )
    if not alike(whole, halves, CLOSE):
        apart = (halves - whole).abs().max().item()
        raise ValueError(
            f"{kind!r} makes more of its hidden states than its head, a softcap and a factor do: "
            f"logits are {apart:.1e} apart. Such a head is not known here"
        )
    if not halves.requires_grad:
        raise ValueError(
            f"nothing that trains has a part in what {kind!r} answers: choose another model.train, "
            "or a method"
        )


def packs(model: nn.Module) -> str | None:
    """Why several conversations in one row would not be apart in this model, on the plain path;
    None where they are: tried with two of them, of which what comes first must not move what comes
    second, and must leave it as it is alone. (Experts are the only ones that round otherwise beside
    other rows; everywhere else no bit moves.) To be asked in float32, before any fast path."""
    inner: Any = transformers_model(model)
    kind, ids = inner.config.model_type, _some_ids(inner)
    if tokens_in_front(model):
        return "a method puts tokens in front of each text, and a row of several has one front"
    first = TRIED // 2
    positions = torch.cat([torch.arange(first), torch.arange(TRIED - first)])  # (T,)
    positions = positions.expand(2, -1).to(ids.device)
    swapped = ids.roll(first, 1)  # (2, T): what differs is in the first one now
    alone = swapped[:1, first:]  # (1, T - first)
    try:
        with trial(model, "{}"):
            packed = hidden_of(model, {"input_ids": swapped, "position_ids": positions})
            single = hidden_of(model, {"input_ids": alone})
    except ValueError as error:
        return f"{kind} takes no positions of packed rows ({error})"
    one, other = packed[:, first:]
    if not alike(one, other, APART):
        return f"in {kind} a conversation moves what is made of the next one in its row"
    if not alike(single[0], one, CLOSE):
        return f"in {kind} a conversation is another one behind others in its row"
    return None


def alike(one: Tensor, other: Tensor, close: float) -> bool:
    """Whether two tensors differ by no more than a part of the largest number in the first; not
    where one of them is no number."""
    return bool((one - other).abs().max() <= close * one.abs().max())


def _some_ids(inner: Any) -> Tensor:
    """(2, T) ids of ordinary words, which differ in the last column."""
    words = inner.get_input_embeddings().num_embeddings
    ids = torch.arange(TRIED).mul(7).add(words // 2).remainder(words).expand(2, -1).clone()
    ids[1, -1] = (ids[1, -1] + words // 3) % words
    return ids.to(inner.device)


def end_tokens(model: nn.Module, tokenizer: Any) -> list[int]:
    """Ids after which a reply has ended: the tokenizer's end token, which is learned, and those
    that the model's published settings name."""
    return list(dict.fromkeys([tokenizer.eos_token_id, *_named_ends(model)]))


def add_ends(model: nn.Module, ends: Sequence[int]) -> None:
    """Note among the model's settings for writing that a reply ends after these tokens too, so that
    an export has them wherever it is opened."""
    both = list(dict.fromkeys([*_named_ends(model), *ends]))
    settings: Any = transformers_model(model).generation_config
    settings.eos_token_id = both[0] if len(both) == 1 else both


def _named_ends(model: nn.Module) -> list[int]:
    """Ends of a reply by the model's settings for writing."""
    inner: Any = transformers_model(model)
    named = inner.generation_config.eos_token_id
    return named if isinstance(named, list) else [] if named is None else [named]
