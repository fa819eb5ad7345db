"""Prompt tuning (Lester et al. 2021, arXiv:2104.08691): learned vectors in front of a frozen model.

    token ids (B, T)       t1 t2 t3 ·  ·              a text of three, padded
                              │   lengthen (models/methods/virtual.py)
              (B, P + T)   v1 v2 t1 t2 t3 ·  ·        v1 = V, v2 = V + 1: past the vocabulary
                              │
                    table of words, and beside it
                    prompt (P, D), which learns
                              │
              (B, P + T, D)   all layers, frozen

E(t) = W[t] for t < V, else prompt[t - V]: this is all that is new. Attention, positions and padding
go on as for P more words. A head of transformers reads what it reads of the longer row (BERT's: the
first of the learned vectors); a head of ours is given the text's own tokens alone.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.architectures import token_table
from models.heads import transformers_model
from models.limits import check_bytes
from models.methods.linears import replace_layers
from models.methods.method import Added, Method, added_modules
from models.methods.virtual import put_in_front, read_virtual, try_model, write_virtual
from models.names import is_below, named_seed

SAMPLED = 1000  # words that are looked at, to see how large their vectors are


class SoftTokens(Added):
    """The table of words `base` (V, D), followed by `prompt` (P, D)."""

    def __init__(self, base: nn.Embedding, tokens: int) -> None:
        super().__init__()
        self.base = base
        self.in_front = tokens
        self.prompt = nn.Parameter(base.weight.new_empty(tokens, base.embedding_dim))

    def forward(self, input_ids: Tensor) -> Tensor:
        """(B, T) -> (B, T, D)."""
        place = input_ids - self.base.num_embeddings  # in the prompt, from 0 on
        words = self.base(input_ids.masked_fill(place >= 0, 0))
        soft = F.embedding(place.clamp(min=0), self.prompt)
        # a choice for each token: to count the learned ones, a host would wait for its device
        return torch.where(place.unsqueeze(-1) >= 0, soft.to(words.dtype), words)

    # What model code asks of the table that this one stands for.

    @property
    def weight(self) -> Tensor:
        return self.base.weight

    @property
    def num_embeddings(self) -> int:
        return self.base.num_embeddings

    @property
    def embedding_dim(self) -> int:
        return self.base.embedding_dim

    @property
    def padding_idx(self) -> int | None:
        return self.base.padding_idx

    def merged_weight(self) -> Tensor:
        raise ValueError(
            "a prompt cannot be merged: it is more tokens in front of each text, and no weight "
            "does their work"
        )


@dataclass(frozen=True)
class Prompt(Method):
    """`tokens` learned vectors, which start from those of `text`, over and over until there are
    enough; without one from random vectors as large as words' are."""

    kind: ClassVar[str] = "prompt"
    identity: ClassVar[bool] = False
    small: ClassVar[dict[str, dict[str, Any]]] = {"Prompt": {"tokens": 3}}
    drops_types: ClassVar[bool] = True

    tokens: int = 20
    text: str | None = None

    @property
    def in_front(self) -> int:
        return self.tokens

    @property
    def peft(self) -> bool:
        return True

    def check(self) -> None:
        if self.tokens < 1:
            raise ValueError(f"prompt.tokens is {self.tokens}; expected 1 or more")

    def positions(self, model: nn.Module) -> int:
        return self.tokens

    def inject(self, model: nn.Module, seed: int, exclude: Collection[str] = ()) -> list[str]:
        self.check()
        inner = transformers_model(model)
        table, kind = token_table(inner), inner.config.model_type
        if not isinstance(table, nn.Embedding):
            raise ValueError(f"prompt: {kind} has no table of words for a prompt to stand beside")
        if inner.config.is_encoder_decoder:
            raise ValueError(
                f"prompt: {kind} has a decoder, which reads the text a second time; take [lora]"
            )
        name = next(n for n, module in model.named_modules() if module is table)
        if is_below(name, exclude):
            raise ValueError(f"prompt: the table of words, {name}, trains whole; remove [prompt]")
        check_bytes(4 * self.tokens * table.embedding_dim, f"prompt.tokens = {self.tokens:,}")
        soft = SoftTokens(table, self.tokens).train(table.training)
        draw = torch.Generator().manual_seed(named_seed(seed, f"{name}.prompt"))
        with torch.no_grad():
            step = -(-table.num_embeddings // SAMPLED)
            words = table(torch.arange(0, table.num_embeddings, step))
            soft.prompt.copy_(torch.randn(soft.prompt.shape, generator=draw) * words.std())
        replace_layers(model, {table: soft})
        put_in_front(model, self.tokens, table.num_embeddings)
        try_model(model, self.kind, self.tokens)
        return [f"prompt: {self.tokens} learned tokens in front of each text"]

    @torch.no_grad()
    def start(self, model: nn.Module, tokenizer: Any) -> None:
        if self.text is None:
            return
        soft = _soft_tokens(model)
        ids = tokenizer(self.text)["input_ids"]
        if not ids:
            raise ValueError(f"prompt.text is {self.text!r}, of which the tokenizer makes no token")
        repeated = (ids * -(-self.tokens // len(ids)))[: self.tokens]
        soft.prompt.copy_(soft.base(torch.tensor(repeated)))

    def write(self, model: nn.Module, base: str | None, revision: str | None, folder: Path) -> None:
        soft = _soft_tokens(model)
        config = {
            "peft_type": "PROMPT_TUNING",
            "token_dim": soft.embedding_dim,
            "prompt_tuning_init": "RANDOM",  # what there was before these
        }
        write_virtual(model, soft.prompt, config, base, revision, folder)

    def read(self, model: nn.Module, folder: Path) -> set[str]:
        soft = _soft_tokens(model)
        learned, filled = read_virtual(model, "PROMPT_TUNING", folder, soft.prompt.shape)
        with torch.no_grad():
            soft.prompt.copy_(learned)
        (name,) = added_modules(model)
        return {*filled, f"{name}.prompt"}

    def as_written(self, folder: Path) -> "Prompt":
        return replace(self, text=None)


def _soft_tokens(model: nn.Module) -> SoftTokens:
    (soft,) = added_modules(model).values()
    assert isinstance(soft, SoftTokens)
    return soft
