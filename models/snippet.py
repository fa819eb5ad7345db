"""Python that opens an exported model where there is no openloop, for people to copy."""

from collections.abc import Sequence
from importlib.metadata import packages_distributions, version
from pathlib import Path
from typing import Any

from files.read import read_json
from models.args import CHAT, ModelArgs
from models.code import code_file
from models.export import base_path
from models.gguf import ENDING
from models.ngrams.bag import BAG
from models.record import read_record
from models.texts import Texts, joined_lines, own_head_lines, text_lines

POOLED = {  # hidden (B, T, D) and mask (B, T) -> (B, D), as models/heads.py pools
    "mean": "(hidden * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True)  # of real tokens",
    "cls": "hidden[torch.arange(len(hidden)), mask.argmax(1)]  # the first real token",
    "last": "hidden[torch.arange(len(hidden)), (mask * torch.arange(mask.shape[1])).argmax(1)]",
}
TEXTS = Texts()  # pieces of 512 tokens, cut at the end
SHOWN = 20  # labels that stand in the lines; of more they are read
ACTIVATIONS = {"tanh": "torch.tanh", "relu": "torch.relu", "gelu": "torch.nn.functional.gelu"}


def needs_openloop(folder: str | Path, args: ModelArgs, texts: Texts) -> bool:
    """Whether an exported model opens with openloop alone: its head is code of a user's own, or
    PEFT does not answer as its method does."""
    return code_file(args.head_kind) is not None or not opens_in_peft(folder, args, texts)


def opens_in_peft(folder: str | Path, args: ModelArgs, texts: Texts) -> bool:
    """Whether what the method wrote answers in PEFT as it does here; without a method there is
    nothing to open."""
    if args.method is None:
        return True
    drops = texts.pairs and args.head_kind != "native" and args.method.drops_types
    return args.method.peft and (Path(folder) / "adapter_config.json").exists() and not drops


def loading_snippet(
    folder: str | Path, args: ModelArgs, texts: Texts = TEXTS, decided: Sequence[str] = ()
) -> str:
    """Python that opens an exported folder with torch, transformers and, for adapters, PEFT.

    It leaves `tokenizer` and `logits (B, C)` behind, of two texts or pairs, of one where texts have
    to be asked alone; for a regression also `values (B,)`, in the labels' own unit; and what the
    lines `decided` make of the logits: `probabilities (B, C)`, and `best (B,)` or of several labels
    `holds (B, C)`. The last line prints the answers. A native model is left as `model`, the
    backbone below a head of ours as `backbone`. With a head of a user's own it opens `model` with
    openloop, and then the `backbone` alone without; with a method that PEFT has no form of it opens
    `model` with openloop alone.

    Of a language model it leaves `model`, `tokenizer` and `reply`, to one message.
    """
    if (Path(folder) / BAG).is_file():
        return _bag_snippet(folder, args, texts.pairs)
    if args.kind == CHAT:
        return _chat_snippet(folder, args)
    text_part = text_lines(texts)
    native = args.head_kind == "native"
    values = _answer_lines(args, decided)
    auto, name = ("AutoModelForSequenceClassification", "model") if native else (
        ("AutoModel", "backbone")
    )  # fmt: skip
    in_peft = opens_in_peft(folder, args, texts)
    opened = _transformers_lines(folder, args, auto, name) if in_peft else []
    answer = "logits = model(**inputs)" + (".logits" if native else "")
    answered = [
        *text_part,
        *own_head_lines(texts.windows),
        "with torch.no_grad():",
        f"    {answer}  # (B, C)",
        *values,
    ]
    if needs_openloop(folder, args, texts):
        allow = ", allow_code=True" if args.runs_code else ""
        why = "the head is code of your own" if in_peft else "PEFT has no such method here"
        lines = [
            "import torch",
            f"from models.export import load_exported  # openloop's: {why}",
            "",
            f"folder = {str(folder)!r}",
            f"model, tokenizer, args = load_exported(folder{allow})",
            *answered,
        ]
        if in_peft:
            lines += ["", "# the backbone alone, without the head, needs no openloop:", *opened]
    elif native:
        lines = ["import torch", *opened, *answered]
    else:
        imports = ["import torch", "from safetensors.torch import load_file"]
        lines = [*imports, *opened, *text_part, *_head_lines(args, texts), *values]
    return "\n".join(lines) + "\n"


def _answer_lines(args: ModelArgs, decided: Sequence[str]) -> list[str]:
    """Lines that make answers of `logits`, and print them. Without lines `decided` it is the
    likeliest label, or each that is likelier than not, and nothing is calibrated."""
    if args.kind == "regression":
        scale = f"* {args.target_deviation!r} + {args.target_mean!r}"
        return [
            f"values = logits.squeeze(-1).double() {scale}  # in the labels' own unit",
            "print(values.tolist())",
        ]
    names = list(args.label_names) or [str(i) for i in range(args.num_labels)]
    labels = [f"labels = {names!r}"]
    if len(names) > SHOWN:
        opened = 'open(folder + "/labels.json", encoding="utf-8")'
        labels = ["import json", "", f'labels = json.load({opened})["names"]']
    share = "round(row[i].item(), 4)"
    if args.kind == "multi":
        return [
            *(decided or ["probabilities = logits.sigmoid()  # (B, C)",
                          "holds = probabilities > 0.5  # (B, C)"]),
            *labels,
            "for row, held in zip(probabilities, holds):",
            f"    print({{labels[i]: {share} for i in held.nonzero()[:, 0].tolist()}})",
        ]  # fmt: skip
    return [
        *(decided or ["probabilities = logits.softmax(-1)  # (B, C)",
                      "best = probabilities.argmax(-1)  # (B,)"]),
        *labels,
        "for row, i in zip(probabilities, best.tolist()):",
        f"    print(labels[i], {share})",
    ]  # fmt: skip


def _chat_snippet(folder: str | Path, args: ModelArgs) -> str:
    """Lines that open a language model and let it answer a message."""
    tokenizer_config = Path(folder) / "tokenizer_config.json"
    templated = (Path(folder) / "chat_template.jinja").is_file() or (
        tokenizer_config.is_file() and "chat_template" in read_json(tokenizer_config)
    )
    prompt = ['inputs = tokenizer("Hello!", return_tensors="pt")  # there is no chat template']
    if templated:
        prompt = [
            'messages = [{"role": "user", "content": "Hello!"}]',
            "inputs = tokenizer.apply_chat_template(",
            '    messages, add_generation_prompt=True, return_dict=True, return_tensors="pt"',
            ")",
        ]
    opened = _transformers_lines(folder, args, "AutoModelForCausalLM", "model")
    if needs_openloop(folder, args, TEXTS):
        allow = ", allow_code=True" if args.runs_code else ""
        opened = [
            "from models.export import load_exported  # openloop's: PEFT has no such method here",
            "",
            f"model, tokenizer, args = load_exported({str(folder)!r}{allow})",
        ]
    return "\n".join([
        "import torch",
        *opened,
        *prompt,
        "with torch.no_grad():",
        "    ids = model.generate(**inputs, max_new_tokens=64)",
        'new = ids[0, inputs["input_ids"].shape[1] :]',
        "reply = tokenizer.decode(new, skip_special_tokens=True)",
        "print(reply)",
        "",
    ])  # fmt: skip


def _bag_snippet(folder: str | Path, args: ModelArgs, pairs: bool) -> str:
    """Lines that open a bag of n-grams with numpy alone."""
    texts = ['"It was good."', '"Not a fan."']
    if pairs:
        texts = ['"a first text"', '"its second"', '"another first"', '"its second"']
    what = "probabilities  # (N, C), in the order of model['labels']"
    shown = [
        "for row in probabilities:",
        "    print(dict(zip(model['labels'].tolist(), row.round(4).tolist())))",
    ]
    if args.kind == "regression":
        what = "values  # (N, 1), in the labels' own unit"
        shown = ["print(values[:, 0].tolist())"]
    name, _, comment = what.partition("  ")
    lines = [
        "import sys",
        "import numpy as np",
        "",
        f"folder = {str(folder)!r}",
        "sys.path.insert(0, folder)  # where predict_ngrams.py is: forty lines to copy",
        "from predict_ngrams import predict",
        "",
        'model = dict(np.load(folder + "/ngrams.npz"))',
        f"texts = [{', '.join(texts)}]",
        f"{name} = predict(model, texts)  {comment}",
        *shown,
    ]
    return "\n".join(lines) + "\n"


def _head_lines(args: ModelArgs, texts: Texts) -> list[str]:
    """Lines from `inputs` to `logits` through a head of ours."""
    pooled = POOLED[args.head_pool or args.head_args.get("pool", "mean")]
    in_front = 0 if args.method is None else args.method.in_front
    own = f"[:, {in_front}:]" if in_front else ""  # the text's, behind a prompt
    lines = [
        'head = load_file(folder + "/head.safetensors")',
        "with torch.no_grad():",
        f"    hidden = backbone(**inputs).last_hidden_state{own}  # (B, T, D)",
        '    mask = inputs["attention_mask"]  # (B, T)',
        f"    pooled = {pooled}",
        *joined_lines(texts.windows),
    ]
    if args.head_kind == "mlp":
        function = ACTIVATIONS[args.head_args.get("activation", "tanh")]
        dense = 'pooled @ head["dense.weight"].T + head["dense.bias"]'
        lines.append(f"    pooled = {function}({dense})")
    return [*lines, '    logits = pooled @ head["out.weight"].T + head["out.bias"]  # (B, C)']


def _transformers_lines(folder: str | Path, args: ModelArgs, auto: str, name: str) -> list[str]:
    """Lines that open `folder` as `name` with transformers, and PEFT where it holds an adapter."""
    lines = ["from peft import PeftModel  # pip install peft"] if args.method is not None else []
    names = [auto, "AutoTokenizer"]
    if args.kind == CHAT and args.method is not None:
        names.append("GenerationConfig")
    lines += [f"from transformers import {', '.join(names)}", "", f"folder = {str(folder)!r}"]
    lines += ["tokenizer = AutoTokenizer.from_pretrained(folder)"]
    if args.method is None:
        return [*lines, f"{name} = {auto}.from_pretrained(folder).eval()"]
    return [*lines, *_adapter_lines(folder, args, auto, name)]


def _adapter_lines(folder: str | Path, args: ModelArgs, auto: str, name: str) -> list[str]:
    lines, extra = _base_lines(read_record(folder)["base"])
    if args.revision:
        extra += f", revision={args.revision!r}"
    if args.kind == CHAT:
        return [
            *lines,
            f"{name} = {auto}.from_pretrained(base{extra})",
            f"{name} = PeftModel.from_pretrained({name}, folder).eval()",
            f"{name}.generation_config = GenerationConfig.from_pretrained(folder)",
        ]
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


def _install(package: str) -> str:
    """What installs a package, in the version that is here; where that is not known, in words."""
    names = packages_distributions().get(package)
    if not names:
        return f"the package {package} has to be there"
    return f"pip install {names[0]}=={version(names[0])}"


def _base_lines(base: dict[str, Any]) -> tuple[list[str], str]:
    """(lines that name an adapter's `base`, what from_pretrained is told beside it)."""
    if base["in_memory"]:
        return ['base = folder + "/base"'], ""
    source, extra = base["source"], ""
    if source.endswith(ENDING):
        source, _, file = source.rpartition("/")
        extra = f", gguf_file={file!r}, dtype=torch.float32"
    if source.startswith("package:"):
        package, _, inside = source.removeprefix("package:").partition("/")
        place = f" + {'/' + inside!r}" if inside else ""
        return [
            "from importlib.util import find_spec",
            f"base = find_spec({package!r}).submodule_search_locations[0]{place}"
            f"  # {_install(package)}",
        ], extra
    return [f"base = {(source if extra else base_path(base))!r}"], extra
