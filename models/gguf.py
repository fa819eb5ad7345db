"""A GGUF file as a source: dequantised once by transformers, kept as a plain folder in the cache.

A GGUF file holds weights in blocks of a few bits, the tokenizer and its chat template. transformers
makes float32 of it, which takes ten seconds or more, and gives a model that cannot be saved. So it
is converted once to the folder that any other model comes as, found again by the file's hash.
"""

import hashlib
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import AutoConfig, AutoTokenizer, GgufConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from files.cache import cache_root, open_built
from files.errors import is_panic, meets_limit, one_line
from files.verify import sha256
from models.counted import check_parameters
from models.limits import check_numbers
from models.quiet import quiet_transformers

ENDING = ".gguf"
MAGIC = b"GGUF"
FORMAT = "1"  # of what is written: raise it where that changes
NEEDED = ("gguf", "accelerate")  # what transformers reads one with


def converted_folder(file: Path) -> str:
    """The folder with a GGUF file's weights in float32, its tokenizer and its chat template; made
    in the cache where it is not there yet.

    Raises ValueError where the file is none or damaged, where transformers has no language model of
    its architecture, and where the libraries that read it are not installed.
    """
    try:
        stat = file.stat()
        with file.open("rb") as stream:
            begin = stream.read(len(MAGIC))
    except OSError as error:
        raise ValueError(f"model.source {str(file)!r} cannot be read: {error}") from None
    if begin != MAGIC:
        raise ValueError(f"model.source {str(file)!r} is no GGUF file: it begins with {begin!r}")
    return _converted(file.resolve(), (stat.st_size, stat.st_mtime_ns), cache_root())


@cache  # a process asks for the folder of its source again and again
def _converted(file: Path, stamp: tuple[int, int], root: Path) -> str:
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        raise ValueError(
            f"model.source {str(file)!r} is a GGUF file, which needs {' and '.join(missing)} to be "
            f"read: pip install -c constraints.txt {' '.join(missing)}"
        )
    parts = [FORMAT, version("transformers"), version("gguf"), sha256(file)]
    key = hashlib.sha256(" ".join(parts).encode()).hexdigest()
    folder = root / "models" / f"gguf-{key}"
    open_built(folder, lambda made: convert(file, made))
    return str(folder)


def convert(file: Path, folder: Path) -> None:
    """Write a GGUF file as a folder of transformers: config.json, model.safetensors in float32,
    generation_config.json, the tokenizer's files. Raises ValueError for a file that does not load.
    """
    print(f"converting {file.name} (once, up to a minute) …", file=sys.stderr, flush=True)
    with TemporaryDirectory() as alone, _naming(file):
        # what lies beside the file is none of it, and from_pretrained would read it
        (Path(alone) / "model.gguf").symlink_to(file)
        model, tokenizer = _load(alone, file)
    for owner, name in (
        (model, "hf_quantizer"), (model, "is_quantized"), (model, "quantization_method"),
        (model.config, "quantization_config"),
    ):  # fmt: skip
        if hasattr(owner, name):  # with these it refuses to be saved
            delattr(owner, name)
    with quiet_transformers():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    # an adapter knows its base by a hash of this file: the same for all who convert it
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    for name in ("transformers_version", "_name_or_path"):
        config.pop(name, None)
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _load(alone: str, file: Path) -> tuple[Any, Any]:
    """(model in float32, tokenizer) of the one file in a folder."""
    options: dict[str, Any] = {"gguf_file": "model.gguf", "local_files_only": True}
    with quiet_transformers(), redirect_stderr(StringIO()):  # a bar of its own
        config = AutoConfig.from_pretrained(alone, **options)
        check_numbers(json.loads(config.to_json_string()), str(file))
        kind: Any = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
        if kind is None:
            raise ValueError(f"transformers has no language model for {config.model_type!r}")
        check_parameters(kind, config, str(file))
        model, report = kind.from_pretrained(
            alone, config=config, dtype=torch.float32, output_loading_info=True, **options,
            quantization_config=GgufConfig(gguf_file="model.gguf", dequantize=True),
        )  # fmt: skip
        if missing := sorted(report["missing_keys"]):
            raise ValueError(f"it holds nothing for {', '.join(missing[:4])}")
        return model, AutoTokenizer.from_pretrained(alone, **options)


@contextmanager
def _naming(file: Path) -> Iterator[None]:
    """Whatever goes wrong while a file is read becomes a ValueError that names it."""
    try:
        yield
    except BaseException as error:  # Rust's panics are no Exception
        if meets_limit(error) or not (is_panic(error) or isinstance(error, Exception)):
            raise
        raise ValueError(
            f"model.source {str(file)!r} is a GGUF file that does not load: {one_line(error)}; it "
            "may be cut off or damaged: fetch it again"
        ) from error
