"""A trained model as files that others can open: transformers' layout for full weights, PEFT's for
adapters, a head of ours beside them, and openloop.json, from which load_exported rebuilds it all.

    native, no adapters      config.json, model.safetensors: AutoModelForSequenceClassification
    a language model         likewise: AutoModelForCausalLM; generation_config.json; no labels.json
    native, LoRA             adapter_config.json, adapter_model.safetensors: peft.PeftModel
    native, prompt, prefix   as LoRA, where PEFT has a form of it
    native, another method   method.safetensors: openloop alone
    own head, no adapters    the backbone as AutoModel opens it  } head.json, head.safetensors
    own head, LoRA           the backbone's adapter for PEFT     } (and head_code.py)
    always                   tokenizer files with a chat template, labels.json, openloop.json
    a bag of n-grams         ngrams.npz, predict_ngrams.py, which reads it, and openloop.json
    long texts, not cut      README.md: what is read of them

A config.json never stands beside an adapter_config.json: it would break from_pretrained there.
"""

import json
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import nn
from transformers import PreTrainedModel

from models.args import CHAT, ModelArgs
from models.build import Built, load_transformer
from models.code import HEAD_CODE, code_file, code_that_ran
from models.heads import Classifier, transformers_model
from models.methods.method import added_modules, merge, plain_state, unmerge
from models.ngrams.bag import BAG, NgramBag
from models.ngrams.files import load_bag, save_bag
from models.quiet import quiet_transformers
from models.record import write_record
from models.resolve import resolve_source
from models.texts import Texts
from models.verified import check_exported

__all__ = ["export_merged", "export_model", "load_exported"]


def export_model(
    built: Built, args: ModelArgs, tokenizer: Any, folder: str | Path,
    texts: Texts | None = None, temperature: float = 1.0,
) -> None:  # fmt: skip
    """Write a model as it now stands into `folder`, made if it is not there. How it takes its
    `texts` is noted, and where another tool has to know it, said in a README.md.

    A bag of n-grams also holds the `temperature` by which its logits are divided, for whoever reads
    it without openloop.

    Where the base exists in memory only (a run with a method was trained further), it is written
    too, into base/. Raises ValueError when the method is merged: what is stored is the two apart.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(built.model, NgramBag):
        return save_bag(built, args, tokenizer, folder, temperature)
    model = transformers_model(built.model)
    if args.method is None:
        save_transformers(model, folder)
    else:
        if any(module.merged for module in added_modules(built.model).values()):
            raise ValueError("the model's method is merged: call unmerge before the export")
        args.method.write(built.model, base_path(built.base), args.revision, folder)
        if built.base["in_memory"]:
            save_transformers(model, folder / "base")
    if isinstance(built.model, Classifier):
        _save_head(built.model.head, model.config.get_text_config().hidden_size, args, folder)
    tokenizer.save_pretrained(folder)
    if args.kind == CHAT:
        model.generation_config.save_pretrained(folder)
    else:
        _write_labels(args, folder)
    if texts is not None and texts.sentence:
        (folder / "README.md").write_text(texts.sentence + ".\n", encoding="utf-8")
    write_record(folder, args, built.base, texts)


def load_exported(
    folder: str | Path, allow_code: bool = False, base: str | Path | None = None,
    allow_network: bool = False, verified: bool = False,
) -> tuple[nn.Module, Any, ModelArgs]:  # fmt: skip
    """(model in evaluation mode, tokenizer, arguments) of what export_model wrote; arguments and
    errors as those of load_transformer."""
    folder = Path(folder)
    if not (folder / BAG).is_file():
        return load_transformer(folder, allow_code, base, allow_network, verified)
    if base is not None:
        raise ValueError(f"{folder} holds all its weights; leave out --base {base}")
    if not verified:
        check_exported(folder)
    return load_bag(folder)


def export_merged(model: nn.Module, tokenizer: Any, folder: str | Path) -> float:
    """Write a native model with its method merged into its weights, as transformers' own class
    opens it, with the tokenizer and of a language model the settings of its generation; the model
    itself stays as it was. Returns the drift, as merge does. Raises ValueError where it cannot be
    merged."""
    inner = transformers_model(model)
    if isinstance(model, Classifier):
        raise ValueError("a head of ours is no part of transformers' model: nothing would open it")
    drift = merge(model)
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        save_transformers(inner, Path(folder))
    finally:
        unmerge(model)
    tokenizer.save_pretrained(folder)
    return drift


def _write_labels(args: ModelArgs, folder: Path) -> None:
    labels: dict[str, Any] = {"kind": args.kind, "names": list(args.label_names)}
    if args.kind == "regression":
        labels |= {"target_mean": args.target_mean, "target_deviation": args.target_deviation}
    _write_json(folder / "labels.json", labels)


def save_transformers(model: PreTrainedModel, folder: Path) -> None:
    """Write a transformers model as its own class opens it, without what a method put beside it;
    what is merged stays in the weights."""
    with quiet_transformers():
        model.save_pretrained(folder, state_dict=plain_state(model))


def _save_head(head: nn.Module, hidden_size: int, args: ModelArgs, folder: Path) -> None:
    state = {n: t.detach().cpu().contiguous().clone() for n, t in head.state_dict().items()}
    save_file(state, folder / "head.safetensors", metadata={"format": "pt"})
    about = {
        "kind": args.head_kind,
        "class": type(head).__name__,
        "hidden_size": hidden_size,
        "num_labels": args.num_labels,
        "pool": args.head_pool,
        "args": args.head_args,
    }
    _write_json(folder / "head.json", about)
    if code_file(args.head_kind):
        (folder / HEAD_CODE).write_bytes(code_that_ran(type(head)))


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def base_path(base: dict[str, Any]) -> str | None:
    """Where PEFT finds the base of an adapter: the hub's name, or a folder on this machine."""
    if base["in_memory"]:
        return None
    source = base["source"]
    return source.removeprefix("hub:") if source.startswith("hub:") else resolve_source(source)
