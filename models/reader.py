"""Logits of the next token of texts that grow: by kept keys and values, or by reading all again."""

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from models.heads import transformers_model
from models.methods.method import tokens_in_front
from models.methods.prefixed import keys_in_front

CLOSE = 1e-3  # of logits from kept keys to those without, relative to the largest


class KeptReader:
    """Reads each token once: keys and values of those before are kept."""

    def __init__(self, model: nn.Module, prompts: Sequence[Sequence[int]]) -> None:
        self.model, self.prompts = model, prompts
        inner = transformers_model(model)
        self.takes = set(inspect.signature(inspect.unwrap(type(inner).forward)).parameters)
        self.device = next(model.parameters()).device
        self.kept: Any = None
        lengths = [len(prompt) for prompt in prompts]
        self.padded = min(lengths) < max(lengths)
        self.lengths = torch.tensor(lengths, device=self.device)  # (B,) tokens read
        self.mask = torch.zeros(0)

    def start(self) -> Tensor:
        """Logits (B, V) of the first token of each reply."""
        width = max(map(len, self.prompts))
        # padding is any token: nothing looks at it
        ids = [[0] * (width - len(prompt)) + [*prompt] for prompt in self.prompts]
        columns = torch.arange(width, device=self.device)
        self.mask = (columns >= width - self.lengths.unsqueeze(1)).long()  # (B, T)
        positions = (self.mask.cumsum(1) - 1).clamp(min=0)
        return self._run(torch.tensor(ids, device=self.device), positions)

    def read(self, tokens: Tensor) -> Tensor:
        """Logits (B, V) of the next token, once `tokens` (B,) are read."""
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(tokens), 1)], 1)
        positions = self.lengths.unsqueeze(1)
        self.lengths = self.lengths + 1
        return self._run(tokens.unsqueeze(1), positions)

    def _run(self, ids: Tensor, positions: Tensor) -> Tensor:
        inputs: dict[str, Any] = {"input_ids": ids, "past_key_values": self.kept, "use_cache": True}
        if self.padded:
            inputs["attention_mask"] = self.mask
            if "position_ids" in self.takes:
                inputs["position_ids"] = positions
        if "logits_to_keep" in self.takes:
            inputs["logits_to_keep"] = 1
        output = self.model(**inputs)
        self.kept = output.past_key_values
        logits: Tensor = output.logits[:, -1]
        return logits

    def keep(self, index: Tensor, rows: list[int]) -> None:
        """Go on with these rows alone."""
        self.kept.batch_select_indices(index)
        self.mask, self.lengths = self.mask[index], self.lengths[index]


class WholeReader:
    """Reads everything again for each token, one row after the other: for a model whose next token
    does not follow from kept keys and values, as behind virtual tokens that come with each call."""

    def __init__(self, model: nn.Module, prompts: Sequence[Sequence[int]]) -> None:
        self.model, self.texts = model, [list(prompt) for prompt in prompts]
        self.device = next(model.parameters()).device

    def start(self) -> Tensor:
        """Logits (B, V) of the first token of each reply."""
        texts = (torch.tensor([text], device=self.device) for text in self.texts)
        rows = [self.model(input_ids=ids, use_cache=False).logits[:, -1] for ids in texts]
        return torch.cat(rows)

    def read(self, tokens: Tensor) -> Tensor:
        """Logits (B, V) of the next token, once `tokens` (B,) are read."""
        for text, token in zip(self.texts, tokens.tolist(), strict=True):
            text.append(token)
        return self.start()

    def keep(self, index: Tensor, rows: list[int]) -> None:
        """Go on with these rows alone."""
        self.texts = [self.texts[row] for row in rows]


def build_reader(model: nn.Module, prompts: Sequence[Sequence[int]]) -> KeptReader | WholeReader:
    """The reader that a model can be read by."""
    inner = transformers_model(model)
    takes = inspect.signature(inspect.unwrap(type(inner).forward)).parameters
    in_front = tokens_in_front(model) or keys_in_front(model)
    if "past_key_values" not in takes or (in_front and not goes_on_alike(model, prompts[0])):
        return WholeReader(model, prompts)
    return KeptReader(model, prompts)


def goes_on_alike(model: nn.Module, prompt: Sequence[int]) -> bool:
    """Whether a model makes of a token behind kept keys what it makes of it in the whole text:
    tried with the beginning of a prompt and its last token."""
    *before, last = prompt[:8] if len(prompt) > 1 else (*prompt, *prompt)
    kept, whole = KeptReader(model, [before]), WholeReader(model, [[*before, last]])
    try:
        kept.start()
        logits = kept.read(torch.tensor([last], device=kept.device))
    except (RuntimeError, IndexError, ValueError):  # masks and keys of unlike lengths
        return False
    wanted = whole.start()
    return bool((logits - wanted).abs().max() <= CLOSE * wanted.abs().max())
