"""A loaded architecture made to suit a run: its labels, its dropouts, room for the pad token."""

from typing import Any

import torch
from transformers import PretrainedConfig

from models.args import ModelArgs
from models.limits import check_bytes

PROBLEM_TYPES = {
    "single": "single_label_classification",
    "multi": "multi_label_classification",
    "regression": "regression",
}
HEAD_DROPOUTS = ("classifier_dropout", "classifier_dropout_prob", "seq_classif_dropout")


def adjust_config(config: Any, args: ModelArgs) -> list[str]:
    """Write labels and dropouts into a config before its model is made; returns notes.

    Raises ValueError when head.dropout is set for a native head that has none.
    """
    names = args.label_names or tuple(f"LABEL_{i}" for i in range(args.num_labels))
    config.id2label = dict(enumerate(names))
    config.label2id = {name: i for i, name in enumerate(names)}
    config.problem_type = PROBLEM_TYPES[args.kind]
    config.use_cache = False  # a classifier reads each text once
    dropouts = dropout_fields(config)
    if args.dropout is not None:
        for name in dropouts:
            setattr(config, name, args.dropout)
    if args.head_kind == "native" and args.head_dropout is not None:
        fields = [name for name in HEAD_DROPOUTS if hasattr(config, name)]
        if not fields:
            raise ValueError(
                f"head.dropout is {args.head_dropout}, but the native head of "
                f"{config.model_type!r} has no dropout; unset it, or use head.kind = 'linear'"
            )
        for name in fields:
            setattr(config, name, args.head_dropout)
    shown = ", ".join(f"{name} {getattr(config, name)}" for name in dropouts)
    return [f"dropout: {shown or 'none'}"]


def dropout_fields(config: PretrainedConfig) -> list[str]:
    """Names of a config's dropout probabilities. LayerDrop is none: it leaves out whole layers."""
    return [
        name
        for name, value in config.to_dict().items()
        if "drop" in name
        and "layerdrop" not in name
        and isinstance(value, int | float)
        and not isinstance(value, bool)
    ]


@torch.no_grad()
def fit_embeddings(model: Any, tokenizer: Any) -> list[str]:
    """Give a tokenizer that was given a pad token its row in the model; returns notes.

    New rows are zero: a pad token is masked, so its row is never read into a real token's output.
    """
    notes = []
    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        width = model.get_input_embeddings().weight.shape[1]
        check_bytes(
            4 * width * len(tokenizer), f"a table of the tokenizer's {len(tokenizer):,} words"
        )
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        model.get_input_embeddings().weight[rows:] = 0
        notes.append(
            f"embeddings: {len(tokenizer) - rows} row(s) of zeros added after the first {rows}, "
            f"for what the tokenizer has beyond them (its pad token is {tokenizer.pad_token!r})"
        )
    model.config.pad_token_id = tokenizer.pad_token_id
    return notes
