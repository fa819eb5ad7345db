"""Rows that must not share a forward pass: a padded batch is run in parts.

Some architectures read padding (a Fourier transform over all columns, a convolution, a head that
takes the last column): the answer to a text would depend on the texts beside it. Others want as
many end tokens in each row. Replaces the forward of the whole model, head included; rows that may
stand together still run together.
"""

from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import SequenceClassifierOutput

from models.architectures import READS_PADDING, reads_end
from models.heads import transformers_model
from models.ngrams.bag import NgramBag


def needs_apart(model: nn.Module) -> str | None:
    """What cannot do with other rows beside it; None where nothing of the model minds."""
    if isinstance(model, NgramBag):
        return None
    kind = transformers_model(model).config.model_type
    if kind in READS_PADDING:
        return f"{READS_PADDING[kind]} would read padding"
    return "its head wants as many end tokens in each row" if reads_end(model) else None


def keys_of(model: Any, input_ids: Tensor, attention_mask: Tensor) -> tuple[list[Any], bool]:
    """What rows must have in common to run together, (B,), and whether their padding must go."""
    config = transformers_model(model).config
    lengths, ends = attention_mask.sum(1), torch.zeros_like(attention_mask[:, 0])  # (B,)
    trims = config.model_type in READS_PADDING
    if reads_end(model):
        ends = ((input_ids == config.eos_token_id) & attention_mask.bool()).sum(1)
        trims = trims or config.pad_token_id == config.eos_token_id
    if not trims:
        lengths = torch.zeros_like(lengths)
    return list(map(tuple, torch.stack([lengths, ends], 1).tolist())), trims


def forward_apart(
    model: Any, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
) -> Any:
    """Logits (B, C) of input_ids (B, T), as the model itself returns them: one plain forward for
    each kind of row. Padding stands after the text. The host asks for lengths and end tokens."""
    inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
    if token_type_ids is not None:
        inputs["token_type_ids"] = token_type_ids
    keys, trims = keys_of(model, input_ids, attention_mask)
    groups: dict[Any, list[int]] = {}
    for row, key in enumerate(keys):
        groups.setdefault(key, []).append(row)
    plain, parts = type(model).forward, []
    stride = getattr(transformers_model(model).config, "downsampling_rate", 1)
    for rows in groups.values():
        index = torch.tensor(rows, device=input_ids.device)
        part = {name: tensor[index] for name, tensor in inputs.items()}  # (b, T)
        if trims:  # what follows the longest of them; CANINE needs a whole stride of characters
            width = max(int(part["attention_mask"].sum(1).max()), stride)
            part = {name: tensor[:, :width] for name, tensor in part.items()}
        parts.append(logits_in(plain(model, **part)))  # (b, C)
    order = torch.tensor([row for rows in groups.values() for row in rows]).argsort()
    logits = torch.cat(parts)[order.to(input_ids.device)]  # (B, C)
    return SequenceClassifierOutput(logits=logits) if hasattr(model, "config") else logits


def logits_in(output: Any) -> Tensor:
    """Logits of a native model's output, or the logits that a Classifier returned."""
    return output if isinstance(output, Tensor) else output.logits


def run_apart(model: nn.Module) -> list[str]:
    """Replace `model.forward` in place where some rows must not run together; parameters and
    modules keep their names. Returns notes. Raises ValueError where texts come in windows."""
    reason = needs_apart(model)
    if reason is None:
        return []
    if getattr(model, "window_pool", None) is not None:
        raise ValueError(
            f'data.long = "chunks" runs the windows of a text together; here rows run in parts, '
            f'for {reason}: use "head_tail" or "cut"'
        )
    model.forward = MethodType(forward_apart, model)
    return [f"batches: in parts, rows of one kind together, for {reason}"]
