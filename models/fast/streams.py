"""Batches without padding: the backbone sees one stream of real tokens, the head sees them padded.

Replaces the backbone's forward by one that takes the padding out, runs the plain forward on
input_ids (1, N) with position_ids (1, N) and cu_seq_lens, and puts the padding back, as zeros. The
linear layers then work on hardly any padding; attention.py keeps the texts of a stream apart. The
rows of a step stay what they were. Gain: see benchmarks/ablation.md.

A stream is filled up to a multiple of 64 tokens that no text owns, one percent of a usual batch:
oneDNN makes and keeps its kernels for each length it meets, half a megabyte a product, and without
the filling nearly every step is of a new length (benchmarks/LOG.md 24). One short text would be ten
times its length: a stream of less than that is filled up to a multiple of 8.
"""

from collections.abc import Callable
from types import MethodType
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedModel

from models.fast.cpu.dropout import FastDropout
from models.fast.cpu.masks import PLACES
from models.fast.encoder import after_queries, encoder_of, first_tokens

MULTIPLE, FEW = 64, 8  # tokens of a stream, and of one shorter than MULTIPLE


def column_positions(input_ids: Tensor, pad: int | None) -> Tensor:
    """(B, T): the place in the padded row, as BERT counts."""
    return torch.arange(input_ids.shape[1]).expand_as(input_ids)


def counted_positions(input_ids: Tensor, pad: int | None) -> Tensor:
    """(B, T): RoBERTa counts the tokens that are not the pad token, from pad + 1 on."""
    assert pad is not None
    real = (input_ids != pad).long()
    return real.cumsum(1) * real + pad


POSITIONS: dict[str, Callable[[Tensor, int | None], Tensor]] = {
    "albert": column_positions,
    "bert": column_positions,
    "distilbert": column_positions,
    "electra": column_positions,
    "roberta": counted_positions,
    "xlm-roberta": counted_positions,
}


def stream_length(tokens: int) -> int:
    """Tokens of a stream of so many real ones: never none."""
    multiple = MULTIPLE if tokens > MULTIPLE else FEW
    return max(1, -(-tokens // multiple)) * multiple


def pool_again(backbone: Any, hidden: Tensor) -> Tensor:
    """The architecture's own pooler on padded hidden (B, T, D): it looks at each row's first
    token, and a stream has but one row."""
    if backbone.config.model_type == "albert":  # its pooler is a bare Linear
        return backbone.pooler_activation(backbone.pooler(hidden[:, 0]))
    return backbone.pooler(hidden)


def stream_forward(
    backbone: Any, input_ids: Tensor | None = None, attention_mask: Tensor | None = None,
    token_type_ids: Tensor | None = None, **others: Any,
) -> Any:  # fmt: skip
    """The backbone's forward on the stream of real tokens of input_ids (B, T); what is not a
    plain padded batch goes the plain way."""
    plain = type(backbone).forward
    dropouts = [module for module in backbone.modules() if isinstance(module, FastDropout)]
    given = {name: value for name, value in others.items() if value is not None}
    if given.get("return_dict"):  # what it does anyway; as a tuple it takes the plain way
        del given["return_dict"]
    if input_ids is None or attention_mask is None or attention_mask.dim() != 2 or given:
        for dropout in dropouts:
            dropout.ids = None
        return plain(
            backbone, input_ids=input_ids, attention_mask=attention_mask,
            **given | ({} if token_type_ids is None else {"token_type_ids": token_type_ids}),
        )  # fmt: skip
    rows, width = input_ids.shape
    real = attention_mask.flatten().nonzero().squeeze(1)  # places in the padded batch
    filling = stream_length(len(real)) - len(real)

    def stream(padded: Tensor) -> Tensor:
        """(B, T) -> (1, N)"""
        return F.pad(padded.flatten()[real], (0, filling)).unsqueeze(0)

    ends = torch.zeros(rows + 1, dtype=torch.int32)
    torch.cumsum(attention_mask.sum(1), 0, out=ends[1:])
    longest = int(ends.diff().max())
    ids = stream(torch.arange(rows).unsqueeze(1) * PLACES + torch.arange(width))
    for dropout in dropouts:
        dropout.ids = ids
    places = real  # of what comes out of the last layer
    encoder = encoder_of(backbone)
    if encoder is not None and hasattr(encoder, "how") and encoder.how.first_only:
        firsts = first_tokens(ends)
        places = real[firsts] if len(real) else real
        for module in after_queries(encoder.layer[-1]):
            if isinstance(module, FastDropout):
                module.ids = ids[:, firsts]
    if token_type_ids is not None:
        given["token_type_ids"] = stream(token_type_ids)
    positions = POSITIONS[backbone.config.model_type](input_ids, backbone.config.pad_token_id)
    output = plain(
        backbone, input_ids=stream(input_ids), position_ids=stream(positions),
        cu_seq_lens_q=ends, cu_seq_lens_k=ends, max_length_q=longest, max_length_k=longest, **given,
    )  # fmt: skip
    hidden = output.last_hidden_state[0, : len(places)]  # without the filling, (., D)
    padded = hidden.new_zeros(rows * width, hidden.shape[1]).index_copy(0, places, hidden)
    output.last_hidden_state = padded.view(rows, width, -1)
    if getattr(backbone, "pooler", None) is not None:
        output.pooler_output = pool_again(backbone, output.last_hidden_state)
    return output


def run_as_stream(backbone: PreTrainedModel) -> None:
    """Replace `backbone.forward` in place; its class must be a row of POSITIONS and its attention
    that of attention.py. Parameters and modules keep their names, and a deep copy is its own. Where
    encoder.py has written the last layer out for first tokens, all others come back as zeros."""
    backbone.forward = MethodType(stream_forward, backbone)
