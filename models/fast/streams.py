"""Batches without padding: the backbone sees one stream of real tokens, the head sees them padded.

Replaces the backbone's forward by one that takes the padding out, runs the plain forward on
input_ids (1, N) with position_ids (1, N) and the layout of the texts (layout.py), and puts the
padding back, as zeros. The linear layers then work on hardly any padding; cpu/attention.py or
cuda/attention.py keeps the texts of a stream apart. The rows of a step stay what they were. Gain:
see benchmarks/ablation.md.

A stream is filled up to a multiple of 64 tokens that no text owns, one percent of a usual batch. On
a CPU oneDNN makes and keeps its kernels for each length it meets, half a megabyte a product, and
without the filling nearly every step is of a new length (benchmarks/LOG.md 24); a GPU multiplies
lengths that are multiples of 8 faster.
"""

from collections.abc import Callable
from functools import partial
from types import MethodType
from typing import Any

import torch
from torch import Tensor

from models.fast.cpu.dropout import FastDropout, NamedRows, carry_rows
from models.fast.layout import Layout, layout_of
from models.methods.prefixed import keys_in_front
from models.methods.virtual import lengthen
from models.positions import column_positions, counted_positions

DECODERS = ("gemma", "gpt2", "llama", "mistral", "qwen2", "qwen3")  # each token looks back only
POSITIONS: dict[str, Callable[[Tensor, int | None], Tensor]] = {
    "albert": column_positions,
    "bert": column_positions,
    "distilbert": column_positions,
    "electra": column_positions,
    **dict.fromkeys(DECODERS, column_positions),
    "roberta": counted_positions,
    "xlm-roberta": counted_positions,
}


def pool_again(backbone: Any, hidden: Tensor) -> Tensor:
    """The architecture's own pooler on padded hidden (B, T, D): it looks at each row's first
    token, and a stream has but one row."""
    if backbone.config.model_type == "albert":  # its pooler is a bare Linear
        return backbone.pooler_activation(backbone.pooler(hidden[:, 0]))
    return backbone.pooler(hidden)


def stream_forward(
    backbone: Any, input_ids: Tensor | None = None, attention_mask: Tensor | None = None,
    token_type_ids: Tensor | None = None, position_ids: Tensor | None = None,
    layout: Layout | None = None, **others: Any,
) -> Any:  # fmt: skip
    """The backbone's forward on the stream of real tokens of input_ids (B, T); what is not a
    plain padded batch goes the plain way, as generation with a cache does. In a decoder a text
    begins wherever position_ids do not go on by one; without a mask all tokens of such a batch are
    real. `layout` is the batch's own where it is known already: without it the mask is asked, for
    which a host has to wait on CUDA."""
    plain = type(backbone).forward
    causal = backbone.config.model_type in DECODERS
    keywords = {name: value for name, value in others.items() if value is not None}
    for name, value in (("return_dict", True), ("use_cache", False)):  # what it does here anyway
        if name in keywords and bool(keywords[name]) == value:
            del keywords[name]
    mask = attention_mask
    if mask is None and causal and input_ids is not None and position_ids is not None:
        mask = torch.ones_like(input_ids)
    if input_ids is None or mask is None or mask.dim() != 2 or keywords:
        optional = {"token_type_ids": token_type_ids, "position_ids": position_ids}
        keywords |= {name: value for name, value in optional.items() if value is not None}
        keywords |= {name: others[name] for name in ("use_cache",) if name in others}
        with NamedRows(None):
            return plain(backbone, input_ids=input_ids, attention_mask=attention_mask, **keywords)
    if layout is None:
        layout = lay_out_rows(mask, position_ids if causal else None)
    if token_type_ids is not None:
        keywords["token_type_ids"] = layout.stream(token_type_ids)
    if backbone.prefix_tokens:
        layout = layout.with_prefix(backbone.prefix_tokens)
    if position_ids is None:
        # the id that its positions go by, whatever the tokenizer pads with
        pad = getattr(getattr(backbone, "embeddings", None), "padding_idx", None)
        position_ids = POSITIONS[backbone.config.model_type](input_ids, pad)
    if causal:
        keywords["use_cache"] = False
    on_stream = getattr(backbone, "written", partial(plain, backbone))  # as decoder.py writes it
    with NamedRows(layout.ids):
        output = on_stream(
            input_ids=layout.stream(input_ids), position_ids=layout.stream(position_ids),
            layout=layout, **keywords,
        )  # fmt: skip
    output.last_hidden_state = layout.padded(output.last_hidden_state)
    if getattr(backbone, "pooler", None) is not None:
        output.pooler_output = pool_again(backbone, output.last_hidden_state)
    return output


def lay_out_rows(mask: Tensor, positions: Tensor | None) -> Layout:
    """The layout of a batch that lies on any device, there."""
    places = None if positions is None else positions.expand_as(mask).cpu()
    return layout_of(mask.cpu(), places).to(mask.device)


def lay_out(batch: dict[str, Any], in_front: int) -> dict[str, Any]:
    """A batch that is still on the host, with its layout among the inputs: stream_forward then asks
    the device nothing. The model puts so many tokens `in_front` of each text. Where a batch has
    position_ids, its rows are packs."""
    inputs = batch["inputs"]
    mask, positions = inputs["attention_mask"], inputs.get("position_ids")
    if in_front:
        assert positions is None, "nothing goes in front of the texts in a pack"
        mask = lengthen({"input_ids": mask, "attention_mask": mask}, in_front, 0)["attention_mask"]
    return {**batch, "inputs": {**inputs, "layout": layout_of(mask, positions)}}


def run_as_stream(backbone: Any) -> None:
    """Replace `backbone.forward` in place; its class must be a row of POSITIONS and its attention
    that of attention.py. Parameters and modules keep their names, and a deep copy is its own. Where
    encoder.py has written the last layer out for first tokens, all others come back as zeros."""
    backbone.prefix_tokens = keys_in_front(backbone)
    backbone.forward = MethodType(stream_forward, backbone)
    for module in backbone.modules():
        if isinstance(module, FastDropout):
            module.in_stream = True
    if any(getattr(module, "gradient_checkpointing", False) for module in backbone.modules()):
        kwargs = {"use_reentrant": False, "context_fn": carry_rows}
        backbone.activation_checkpointing_enable(kwargs)
