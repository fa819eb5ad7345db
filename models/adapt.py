"""A loaded model made to learn: the method put in, what trains marked."""

from typing import Any

from torch import nn

from models.args import ModelArgs
from models.heads import head_modules
from models.trainable import choose_trainable, trains_whole


def adapt(
    model: nn.Module, args: ModelArgs, initialised: list[str], tokenizer: Any, seed: int
) -> list[str]:
    """Put the method of `args` into a model and set requires_grad; `initialised` names what was not
    read from weights. Returns notes."""
    whole = trains_whole(model, args.trains)
    notes = []
    heads = head_modules(model)
    fresh = sorted({n.rpartition(".")[0] for n in initialised if n.partition(".")[0] not in heads})
    if args.method is not None:
        # An adapter on a layer that trains whole would only learn the same thing twice.
        notes += args.method.inject(model, seed, exclude=[*heads, *whole, *fresh])
        whole = trains_whole(model, args.trains)  # a bias has another name below what was put in
        whole += args.method.also_trains(model)
        args.method.start(model, tokenizer)
    choose_trainable(model, args.trains == "all", [*whole, *initialised])
    if initialised:
        notes.append(f"newly initialised, so they train: {', '.join(initialised)}")
    return notes
