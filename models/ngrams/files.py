"""A bag of n-grams as files: ngrams.npz, plain arrays, and the script that reads it with numpy."""

import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from files.errors import meets_limit
from files.verify import sha256
from models.args import ModelArgs, args_from_json
from models.build import Built
from models.ngrams.bag import BAG, SCRIPT, SOURCE, NgramBag, NgramTokenizer
from models.record import read_record, write_record
from models.resolve import resolve_source
from models.verified import check_exported

NAMES = {"weight", "bias", "idf", "kinds", "labels", "kind", "sides"}
NAMES |= {"target_mean", "target_deviation"}


def find_bag(source: str, revision: str | None) -> Path | None:
    """The model folder of a run that trained a bag of n-grams, where `source` names one."""
    if source == SOURCE or not source.startswith("run:"):
        return None
    folder = Path(resolve_source(source, revision))
    return folder if (folder / BAG).is_file() else None


def build_bag(args: ModelArgs, tokenizer: NgramTokenizer) -> Built:
    """A new bag of n-grams, all zeros, or that of the run it goes on from; `args` say nothing that
    only a transformer has. Raises ValueError where that one has other labels."""
    assert args.method is None
    assert args.head_kind == "native"
    assert args.trains == "all"
    folder = find_bag(args.source, args.revision)
    base: dict[str, Any] = {"source": args.source, "revision": None, "in_memory": False}
    model = NgramBag(1 << tokenizer.bits, args.num_labels)
    names, target = {name for name, _ in model.named_parameters()}, None
    if folder is None:
        note = f"a bag of n-grams: {1 << tokenizer.bits:,} buckets, weights that begin at zero"
        return Built(model, names, sorted(names), base | {"sha256": ""}, [note], None)
    check_exported(folder)
    model, _, old = load_bag(folder)
    for name in ("kind", "label_names"):
        was, now = getattr(old, name), getattr(args, name)
        if was != now:
            raise ValueError(f"model.source is {args.source!r}, whose labels are {was}, not {now}")
    if args.kind == "regression":
        target = (old.target_mean, old.target_deviation)
    base["sha256"] = sha256(folder / BAG)
    return Built(model.eval(), names, [], base, ["weights: those of the run, all of them"], target)


def save_bag(
    built: Built, args: ModelArgs, tokenizer: NgramTokenizer, folder: Path, temperature: float = 1.0
) -> None:
    """Write the arrays, not compressed, the script that reads them, and openloop.json."""
    assert isinstance(built.model, NgramBag)
    write_arrays(built.model, args, tokenizer, folder, temperature)
    write_record(folder, args, built.base)


def write_arrays(
    model: NgramBag, args: ModelArgs, tokenizer: NgramTokenizer, folder: Path,
    temperature: float = 1.0,
) -> None:  # fmt: skip
    """The arrays, and the script that reads them; it divides logits by the `temperature`."""
    np.savez(
        folder / BAG,
        weight=model.weight.detach().cpu().numpy(),
        bias=model.bias.detach().cpu().numpy(),
        idf=model.idf.cpu().numpy(),
        kinds=tokenizer.kinds,
        labels=np.array(args.label_names or ("value",)),
        kind=np.array(args.kind),
        sides=np.array(tokenizer.sides),
        target_mean=np.array(args.target_mean),
        target_deviation=np.array(args.target_deviation),
        temperature=np.array(temperature),
    )
    shutil.copyfile(SCRIPT, folder / SCRIPT.name)


def load_bag(folder: Path) -> tuple[NgramBag, NgramTokenizer, ModelArgs]:
    """(model in evaluation mode, tokenizer, arguments) of an exported folder: the same logits, to
    the bit. Raises ValueError where the arrays are not those of a bag of n-grams."""
    record = read_record(folder)
    args = args_from_json(record["model"])
    return *open_arrays(folder, args.num_labels), args


def open_arrays(folder: Path, num_labels: int) -> tuple[NgramBag, NgramTokenizer]:
    """(model in evaluation mode, tokenizer) of what write_arrays wrote. Raises ValueError where the
    arrays are not those of a bag of n-grams."""
    arrays = read_arrays(folder / BAG, num_labels)
    bits = int(arrays["idf"].size).bit_length() - 1
    tokenizer = NgramTokenizer(int(arrays["sides"]), arrays["kinds"], bits)
    model = NgramBag(1 << bits, num_labels)
    state = {name: torch.from_numpy(arrays[name]) for name in ("weight", "bias", "idf")}
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"{folder / BAG} is damaged: {error}") from error
    return model.eval(), tokenizer


def read_arrays(path: Path, num_labels: int) -> dict[str, np.ndarray]:
    """The arrays of an ngrams.npz. Raises ValueError where it is damaged, or none that save_bag
    wrote: compressed arrays could be of any size."""
    try:
        with zipfile.ZipFile(path) as file:
            if any(part.compress_type != zipfile.ZIP_STORED for part in file.infolist()):
                raise ValueError("its arrays are compressed")
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        if arrays.keys() - {"temperature"} != NAMES:  # which the first bags have not
            raise ValueError(f"it holds {', '.join(sorted(arrays))}")
        size, kinds = arrays["idf"].size, arrays["kinds"]
        shapes = {"idf": (size,), "weight": (size, num_labels), "bias": (num_labels,)}
        for name, shape in shapes.items():
            if arrays[name].shape != shape or arrays[name].dtype != np.float32:
                raise ValueError(f"{name} is {arrays[name].dtype} {arrays[name].shape}")
        if size < 2 or size & (size - 1):
            raise ValueError(f"it has {size:,} buckets, which is no power of 2")
        if kinds.dtype != np.uint8 or kinds.ndim != 1 or not 3 <= kinds.size <= 0x110000:
            raise ValueError(f"kinds is {kinds.dtype} {kinds.shape}")
        if kinds[2] != 2 or kinds.max() > 2:
            raise ValueError("kinds is no table of characters")
        if arrays["sides"].shape != () or int(arrays["sides"]) not in (1, 2):
            raise ValueError(f"sides is {arrays['sides']}")
        return arrays
    except (ValueError, KeyError, EOFError, OSError, zipfile.BadZipFile) as error:
        if meets_limit(error):
            raise
        raise ValueError(f"{path} is damaged: {error}; fetch it again") from error
