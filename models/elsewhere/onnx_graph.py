"""A classifier as an ONNX graph: token ids and mask in, logits out, any number of rows and tokens.

torch's exporter runs the model once on an example and writes down what it did. A dimension that is
meant to vary may come out fixed, without a word (pytorch#152018). So rows of
several shapes and the model's answers to them go with the graph, and it is asked for them.
"""

import copy
import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from files.errors import meets_limit, one_line
from models.apart import logits_in, needs_apart
from models.architectures import longest_text
from models.heads import transformers_model
from models.methods.method import can_merge, merge, tokens_in_front

SHAPES = ((1, 3), (1, 512), (7, 33), (32, 128))  # (rows, tokens) that a graph is compared at
EXAMPLE = (3, 11)  # that the exporter sees: no two sizes alike, and none of them 1
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
GRAPH, REFERENCE = "model.onnx", "shapes.npz"


class LogitsAlone(nn.Module):
    """A model that returns its logits (B, C) and nothing beside them."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> Tensor:
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
        if token_type_ids is not None:
            inputs["token_type_ids"] = token_type_ids
        return logits_in(self.model(**inputs))


def why_no_graph(model: nn.Module) -> str | None:
    """Why a classifier is no graph of batches; None where it may be one."""
    if (reason := needs_apart(model)) is not None:
        return f"its batches run in parts, for {reason}, and a graph runs all rows alike"
    return None


def inputs_of(tokenizer: Any) -> tuple[str, ...]:
    """What the graph takes, in order: token types only where the tokenizer gives some."""
    return tuple(
        name for name in INPUTS if name != INPUTS[2] or name in tokenizer.model_input_names
    )


def write_graph(model: nn.Module, tokenizer: Any, folder: Path) -> None:
    """Write a classifier that runs plainly (fp32, on the CPU, in evaluation mode) as GRAPH, and
    what it answers at SHAPES as REFERENCE. A method is merged where it can be; `model` itself stays
    as it was. Raises ValueError where the exporter fails."""
    plain = copy.deepcopy(model)
    if can_merge(plain):
        merge(plain)
    transformers_model(plain).config.use_cache = False  # a classifier goes on with nothing
    wrapped, names = LogitsAlone(plain).eval(), inputs_of(tokenizer)
    limit = longest_text(transformers_model(plain))
    if limit is not None:
        limit -= tokens_in_front(plain)
    shapes = [(rows, min(tokens, limit or tokens)) for rows, tokens in SHAPES]
    words, pad = len(tokenizer), tokenizer.pad_token_id
    try:
        with quiet_export():
            batch, length = torch.export.Dim("batch"), torch.export.Dim("length")
            program = torch.onnx.export(
                wrapped, tuple(draw_rows(EXAMPLE, words, pad, names).values()),
                dynamo=True, verbose=False, input_names=list(names), output_names=["logits"],
                dynamic_shapes=tuple({0: batch, 1: length} for _ in names),
            )  # fmt: skip
            assert program is not None
            for node in program.model.graph.all_nodes():
                node.metadata_props.clear()  # lines of our files, with their places on this machine
            program.save(folder / GRAPH)
    except Exception as error:  # it stumbles over anything that a model's code can hold
        if meets_limit(error):
            raise
        raise ValueError(
            f"torch cannot write this model as a graph: {one_line(innermost(error))}; its "
            "architecture has no ONNX form here: use --to transformers or sentence-transformers"
        ) from error
    rows = [draw_rows(shape, words, pad, names) for shape in shapes]
    save_reference(folder / REFERENCE, wrapped, rows)


def draw_rows(
    shape: tuple[int, int], words: int, pad: int, names: tuple[str, ...]
) -> dict[str, Tensor]:
    """Rows of random tokens (B, T) by the names of a graph's inputs. The first is full, each other
    one shorter and padded behind; the second half of each is a pair's second text."""
    rows, tokens = shape
    draw = torch.Generator().manual_seed(rows * 1000 + tokens)
    ids = torch.randint(0, words, shape, generator=draw)  # (B, T)
    ids[ids == pad] = (pad + 1) % words  # in some models a pad token ends a text
    lengths = torch.tensor([max(1, tokens - row * 3 % tokens) for row in range(rows)])[:, None]
    places = torch.arange(tokens)
    real = places < lengths  # (B, T)
    types = (places >= lengths // 2) & real
    inputs = (ids.masked_fill(~real, pad), real.long(), types.long())
    return {name: tensor for name, tensor in zip(INPUTS, inputs, strict=True) if name in names}


def save_reference(path: Path, model: nn.Module, batches: list[dict[str, Tensor]]) -> None:
    """Keep rows and the logits (B, C) that a model gives them, for a check without torch: arrays
    "0/input_ids", … and "0/logits", a number for each shape."""
    arrays: dict[str, np.ndarray] = {}
    for number, inputs in enumerate(batches):
        with torch.no_grad():
            named = inputs | {"logits": model(*inputs.values())}
        arrays |= {f"{number}/{name}": tensor.numpy() for name, tensor in named.items()}
    np.savez_compressed(path, allow_pickle=False, **arrays)


def innermost(error: BaseException) -> BaseException:
    """What an error began with: the exporter wraps it in advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


@contextmanager
def quiet_export() -> Iterator[None]:
    """Without what the exporter reports of its steps, and its warnings."""
    level = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
