"""Prefix tuning (Li and Liang 2021, arXiv:2101.00190; for classifiers as P-tuning v2, Liu et al.
2021, arXiv:2110.07602): learned keys and values in each layer of a frozen model.

            x (B, T, D)
     ┌───────────┼───────────┐
     Q           K           V           frozen
     │    [keys; K]    [values; V]       keys, values (P, H, D/H) of each layer: they learn
     └───────────┼───────────┘
      softmax(Q [keys; K]^T / sqrt(d)) [values; V]

In front of each text's keys and values stand P more, the same for all texts; nothing asks them, so
a layer answers for the text's own tokens alone. They start from what the layer makes of P words
drawn from the vocabulary. There is no network beside them that works them out (Li and Liang's
reparametrisation), as in P-tuning v2.

In a model that can go on from kept keys and values, as decoders do, they take the first P positions
and the text the next ones: so PEFT has it. Elsewhere the text keeps its own.
"""

import inspect
from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from models.architectures import longest_text, token_table
from models.heads import transformers_model
from models.limits import check_bytes
from models.methods.method import Method, added_parameters
from models.methods.own_files import read_own, write_own
from models.methods.prefixed import Prefix, prefixes_of, read_prefixes, watch_attention
from models.methods.virtual import (
    asked_model,
    goes_on_from,
    named_inputs,
    read_virtual,
    try_model,
    write_virtual,
)
from models.names import named_seed
from models.positions import positions_behind


@dataclass(frozen=True)
class PrefixTuning(Method):
    """`tokens` learned keys and values in each layer."""

    kind: ClassVar[str] = "prefix"
    identity: ClassVar[bool] = False
    small: ClassVar[dict[str, dict[str, Any]]] = {"Prefix": {"tokens": 3}}
    drops_types: ClassVar[bool] = True

    tokens: int = 20

    @property
    def peft(self) -> bool:
        return True

    def check(self) -> None:
        if self.tokens < 1:
            raise ValueError(f"prefix.tokens is {self.tokens}; expected 1 or more")

    def positions(self, model: nn.Module) -> int:
        return self.tokens if goes_on(transformers_model(model)) else 0

    def inject(self, model: nn.Module, seed: int, exclude: Collection[str] = ()) -> list[str]:
        self.check()
        inner = transformers_model(model)
        config, kind = inner.config, inner.config.model_type
        if config.is_encoder_decoder:
            raise ValueError(f"prefix: {kind} has a decoder beside its encoder; take [lora]")
        if config._attn_implementation != "sdpa":
            raise ValueError(
                f"prefix: {kind} works its attention out in its own way, which takes no more keys; "
                "take [lora] or [prompt]"
            )
        about = config.get_text_config()
        numbers = 2 * self.tokens * about.num_hidden_layers * about.hidden_size
        check_bytes(4 * numbers, f"prefix.tokens = {self.tokens:,}")
        try:
            seen = watch_attention(inner, self.words(inner, seed))
        except ValueError as error:
            raise ValueError(f"prefix: {kind}: {error}; take [lora] or [prompt]") from None
        for module, (keys, values) in seen.items():
            parts = (t[: self.tokens].contiguous() for t in (keys, values))
            module.prefix = Prefix(*parts).train(module.training)
        read_prefixes(inner)
        if goes_on(inner):
            reading = asked_model(model)
            reading.register_forward_pre_hook(partial(_move_on, self.tokens), with_kwargs=True)
        try_model(model, self.kind, self.positions(model))
        return [f"prefix: {self.tokens} learned keys and values in each layer"]

    def words(self, inner: PreTrainedModel, seed: int) -> Tensor:
        """Ids (rows, columns) of at least `tokens` words, from the seed alone; no pad token is
        among them, by which some models count positions."""
        table: Any = token_table(inner)
        if table is None:
            raise ValueError(
                f"prefix: {inner.config.model_type} has no table of words to draw from"
            )
        draw = torch.Generator().manual_seed(named_seed(seed, self.kind))
        columns = min(self.tokens, longest_text(inner) or self.tokens)
        rows = -(-self.tokens // columns)
        ids = torch.randint(table.num_embeddings - 1, (rows, columns), generator=draw)
        return ids + (ids == inner.config.get_text_config().pad_token_id)

    def write(self, model: nn.Module, base: str | None, revision: str | None, folder: Path) -> None:
        if not goes_on(transformers_model(model)):  # PEFT has none there
            write_own(model, folder)
            return
        prefixes = prefixes_of(model)
        _, heads, size = prefixes[0].keys.shape
        learned = [t.flatten(1) for p in prefixes for t in (p.keys, p.values)]  # (P, H D) each
        config = {
            "peft_type": "PREFIX_TUNING",
            "num_layers": len(prefixes),
            "num_attention_heads": heads,
            "token_dim": heads * size,
            "prefix_projection": False,
        }
        write_virtual(model, torch.cat(learned, 1), config, base, revision, folder)

    @torch.no_grad()
    def read(self, model: nn.Module, folder: Path) -> set[str]:
        if not goes_on(transformers_model(model)):
            return read_own(model, folder)
        parts = [t for p in prefixes_of(model) for t in (p.keys, p.values)]
        shape = torch.Size([self.tokens, sum(t[0].numel() for t in parts)])
        learned, filled = read_virtual(model, "PREFIX_TUNING", folder, shape)
        pieces = learned.split([t[0].numel() for t in parts], 1)
        for part, piece in zip(parts, pieces, strict=True):
            part.copy_(piece.view_as(part))
        return {*filled, *(n for names in added_parameters(model).values() for n in names)}

    def as_written(self, folder: Path) -> "PrefixTuning":
        return self  # where it stands follows from the model alone


def goes_on(inner: PreTrainedModel) -> bool:
    """Whether a model can go on from kept keys and values, whose places its positions then count:
    where PEFT puts a prefix."""
    takes = inspect.signature(inspect.unwrap(type(inner).forward)).parameters
    below = inspect.signature(inspect.unwrap(type(inner.base_model).forward)).parameters
    return "position_ids" in takes and "past_key_values" in below


def _move_on(
    tokens: int, inner: PreTrainedModel, args: tuple, inputs: dict[str, Any]
) -> tuple[tuple, dict[str, Any]]:
    """The inputs of a model, with each text behind so many positions."""
    inputs = named_inputs(inner, args, inputs)
    if (positions := inputs.get("position_ids")) is not None:
        return (), {**inputs, "position_ids": positions + tokens}
    behind = goes_on_from(inputs) + tokens
    return (), {**inputs, "position_ids": positions_behind(inner, inputs["input_ids"], behind)}
