"""What a run minimises: the loss for its labels, their weights, the unit of a regression."""

from dataclasses import replace

import torch
from torch import Tensor

from configs.schema import Config
from data.labels.settle import label_array
from data.prepare import Data, label_counts
from engine.curves import MOST_CURVES
from engine.losses import LossFn, at_least_fp32, balanced_weights, build_loss, positive_weights
from engine.targets import IDENTITY, Target, measure_target
from files.verify import sha256
from job.training.probe import shape
from models.args import ModelArgs
from models.code import check_allowed, code_file, load_function, telling_place
from report.format import format_number, join_names

FAR = 10  # labels this many deviations away, or this many times as wide, are in another unit


def choose_loss(
    *, config: Config, data: Data, target: Target, device: torch.device, allow_code: bool
) -> tuple[LossFn, str]:
    """The loss of a run and a sentence about it: the one place where settings become a loss, for
    training, for the evaluations beside it and for --eval-only. By name, so that one more thing
    that it needs is asked of every caller.

    Raises ValueError for class weights that do not go with the classes, and for a loss of the
    user's own that is not allowed or not there.
    """
    if config.train.loss is not None:
        return own_loss(config.train.loss, data.kind, target, allow_code)
    weights = class_weights(config, data)
    loss_fn, sentence = build_loss(
        kind=data.kind,
        class_weights=weights,
        label_smoothing=config.train.label_smoothing,
        device=device,
        target=target,
    )
    if weights is not None:
        pairs = zip(data.label_names, weights, strict=True)
        shown = join_names([f"{name} {weight:.3g}" for name, weight in pairs])
        what = "positive weights" if data.kind == "multi" else "class weights"
        sentence += f", {what}: {shown}"
    if data.kind == "regression":
        sentence += f"; the labels have {describe(target)}"
    return loss_fn, sentence


def own_loss(name: str, kind: str, target: Target, allow_code: bool) -> tuple[LossFn, str]:
    """The user's own function of train.loss. It is given logits (B, C) in fp32 or more, and the
    labels as our losses take them: of a regression in deviations, as the model answers. What it
    raises, and what is no sum (), becomes a ValueError with the place."""
    check_allowed("train.loss", name, allow_code)
    function, file = load_function("train.loss", name), code_file(name)
    assert file is not None

    def loss_fn(logits: Tensor, labels: Tensor) -> Tensor:
        if kind == "regression":
            labels = target.standardise(labels).to(logits.dtype)
        what = f"train.loss {name!r}: of logits {shape(logits)} and labels {shape(labels)}"
        with telling_place(f"{what} it failed", file):
            loss = function(at_least_fp32(logits), labels)
        if not isinstance(loss, Tensor) or loss.shape != ():
            raise ValueError(f"{what} it gave {shape(loss)}; expected their sum, of shape ()")
        return loss

    return loss_fn, f"code of {name}, sha256 {sha256(file)}"


def describe(target: Target) -> str:
    """A regression's unit in words."""
    mean, deviation = format_number(target.mean), format_number(target.deviation)
    return f"mean {mean} and deviation {deviation}"


def class_weights(config: Config, data: Data) -> list[float] | None:
    """The weights of the classes, in their order; "balanced" is worked out from the training rows.
    None where there are none, or no classes."""
    weights = config.train.class_weights
    if weights is None or data.kind == "regression":
        return None
    if weights == "balanced":
        rows = data.splits["train"]
        counts = label_counts(rows, data.kind, data.label_names)
        if data.kind == "multi":
            return positive_weights(counts, len(rows))
        return balanced_weights(counts)
    if len(weights) != len(data.label_names):
        raise ValueError(
            f"train.class_weights has {len(weights)} numbers; expected {len(data.label_names)}, "
            f"one for each of {join_names(data.label_names)}, in this order"
        )
    return list(weights)


def measure_labels(data: Data) -> tuple[Target, list[str]]:
    """Mean and deviation of the training labels, the identity for classes; and what must be said.

    Raises ValueError for labels too far apart.
    """
    if len(data.label_names) > MOST_CURVES:
        return IDENTITY, [
            f"AUROC and average precision are left out: there are {len(data.label_names):,} "
            f"classes, and they are counted for at most {MOST_CURVES}"
        ]
    if data.kind != "regression":
        return IDENTITY, []
    labels = label_array(data.splits["train"], data.kind)  # (N,) float64
    notes = []
    if labels.min() == labels.max():
        notes.append(
            f"WARNING: every training row has the label {format_number(float(labels[0]))}: there "
            "is nothing to learn; is data.label the right column?"
        )
    return measure_target(labels), notes


def keep_target(args: ModelArgs, kept: tuple[float, float] | None) -> tuple[ModelArgs, list[str]]:
    """The arguments with the (mean, deviation) that a head taken over from the source speaks, and
    a note; as they are where the head is new, or the labels are in another unit."""
    if kept is None:
        return args, []
    own, head = target_of(args), Target(*kept)
    near = abs(own.mean - head.mean) <= FAR * head.deviation
    if near and head.deviation / FAR <= own.deviation <= head.deviation * FAR:
        note = (
            "labels: the head taken over from the source speaks in deviations of its own labels, "
            f"and so does this run: {describe(head)}"
        )
        return replace(args, target_mean=head.mean, target_deviation=head.deviation), [note]
    note = (
        f"labels: {describe(own)}, in another unit than the head taken over from the source "
        f"speaks ({describe(head)}); standardised anew, and the head has to learn the rest"
    )
    return args, [note]


def target_of(args: ModelArgs) -> Target:
    """The unit in which a model answers."""
    return Target(args.target_mean, args.target_deviation)
