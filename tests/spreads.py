"""What a process does in test_spreads.py: a few steps of a model of ours, spread in some way."""

from dataclasses import replace
from typing import Any

import torch

from engine.gradients import whole
from engine.losses import build_loss, loss_from_logits
from engine.sharded import mesh_of, shard_model, through_whole
from engine.windows import own_micro_batches
from job.chatting.loss import chat_loss
from models.args import ModelArgs
from models.blocks import blocks_of
from models.build import build_model
from models.load import load_tokenizer
from models.methods import METHODS
from models.methods.lora import LoRA
from models.split import split_layers
from tests.engine.conftest import build_rig, make_rows

WAYS: dict[str, dict[str, Any]] = {
    name: {"method": kind(**values)}
    for kind in METHODS.values()
    for name, values in kind.small.items()
} | {
    "rsLoRA": {"method": LoRA(targets="all-linear", rank=2, variant="rslora")},
    "every weight": {"train": "all"},
    "last layer": {"train": "last:1"},
    "head": {"train": "head"},
    "biases": {"train": "bias"},
    "recomputed": {"train": "all", "activation_checkpointing": True},
}
CPU = torch.device("cpu")


def make_chats(count: int) -> dict[str, Any]:
    """Rows of tokens, each of which is followed by the next."""
    rows = make_rows(count)
    ids, mask = rows["inputs"]["input_ids"] + 3, rows["inputs"]["attention_mask"]
    labels = torch.where(mask.bool(), ids, -100).roll(-1, 1)
    labels[:, -1] = -100
    rows["inputs"]["input_ids"] = ids
    return {**rows, "labels": labels}


def train(
    source: str, way: str, kind: str, shard: str | None, tensor: int, dropout: float | None = None
) -> dict[str, Any]:
    """Losses, norms and all weights after some steps in float64."""
    labels = (
        {"num_labels": 2, "label_names": ("no", "yes")} if kind != "chat" else {"num_labels": 0}
    )
    args = ModelArgs(
        source=source, kind=kind, dropout=0.0 if tensor > 1 else dropout, allow_code=True, **labels
    )
    args = replace(args, **WAYS[way])
    tokenizer = load_tokenizer(source, chat=kind == "chat")
    model = build_model(args, tokenizer, 0).model.double()
    blocks = blocks_of(model)
    if tensor > 1:
        split_layers(model, mesh_of("cpu", "full")["tensor"])
    if shard is not None:
        shard_model(model, blocks, CPU, shard)
    if kind == "chat":
        rows, compute_loss = make_chats(10), chat_loss(model)
    else:
        rows, compute_loss = make_rows(10), loss_from_logits(build_loss("single")[0])
    rig = build_rig(
        model, rows, micro_batch_size=2, accumulate=3, epochs=100, max_steps=5,
        compute_loss=compute_loss if shard is None else through_whole(compute_loss),
    )  # fmt: skip
    every = rig.batches
    rig.fit(
        batches=lambda epoch, _: (
            list(every(epoch, 0))[number] for number in own_micro_batches(rig.plan, 0)
        )
    )
    return {
        "losses": [result.loss for result in rig.results],
        "norms": [result.grad_norm for result in rig.results],
        "weights": {name: whole(p.detach()).tolist() for name, p in model.named_parameters()},
    }


def train_each(cases: list[list[Any]]) -> list[dict[str, Any] | str]:
    """Each of the cases, or what was refused of it."""
    results: list[dict[str, Any] | str] = []
    for case in cases:
        try:
            results.append(train(*case))
        except ValueError as error:
            results.append(str(error))
    return results
