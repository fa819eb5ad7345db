"""Python that opens an exported model where there is no openloop, for people to copy."""

from pathlib import Path

from models.args import ModelArgs
from models.export import base_path
from models.heads import head_file
from models.ngrams.bag import BAG
from models.record import read_record

POOLED = {  # hidden (B, T, D) and mask (B, T) -> (B, D), as models/heads.py pools
    "mean": "(hidden * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True)  # of real tokens",
    "cls": "hidden[torch.arange(len(hidden)), mask.argmax(1)]  # the first real token",
    "last": "hidden[torch.arange(len(hidden)), (mask * torch.arange(mask.shape[1])).argmax(1)]",
}
ACTIVATIONS = {"tanh": "torch.tanh", "relu": "torch.relu", "gelu": "torch.nn.functional.gelu"}


def needs_openloop(args: ModelArgs) -> bool:
    """Whether a model opens with openloop alone: its head is code of a user's own."""
    return head_file(args.head_kind) is not None


def loading_snippet(
    folder: str | Path,
    args: ModelArgs,
    max_length: int = 512,
    truncation: str = "right",
    pairs: bool = False,
    alone: bool = False,
) -> str:
    """Python that opens an exported folder with torch, transformers and, for adapters, PEFT.

    It leaves `tokenizer` and `logits (B, C)` behind, of two texts or of two `pairs`, of one where
    texts have to be asked `alone` (models/apart.py); for a regression also `values (B,)`, in the
    labels' own unit. A native model is left as `model`, the backbone below a head of ours as
    `backbone`. With a head of a user's own it opens `model` with openloop, and then the `backbone`
    alone without.
    """
    if (Path(folder) / BAG).is_file():
        return _bag_snippet(folder, args, pairs)
    texts = _text_lines(max_length, truncation, pairs, alone)
    native = args.head_kind == "native"
    values = []
    if args.kind == "regression":
        scale = f"* {args.target_deviation!r} + {args.target_mean!r}"
        values = [f"values = logits.squeeze(-1).double() {scale}  # in the labels' own unit"]
    auto, name = ("AutoModelForSequenceClassification", "model") if native else (
        ("AutoModel", "backbone")
    )  # fmt: skip
    opened = _transformers_lines(folder, args, auto, name)
    if native:
        end = ["with torch.no_grad():", "    logits = model(**inputs).logits  # (B, C)"]
        lines = ["import torch", *opened, *texts, *end, *values]
    elif needs_openloop(args):
        lines = [
            "import torch",
            "from models.export import load_exported  # openloop's: the head is code of your own",
            "",
            f"model, tokenizer, args = load_exported({str(folder)!r}, allow_code=True)",
            *texts,
            "with torch.no_grad():",
            "    logits = model(**inputs)  # (B, C)",
            *values,
            "",
            "# the backbone alone, without the head, needs no openloop:",
            *opened,
        ]
    else:
        imports = ["import torch", "from safetensors.torch import load_file"]
        lines = [*imports, *opened, *texts, *_head_lines(args), *values]
    return "\n".join(lines) + "\n"


def _bag_snippet(folder: str | Path, args: ModelArgs, pairs: bool) -> str:
    """Lines that open a bag of n-grams with numpy alone."""
    texts = ['"It was good."', '"Not a fan."']
    if pairs:
        texts = ['"a first text"', '"its second"', '"another first"', '"its second"']
    what = "probabilities  # (N, C), in the order of model['labels']"
    if args.kind == "regression":
        what = "values  # (N, 1), in the labels' own unit"
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
    ]
    return "\n".join(lines) + "\n"


def _text_lines(max_length: int, truncation: str, pairs: bool, alone: bool) -> list[str]:
    shown = 1 if alone else 2
    texts = ", ".join(['"It was good."', '"Not a fan."'][:shown])
    others = ", ".join(['"I liked it."', '"I liked it too."'][:shown])
    why = ["# one text at a time: padded beside a longer one it would be answered otherwise"]
    return [
        f'tokenizer.truncation_side = "{truncation}"',
        *(why if alone else []),
        f"texts = [{texts}]",
        *([f"others = [{others}]"] if pairs else []),
        f"inputs = tokenizer({'texts, others' if pairs else 'texts'}, padding=True, "
        f'truncation=True, max_length={max_length}, return_tensors="pt")',
    ]


def _head_lines(args: ModelArgs) -> list[str]:
    """Lines from `inputs` to `logits` through a head of ours."""
    pooled = POOLED[args.head_pool or args.head_args.get("pool", "mean")]
    lines = [
        'head = load_file(folder + "/head.safetensors")',
        "with torch.no_grad():",
        "    hidden = backbone(**inputs).last_hidden_state  # (B, T, D)",
        '    mask = inputs["attention_mask"]  # (B, T)',
        f"    pooled = {pooled}",
    ]
    if args.head_kind == "mlp":
        function = ACTIVATIONS[args.head_args.get("activation", "tanh")]
        dense = 'pooled @ head["dense.weight"].T + head["dense.bias"]'
        lines.append(f"    pooled = {function}({dense})")
    return [*lines, '    logits = pooled @ head["out.weight"].T + head["out.bias"]  # (B, C)']


def _transformers_lines(folder: str | Path, args: ModelArgs, auto: str, name: str) -> list[str]:
    """Lines that open `folder` as `name` with transformers, and PEFT where it holds an adapter."""
    lines = ["from peft import PeftModel  # pip install peft"] if args.method is not None else []
    lines += [f"from transformers import {auto}, AutoTokenizer", "", f"folder = {str(folder)!r}"]
    lines += ["tokenizer = AutoTokenizer.from_pretrained(folder)"]
    if args.method is None:
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
        lines += [f"base = {base_path(base)!r}"]
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
