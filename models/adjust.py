"""A loaded architecture made to suit a run: its labels, its dropouts, room for the pad token."""

from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, PretrainedConfig

from files.errors import meets_limit, one_line
from models.architectures import longest_text, reads_end, token_table
from models.args import CHAT, ModelArgs
from models.heads import is_language_model
from models.language import end_tokens
from models.limits import check_bytes
from models.quiet import quiet_transformers

PROBLEM_TYPES = {
    "single": "single_label_classification",
    "multi": "multi_label_classification",
    "regression": "regression",
}
LEAST = 3  # positions for a text: a token between two special ones
HEAD_DROPOUTS = ("classifier_dropout", "classifier_dropout_prob", "seq_classif_dropout")


def adjust_config(config: Any, args: ModelArgs) -> list[str]:
    """Write labels, where there are any, and dropouts into a config before its model is made;
    returns notes.

    Raises ValueError when head.dropout is set for a native head that has none.
    """
    if args.kind != CHAT:
        _write_labels(config, args)
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
    notes = [f"dropout: {shown or 'none'}"]
    if getattr(config, "attention_type", None) == "block_sparse":
        # BigBird draws blocks from numpy's generator, and gives them up for good at its first short
        # batch: what a text is answered would depend on what came before
        config.attention_type = "original_full"
        notes.append("attention: of all tokens, where this model also knows blocks drawn at random")
    return notes


def _write_labels(config: Any, args: ModelArgs) -> None:
    names = args.label_names or tuple(f"LABEL_{i}" for i in range(args.num_labels))
    config.id2label = dict(enumerate(names))
    config.label2id = {name: i for i, name in enumerate(names)}
    config.problem_type = PROBLEM_TYPES[args.kind]
    config.use_cache = False  # a classifier reads each text once


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

    New rows are zero: a pad token is masked, so its row is never read into a real token's output. A
    language model is given rows for words alone, which begin as the mean of the others (Hewitt
    2021): a row of zeros would be a likelier word than most.
    """
    notes = []
    table: Any = token_table(model)
    rows = len(tokenizer) if table is None else table.weight.shape[0]
    if len(tokenizer) > rows:
        width = model.get_input_embeddings().weight.shape[1]
        check_bytes(
            4 * width * len(tokenizer), f"a table of the tokenizer's {len(tokenizer):,} words"
        )
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        written = is_language_model(model)
        tables = [model.get_input_embeddings(), model.get_output_embeddings() if written else None]
        for weight in {id(t.weight): t.weight for t in tables if t is not None}.values():
            weight[rows:] = weight[:rows].mean(0) if written else 0
        what = "as the mean of them" if written else "of zeros"
        notes.append(
            f"embeddings: {len(tokenizer) - rows} row(s) {what} added after the first {rows}, "
            f"for what the tokenizer has beyond them (its pad token is {tokenizer.pad_token!r})"
        )
    for config in {id(c): c for c in (model.config, model.config.get_text_config())}.values():
        config.pad_token_id = tokenizer.pad_token_id
    return notes


def fit_tokenizer(model: Any, tokenizer: Any, args: ModelArgs) -> list[str]:
    """Make a model and its tokenizer suit each other: a row for each token, no text longer than the
    model has positions for, less those that a method takes; returns notes. Raises ValueError where
    none are left, where a head looks for end tokens that the tokenizer does not set, and where
    nothing would learn the rows of a language model's new words."""
    method = args.method
    end = getattr(model.config, "eos_token_id", None)
    if reads_end(model) and end not in tokenizer("a")["input_ids"]:
        raise ValueError(
            f"the head of {model.config.model_type!r} reads a text at its end token, id {end}, and "
            "this tokenizer ends no text with it: give the model's own tokenizer"
        )
    longest = longest_text(model)
    if longest is not None and method is not None:
        taken = method.positions(model)
        if longest - taken < LEAST:
            raise ValueError(
                f"{method.kind}.tokens takes {taken} of the model's {longest} positions; a text "
                f"needs {LEAST} or more"
            )
        longest -= taken
    if longest is not None:
        tokenizer.model_max_length = min(tokenizer.model_max_length, longest)
    if args.kind == CHAT and args.trains != "all":
        rows = model.get_input_embeddings().num_embeddings
        if new := [word for word, i in tokenizer.get_vocab().items() if i >= rows]:
            raise ValueError(
                "the tokenizer has words that the model has no row for: "
                f"{', '.join(new[:4])}. With model.train = {args.trains!r} nothing would learn "
                "them: leave them out, of a chat template too, or set model.train = 'all'"
            )
    return fit_embeddings(model, tokenizer)


def fit_generation(model: Any, tokenizer: Any, folder: str) -> list[str]:
    """Give a language model the settings that it was published with for writing text, and the
    tokens that end a reply and that pad; returns notes. Raises ValueError where they cannot be
    read."""
    if (Path(folder) / "generation_config.json").is_file():
        try:
            with quiet_transformers():
                config = GenerationConfig.from_pretrained(folder, local_files_only=True)
        except Exception as error:  # a config class may stumble over anything that a file can hold
            if meets_limit(error):
                raise
            raise ValueError(
                f"generation_config.json in {folder} cannot be used: {one_line(error)}"
            ) from error
        model.generation_config = config
    ends = end_tokens(model, tokenizer)
    settings = model.generation_config
    settings.eos_token_id = ends[0] if len(ends) == 1 else ends
    settings.pad_token_id = tokenizer.pad_token_id
    try:
        settings.validate(strict=True)
    except ValueError:  # a temperature without sampling, mostly: transformers would not save it
        settings.do_sample = True
        try:
            settings.validate(strict=True)
        except ValueError as error:
            raise ValueError(
                f"generation_config.json in {folder} contradicts itself: {one_line(error)}"
            ) from error
        return ["generation: the source's settings draw words, so do_sample is true"]
    return []


def recompute_activations(model: Any) -> None:
    """Switch activation checkpointing on. Raises ValueError where transformers has none."""
    if not model.supports_gradient_checkpointing:
        raise ValueError(
            f"model.activation_checkpointing is true, but transformers has none for "
            f"{model.config.model_type!r}: leave it out"
        )
    model.activation_checkpointing_enable({"use_reentrant": False})
