"""Backbone and tokenizer out of the folder that a source is (models/resolve.py).

Weights are read from safetensors alone, remote code never runs, and the master weights are float32
whatever the file holds.
"""

import hashlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoConfig, AutoTokenizer, PretrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    MODEL_MAPPING,
)

from files.errors import is_panic, meets_limit, one_line
from models.align import align
from models.architectures import why_refused
from models.foreign import check_model_folder, weight_files
from models.limits import MOST_TENSORS, MOST_WORDS, check_count
from models.quiet import quiet_transformers
from models.resolve import adapter_base, is_adapter, resolve_source

FORMS: dict[str, tuple[Any, str]] = {  # of a model: transformers' classes by config, in a word
    "backbone": (MODEL_MAPPING, "text model"),
    "classifier": (MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING, "sequence classifier"),
    "language": (MODEL_FOR_CAUSAL_LM_MAPPING, "language model"),
}


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


def load_tokenizer(source: str, revision: str | None = None, chat: bool = False) -> Any:
    """The source's tokenizer, made to suit its model: no truncation or padding of its own, a pad
    token after the text, and `token_type_ids` only for a model that tells segments apart. For
    `chat` a pad token that is missing is one of the vocabulary's: no model grows for padding.

    Raises ValueError when the source holds no usable tokenizer, for an architecture that texts
    alone cannot serve, and for chat where no token ends a reply.
    """
    folder = resolve_source(source, revision)
    config = None
    if chat and is_adapter(folder):
        base = adapter_base(folder)
        config = read_config(base)
        if not (Path(folder) / "tokenizer_config.json").is_file():
            folder = base
    if (Path(folder) / "config.json").is_file():  # an exported adapter has none: suited already
        config = read_config(folder)
    tokenizer = read_tokenizer(folder, None if not chat else partial(_name_for_chat, config))
    if config is not None:
        _suit_tokenizer(tokenizer, config)
    return tokenizer


def read_tokenizer(folder: str | Path, name_tokens: Callable[[Any], None] | None = None) -> Any:
    """The tokenizer in a folder, with truncation and padding reset and a pad token present, which
    `name_tokens` may have chosen."""
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
    if name_tokens is not None:
        name_tokens(tokenizer)
    if tokenizer.pad_token is None:
        known = tokenizer.get_vocab()
        name = next((n for n in ("[PAD]", "<pad>", "<|pad|>") if n in known), "<pad>")
        tokenizer.add_special_tokens({"pad_token": name})
    # before the text it would move BERT's and GPT-2's positions; what reads the last column in
    # spite of it is run without padding (models/apart.py)
    tokenizer.padding_side = "right"
    return tokenizer


def _name_for_chat(config: PretrainedConfig | None, tokenizer: Any) -> None:
    """Give a tokenizer its end and pad tokens where it names none: as the model's config says, and
    for padding else the end token. Padding is masked, and never learned."""
    for name in ("eos_token", "pad_token"):
        number = getattr(config, f"{name}_id", None)
        number = number[0] if isinstance(number, list) and number else number
        known = isinstance(number, int) and 0 <= number < len(tokenizer)
        if getattr(tokenizer, name) is None and known:
            setattr(tokenizer, name, tokenizer.convert_ids_to_tokens(number))
    if tokenizer.eos_token is None:
        raise ValueError(
            f"the tokenizer of {tokenizer.name_or_path} names no end token, by which a reply ends: "
            "set eos_token in its tokenizer_config.json"
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token


def _suit_tokenizer(tokenizer: Any, config: PretrainedConfig) -> None:
    classifies = type(config) in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING
    cls = model_class(config, "classifier" if classifies else "backbone")
    # GPT-2 would add wte[token_type_ids] to every position and DistilBERT takes none at all, so
    # they go only to a model with a table of at least two segments.
    takes_types = "token_type_ids" in inspect.signature(cls.forward).parameters
    if not takes_types or getattr(config, "type_vocab_size", 0) < 2:
        names = [n for n in tokenizer.model_input_names if n != "token_type_ids"]
        tokenizer.model_input_names = names
        tokenizer.init_kwargs["model_input_names"] = names  # so that it is saved with it


def model_class(config: PretrainedConfig, form: str) -> Any:
    """transformers' class for a config, of a form in FORMS. Raises ValueError where it has none,
    and where texts alone do not serve it."""
    mapping, what = FORMS[form]
    if type(config) not in mapping:
        raise ValueError(
            f"transformers has no {what} for model_type {config.model_type!r}"
            + ("; use head.kind = 'linear' or 'mlp'" if form == "classifier" else "")
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
    config: PretrainedConfig, folder: str, state: dict[str, Tensor] | None, form: str
) -> Pretrained:
    """The model of `config` in float32 with the weights of `folder`, or of `state` where given.

    `form` is a row of FORMS: the architecture's own classifier or language model, or its bare
    backbone, without the pooling layer that no head of ours would call. Missing parameters are
    initialised from torch's generator as the architecture does it. Raises ValueError when the
    weights do not fit.
    """
    if state is None:  # never left to transformers, which would follow names in the folder
        state = read_weights(folder)
    cls = model_class(config, form)
    poolable = "add_pooling_layer" in inspect.signature(cls.__init__).parameters
    extra = {"add_pooling_layer": False} if poolable and form == "backbone" else {}
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
