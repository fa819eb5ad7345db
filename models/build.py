"""The model of a run: weights, head, method and what trains, from plain arguments and a seed.

build_model makes a new one and load_transformer a finished one. They stand together because each
needs the other: a run may start from a finished run, and a finished run is built before it is
filled.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from models.adapt import adapt
from models.adjust import (
    adjust_config,
    fit_embeddings,
    fit_generation,
    fit_tokenizer,
    recompute_activations,
)
from models.apart import run_apart
from models.architectures import why_native_only, why_no_language
from models.args import CHAT, ModelArgs, args_from_json, check_model_args
from models.base import check_chain, find_base
from models.code import HEAD_CODE, check_allowed, describe_code
from models.counted import check_parameters
from models.heads import Classifier, build_head, load_head_class, transformers_model
from models.language import check_language
from models.limits import check_head
from models.load import (
    hash_weights,
    load_pretrained,
    model_class,
    read_config,
    read_tensors,
    read_tokenizer,
    read_weights,
    resolve_source,
    stored_dtypes,
)
from models.methods.method import merge_source, plain_state
from models.names import named_seed
from models.peft_source import open_adapter
from models.record import copied, read_record
from models.resolve import is_adapter
from models.source import Source, absolute, has_native_head, source_target, thinned, without_head
from models.trainable import head_parameters
from models.verified import RECORD, check_exported

HEAD_DROPOUT = 0.1  # of a head of ours when neither head.dropout nor model.dropout says


@dataclass(frozen=True)
class Built:
    """`head_names`: parameters that learn at the head's rate, its own and any other that was newly
    initialised; `initialised`: parameters not read from weights; `base`: where the weights came
    from, and their hash; `notes`: lines to say before step 1; `target`: (mean, deviation) that a
    regression head taken over from the source speaks, None where the head is new."""

    model: nn.Module
    head_names: set[str]
    initialised: list[str]
    base: dict[str, Any]
    notes: list[str]
    target: tuple[float, float] | None


def build_model(
    args: ModelArgs, tokenizer: Any, seed: int, sha256: str | None = None, verified: bool = False,
    every: int = 1,
) -> Built:  # fmt: skip
    """Load, adapt and mark what trains (requires_grad), in evaluation mode, on the CPU.

    What is drawn depends on `seed` and the names of the parameters alone; torch's own generator is
    left where it was. `sha256` is the hash of the source's weights where it is known already, and
    `verified` says that the source's files were compared with those of its export; `every`: only
    each so-manyth layer is taken. Raises ValueError for what the arguments, the source or a head
    file get wrong.
    """
    check_model_args(args)
    native = args.head_kind == "native"
    own_head = None if native else load_head_class(args.head_kind, args.allow_code)
    check_allowed("the method", args.method_code or "", args.allow_code)
    source = _open_source(args, verified)
    notes = _source_notes(args, source)
    source = thinned(source, every, notes)
    keeps_head = _has_this_head(source, args)
    model: nn.Module
    with torch.random.fork_rng(devices=[]):
        model, initialised = _load_transformers_model(args, source, keeps_head, seed, notes)
        notes += fit_tokenizer(model, tokenizer, args)
        if args.kind == CHAT:
            notes += fit_generation(model, tokenizer, source.folder)
        if own_head is not None:
            model = _add_head(model, own_head, args, seed, notes)
            filled = _load_head(model, source.folder) if keeps_head else set()
            initialised = [f"backbone.{name}" for name in initialised]
            initialised += sorted(head_parameters(model) - filled)
    notes += adapt(model, args, initialised, tokenizer, seed)
    if args.kind == CHAT:
        check_language(model)
    else:
        notes += run_apart(model)
    if args.activation_checkpointing:
        recompute_activations(transformers_model(model))
    base = {
        "source": absolute(args.source),
        "revision": args.revision,
        "sha256": hash_weights(source.folder) if sha256 is None else sha256,
        "in_memory": source.state is not None,
    }
    head_names = head_parameters(model) | set(initialised)
    target = source_target(source) if keeps_head and args.kind == "regression" else None
    return Built(model, head_names, initialised, base, notes, target)


def source_state(args: ModelArgs, tokenizer: Any, base: dict[str, Any]) -> dict[str, Tensor]:
    """The weights a model started from, fp32, by the names they have in it without a method; a
    head of ours is left out, and its code not run. Raises ValueError where the source is no longer
    the one in `base`."""
    source = _open_source(args, verified=False)
    if (digest := hash_weights(source.folder)) != base["sha256"]:
        raise ValueError(
            f"the weights of {args.source} have changed since this run started: sha256 {digest}, "
            f"expected {base['sha256']}; restore them, then finish the run with --resume"
        )
    with torch.random.fork_rng(devices=[]):
        model, _ = _load_transformers_model(args, source, _has_this_head(source, args), 0, [])
        fit_embeddings(model, tokenizer)
    prefix = "" if args.head_kind == "native" else "backbone."
    return {prefix + name: tensor for name, tensor in model.state_dict().items()}


def load_transformer(
    folder: str | Path, allow_code: bool = False, base: str | Path | None = None,
    allow_network: bool = False, verified: bool = False,
) -> tuple[nn.Module, Any, ModelArgs]:  # fmt: skip
    """(model in evaluation mode, tokenizer, arguments) of an exported model folder: the same
    logits, to the bit, as the model that was exported. `base` is where the base of its adapter is
    now, if it has moved; a hub is asked for it only with `allow_network`. `verified` says that the
    folder's files were compared with those of the export.

    Raises ValueError when the folder, or the base it was trained on, is missing or has changed,
    and when it has a head of the user's own that `allow_code` does not allow.
    """
    record = read_record(folder)
    check_chain(folder)
    if not verified:
        check_exported(folder)
    args = args_from_json(record["model"], allow_code, allow_network)
    tokenizer = read_tokenizer(folder)
    source, sha256 = find_base(folder, record, base, allow_network)
    kind = copied(args.head_kind, Path(folder), HEAD_CODE) or args.head_kind
    here = replace(args, source=source, revision=None, head_kind=kind)
    if args.method is not None:
        here = replace(here, method=args.method.as_written(Path(folder)))
    # without a method the folder is its own base
    built = build_model(here, tokenizer, 0, sha256, verified=args.method is None)
    unfilled = set(built.initialised)
    if args.method is not None:
        unfilled -= args.method.read(built.model, Path(folder))
        if isinstance(built.model, Classifier):
            unfilled -= _load_head(built.model, folder)
    if unfilled:
        raise ValueError(f"{folder} holds no weights for {', '.join(sorted(unfilled))}")
    return built.model.eval(), tokenizer, args


def _open_source(args: ModelArgs, verified: bool) -> Source:
    folder = resolve_source(args.source, args.revision)
    if is_adapter(folder) and args.kind == CHAT:
        return Source(folder, *open_adapter(args.source, folder), None)
    if not (Path(folder) / RECORD).is_file():
        return Source(folder, read_config(folder), None, None)
    record = read_record(folder)
    if record["model"]["method"] is None:
        if not verified:
            check_exported(folder)
        return Source(folder, read_config(folder), None, record)
    before, _, _ = load_transformer(folder, args.allow_code, None, args.allow_network)
    merge_source(before, args.source)
    inner = transformers_model(before)
    return Source(folder, inner.config, plain_state(inner), record)


def _has_this_head(source: Source, args: ModelArgs) -> bool:
    """Whether the source holds a head that means the same: same make, pooling and labels; a
    language model's is its own."""
    if args.kind == CHAT:
        return True
    if source.record is not None:
        old = args_from_json(source.record["model"])
        same = ("num_labels", "label_names", "kind", "head_pool", "head_args")
        code, old_code = describe_code(args.head_kind), source.record["head_code"]
        make = code == old_code if code or old_code else args.head_kind == old.head_kind
        return make and all(getattr(old, name) == getattr(args, name) for name in same)
    if args.head_kind != "native" or not has_native_head(source):
        return False
    names = tuple(source.config.id2label[i] for i in range(source.config.num_labels))
    unnamed = all(name.startswith("LABEL_") for name in names)
    named_alike = unnamed or not args.label_names or names == args.label_names
    return len(names) == args.num_labels and named_alike


def _source_notes(args: ModelArgs, source: Source) -> list[str]:
    stored = "with its adapters merged in"
    if source.state is None:
        stored = f"stored as {stored_dtypes(source.folder)}"
    notes = [f"weights: {stored}; master weights are float32"]
    for what, name in (("head", args.head_kind), ("method", args.method_code)):
        if code := describe_code(name):
            notes.append(f"{what}: code of {name}, sha256 {code['sha256']}")
    if args.kind == CHAT:
        return notes
    if _has_this_head(source, args):
        notes.append("head: taken over from the source")
    elif source.record is not None or has_native_head(source):
        notes.append("head: new; the source's own differs in kind, pooling or labels")
    return notes


def _load_transformers_model(
    args: ModelArgs, source: Source, keeps_head: bool, seed: int, notes: list[str]
) -> tuple[PreTrainedModel, list[str]]:
    """The native model, or the bare backbone, and the names it newly initialised."""
    native, state, kind = args.head_kind == "native", source.state, source.config.model_type
    if args.kind == CHAT and (reason := why_no_language(source.config)):
        raise ValueError(f"model.source is of type {kind!r}, which {reason}")
    if native and not keeps_head and has_native_head(source):
        state = read_weights(source.folder) if state is None else state
        state = without_head(state)
    if not native and (reason := why_native_only(source.config)):
        raise ValueError(f"{kind!r} {reason}: only head.kind = 'native'")
    notes += adjust_config(source.config, args)
    check_parameters(model_class(source.config, args.form), source.config, source.folder)
    torch.default_generator.manual_seed(named_seed(seed, "head"))
    loaded = load_pretrained(source.config, source.folder, state, args.form)
    if loaded.unused:
        shown = ", ".join(loaded.unused[:4]) + (", ..." if len(loaded.unused) > 4 else "")
        notes.append(f"weights: {len(loaded.unused)} tensors have no use here: {shown}")
    if args.kind == CHAT and loaded.missing:
        raise ValueError(
            f"{source.folder} holds no language model: it has no weights for "
            f"{', '.join(loaded.missing[:4])}"
        )
    return loaded.model, list(loaded.missing)


def _add_head(
    backbone: Any, head_class: type[nn.Module], args: ModelArgs, seed: int, notes: list[str]
) -> Classifier:
    chosen = (args.head_dropout, args.dropout, HEAD_DROPOUT)
    dropout = next(value for value in chosen if value is not None)
    hidden_size = backbone.config.get_text_config().hidden_size  # dim, n_embd, d_model: by any name
    check_head(hidden_size, args.num_labels, args.head_args)
    torch.default_generator.manual_seed(named_seed(seed, "head"))
    head = build_head(
        head_class, hidden_size, args.num_labels, dropout, args.head_pool, args.head_args
    )
    pooling = f" over {head.pool} pooling" if hasattr(head, "pool") else ""
    notes.append(f"head: {args.head_kind}{pooling}, dropout {dropout}")
    return Classifier(backbone, head, args.window_pool).eval()


def _load_head(model: Classifier, folder: str | Path) -> set[str]:
    """Fill a head of ours from head.safetensors; returns the names that were filled."""
    tensors = read_tensors(Path(folder) / "head.safetensors")
    try:
        model.head.load_state_dict(tensors)
    except RuntimeError as error:
        raise ValueError(f"the head in {folder} does not fit: {error}") from error
    return {f"head.{name}" for name in tensors}
