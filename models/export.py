"""A trained model as files that others can open: transformers' layout for full weights, PEFT's for
adapters, a head of ours beside them, and openloop.json, from which load_exported rebuilds it all.

    native, no adapters      config.json, model.safetensors: AutoModelForSequenceClassification
    native, LoRA             adapter_config.json, adapter_model.safetensors: peft.PeftModel
    own head, no adapters    the backbone as AutoModel opens it  } head.json, head.safetensors
    own head, LoRA           the backbone's adapter for PEFT     } (and head_code.py)
    always                   tokenizer files, labels.json, openloop.json

A config.json never stands beside an adapter_config.json: it would break from_pretrained there.
"""

import json
import sys
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import nn
from transformers import PreTrainedModel

from models.adapter_files import write_adapter
from models.args import ModelArgs
from models.build import Built, load_exported
from models.heads import Classifier, head_file, transformers_model
from models.load import quiet_transformers, resolve_source
from models.lora import adapters_of, plain_state
from models.record import HEAD_CODE, read_record, write_record

__all__ = ["export_model", "load_exported", "loading_snippet"]


def export_model(built: Built, args: ModelArgs, tokenizer: Any, folder: str | Path) -> None:
    """Write a model as it now stands into `folder`, made if it is not there.

    Where the base exists in memory only (a run with adapters was trained further), it is written
    too, into base/. Raises ValueError when adapters are merged: what is stored is the two apart.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    model = transformers_model(built.model)
    if args.lora is None:
        _save_transformers(model, folder)
    else:
        if any(adapter.merged for adapter in adapters_of(built.model).values()):
            raise ValueError("the model's adapters are merged: call unmerge_lora before the export")
        write_adapter(built.model, args.lora, _base_path(built.base), args.revision, folder)
        if built.base["in_memory"]:
            _save_transformers(model, folder / "base")
    if isinstance(built.model, Classifier):
        _save_head(built.model.head, model.config.hidden_size, args, folder)
    tokenizer.save_pretrained(folder)
    labels: dict[str, Any] = {"kind": args.kind, "names": list(args.label_names)}
    if args.kind == "regression":
        labels |= {"target_mean": args.target_mean, "target_deviation": args.target_deviation}
    _write_json(folder / "labels.json", labels)
    write_record(folder, args, built.base)


def _save_transformers(model: PreTrainedModel, folder: Path) -> None:
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
    if head_file(args.head_kind):  # the code that ran, whatever the file holds by now
        (folder / HEAD_CODE).write_bytes(sys.modules[type(head).__module__].code)


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _base_path(base: dict[str, Any]) -> str | None:
    """Where PEFT finds the base of an adapter: the hub's name, or a folder on this machine."""
    if base["in_memory"]:
        return None
    source = base["source"]
    return source.removeprefix("hub:") if source.startswith("hub:") else resolve_source(source)


def loading_snippet(
    folder: str | Path,
    args: ModelArgs,
    max_length: int = 512,
    truncation: str = "right",
    pairs: bool = False,
) -> str:
    """Python that opens an exported folder with transformers and PEFT, for people to copy.

    It leaves `tokenizer`, `model` and `logits (2, C)` behind, of two texts or of two `pairs`; for a
    regression also `values (2,)`, in the labels' own unit. A model with a head of ours opens with
    openloop; then it also shows how the backbone alone opens elsewhere, as `backbone`.
    """
    columns = "texts, others" if pairs else "texts"
    texts = (
        f'tokenizer.truncation_side = "{truncation}"\n'
        'texts = ["It was good.", "Not a fan."]\n'
        + ('others = ["I liked it.", "I liked it too."]\n' if pairs else "")
        + f"inputs = tokenizer({columns}, padding=True, truncation=True, max_length={max_length}, "
        'return_tensors="pt")'
    )
    values = []
    if args.kind == "regression":
        scale = f"* {args.target_deviation!r} + {args.target_mean!r}"
        values = [f"values = logits.squeeze(-1).double() {scale}  # in the labels' own unit"]
    imports = ["import torch"]
    if args.head_kind == "native":
        loading = _transformers_lines(folder, args, "AutoModelForSequenceClassification", "model")
        end = ["with torch.no_grad():", "    logits = model(**inputs).logits"]
        return "\n".join([*imports, *loading, texts, *end, *values]) + "\n"
    allow = ", allow_code=True" if head_file(args.head_kind) else ""
    lines = [
        *imports,
        "from models.export import load_exported  # openloop's: the head is its own",
        "",
        f"model, tokenizer, args = load_exported({str(folder)!r}{allow})",
        texts,
        "with torch.no_grad():",
        "    logits = model(**inputs)",
        *values,
        "",
        "# the backbone alone, without the head, needs no openloop:",
        *_transformers_lines(folder, args, "AutoModel", "backbone"),
    ]
    return "\n".join(lines) + "\n"


def _transformers_lines(folder: str | Path, args: ModelArgs, auto: str, name: str) -> list[str]:
    """Lines that open `folder` as `name` with transformers, and PEFT where it holds an adapter."""
    lines = ["from peft import PeftModel  # pip install peft"] if args.lora is not None else []
    lines += [f"from transformers import {auto}, AutoTokenizer", "", f"folder = {str(folder)!r}"]
    lines += ["tokenizer = AutoTokenizer.from_pretrained(folder)"]
    if args.lora is None:
        return [*lines, f"{name} = {auto}.from_pretrained(folder).eval()"]
    return [*lines, *_adapter_lines(folder, args, auto, name)]


def _adapter_lines(folder: str | Path, args: ModelArgs, auto: str, name: str) -> list[str]:
    base = read_record(folder)["base"]
    lines, extra = [], ""
    if base["in_memory"]:
        lines += ['base = folder + "/base"']
    elif base["source"].startswith("package:"):
        package, _, inside = base["source"].removeprefix("package:").partition("/")
        lines += [
            "from importlib.util import find_spec",
            f"base = find_spec({package!r}).submodule_search_locations[0] + {'/' + inside!r}",
        ]
    else:
        lines += [f"base = {_base_path(base)!r}"]
        extra = f", revision={args.revision!r}" if args.revision else ""
    if args.head_kind == "native":  # the base's own head, if it has one, gives way
        extra += f", num_labels={args.num_labels}, ignore_mismatched_sizes=True"
    return [
        *lines,
        f"{name} = {auto}.from_pretrained(base{extra})",
        f"if len(tokenizer) > {name}.get_input_embeddings().num_embeddings:",
        f"    {name}.resize_token_embeddings(len(tokenizer), mean_resizing=False)",
        f"{name}.config.pad_token_id = tokenizer.pad_token_id",
        f"{name} = PeftModel.from_pretrained({name}, folder).eval()",
    ]
