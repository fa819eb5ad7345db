"""What a model folder may hold, whoever it comes from: looked at before a library opens any of it.

Libraries follow what they read in a folder: names of other files, of repositories to fetch from,
of classes, of kernels. So a folder is data alone: safetensors and text within it, and names that
transformers itself knows. Anything else is refused with its place.
"""

import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from files.read import read_json
from models.limits import check_numbers, entries

TEMPLATES = "additional_chat_templates"
# endings that loading may open: weights, settings, and what tokenizers are made of
READ = (".json", ".safetensors", ".npz", ".txt", ".model", ".jinja", ".codes", ".spm", ".tokenizer")
INDEX = "model.safetensors.index.json"
METHOD_WEIGHTS = "method.safetensors"  # of a method that PEFT has no form for
# read by name, never as a model's
OWN_WEIGHTS = ("head.safetensors", "adapter_model.safetensors", METHOD_WEIGHTS)
ATTENTIONS = ("eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention")
MOST_ENTRIES = 20_000  # of a list in tokenizer_config.json, which each take a millisecond
TOKENIZER_CLASS = re.compile(
    r"(?!Auto)[A-Z]\w*Tokenizer(Fast)?|TokenizersBackend|PythonBackend|MistralCommonBackend"
)
UNTRUSTED = "It may come from somebody who means harm: use the folder only if you know its origin"


def check_model_folder(folder: str | Path) -> None:
    """Raises ValueError, naming the file and what is in it, unless loading this folder reads the
    folder alone, as data."""
    folder = Path(folder)
    for path in held_entries(folder):
        if path.is_symlink() or not path.is_dir() or is_readable(path):
            check_inside(folder, path)
    check_config(folder / "config.json")
    check_tokenizer_config(folder / "tokenizer_config.json")
    for name in ("special_tokens_map.json", "added_tokens.json"):
        if (folder / name).exists():
            read_json(folder / name)


def held_entries(folder: Path) -> list[Path]:
    """What lies in a model folder, its chat templates too; other folders in it are not opened."""
    return sorted([*folder.iterdir(), *folder.glob(f"{TEMPLATES}/*")])


def is_readable(path: Path) -> bool:
    """Whether loading may open what has this name, by its ending."""
    return path.suffix in READ or path.name == TEMPLATES


def readable_files(folder: Path) -> Iterator[Path]:
    """What loading a folder may open."""
    return filter(is_readable, held_entries(folder))


def check_inside(folder: Path, path: Path) -> None:
    """Raises ValueError unless `path`, in `folder`, is a regular file that lies within it. What a
    hub's cache keeps beside the folders of its snapshots, and links to from there, does."""
    real = folder.resolve()
    homes = [real]
    if real.parent.name == "snapshots":
        homes.append(real.parent.parent / "blobs")
    try:
        target = path.resolve(strict=True)
        mode = target.stat().st_mode
    except (OSError, RuntimeError) as error:  # a link to nothing, or to itself
        raise ValueError(f"{path} cannot be read: {error}") from None
    if not any(target.is_relative_to(home) for home in homes):
        raise ValueError(
            f"{path} is a link to {target}, outside its folder; a model folder is read alone: "
            f"put a copy of the file there. {UNTRUSTED}"
        )
    if not (stat.S_ISDIR(mode) if path.name == TEMPLATES else stat.S_ISREG(mode)):
        raise ValueError(f"{path} is no regular file")


def check_config(path: Path) -> None:
    """Raises ValueError where a config.json asks for what is no part of its folder."""
    if not path.exists():
        return
    config = read_json(path)
    check_numbers(config, str(path))
    for key, value in entries(config):
        if "attn_implementation" in key or "experts_implementation" in key:
            for name in value.values() if isinstance(value, dict) else [value]:
                if name is not None and name not in ATTENTIONS:
                    raise ValueError(
                        f"{path}: {key} is {name!r}, a kernel that would be fetched and run; "
                        f"expected one of {', '.join(ATTENTIONS)}: remove the key. {UNTRUSTED}"
                    )
        if key in ("quantization_config", "compression_config") and value is not None:
            raise ValueError(
                f"{path} has a {key}: quantised weights cannot be trained here; take the model's "
                "weights as they were before (bf16, fp16 or fp32)"
            )
        if key == "tokenizer_class":
            check_tokenizer_class(path, value)


def check_tokenizer_config(path: Path) -> None:
    """Raises ValueError where a tokenizer_config.json names a class of no tokenizer, or words that
    a tokenizer would be made with."""
    if not path.exists():
        return
    config = read_json(path)
    check_tokenizer_class(path, config.get("tokenizer_class"))
    for key, value in config.items():
        if isinstance(value, list | dict) and len(value) > MOST_ENTRIES:
            raise ValueError(f"{path}: {key} has {len(value):,} entries; expected a few")
    if config.get("init_inputs"):
        raise ValueError(f"{path}: init_inputs is {config['init_inputs']!r:.100}; expected none")
    if config.get("auto_map"):
        raise ValueError(
            f"{path}: auto_map is {config['auto_map']!r:.100}, Python code of the folder's, which "
            f"is never run; no tokenizer is known without it. {UNTRUSTED}"
        )


def check_tokenizer_class(path: Path, name: Any) -> None:
    """Raises ValueError unless a tokenizer's class is named as transformers names them."""
    if name is not None and not (isinstance(name, str) and TOKENIZER_CLASS.fullmatch(name)):
        raise ValueError(
            f"{path}: tokenizer_class is {name!r:.100}; expected one of transformers, such as "
            "BertTokenizer"
        )


def weight_files(folder: str | Path) -> list[Path]:
    """The safetensors files with a model's weights, all in its folder: one, or those of its index.

    Raises ValueError where there are none, where the index names anything else, and where one is
    missing or lies elsewhere. Weights in other formats, some of which hold code, are never opened.
    """
    folder = Path(folder)
    if (folder / "model.safetensors").exists():
        names = ["model.safetensors"]
    elif (folder / INDEX).exists():
        names = index_names(folder / INDEX)
    else:
        there = (path.name for path in folder.glob("*.safetensors"))
        names = sorted(name for name in there if name not in OWN_WEIGHTS)
    if not names:
        raise ValueError(no_weights(folder))
    for name in names:
        if not (folder / name).is_file():
            raise ValueError(f"{folder} has no {name}, which its {INDEX} names; fetch it again")
        check_inside(folder, folder / name)
    return [folder / name for name in names]


def index_names(path: Path) -> list[str]:
    """The names of the files that hold the weights, by a folder's index of them."""
    index = read_json(path, ["weight_map"])["weight_map"]
    names = set(index.values()) if isinstance(index, dict) else {None}
    for name in names:
        plain = isinstance(name, str) and Path(name).name == name and name.endswith(".safetensors")
        if not plain:
            raise ValueError(
                f"{path} names {name!r:.100}; weights are read from safetensors files of the same "
                f"folder alone. {CONVERT}. {UNTRUSTED}"
            )
    return sorted(map(str, names))


CONVERT = (
    "Convert it once, on a machine where you trust it, with transformers: "
    "AutoModel.from_pretrained(FOLDER).save_pretrained(NEW_FOLDER)"
)


def no_weights(folder: Path) -> str:
    """What to say of a folder without safetensors."""
    others = sorted(p.name for p in folder.glob("*") if p.suffix in (".bin", ".h5", ".pt", ".ckpt"))
    there = f" (it has {', '.join(others)}, which may hold pickled code)" if others else ""
    return f"no safetensors weights in {folder}{there}. {CONVERT}"
