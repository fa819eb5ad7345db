"""What is known of architectures: which cannot be trained on texts alone and why, whose answers
depend on padding, how long a text each takes.

It goes by what a model's forward asks for and what its config says, and by name only where
neither tells. docs/architectures.md, which a test writes and holds, says what comes of it.
"""

import inspect
from collections.abc import Callable, Iterator
from typing import Any

from torch import nn
from transformers import PretrainedConfig

# arguments of a forward without which an architecture's published weights mean nothing
NEEDED_INPUTS = {
    "bbox": "reads where each word stands on a page",
    "image": "reads pictures",
    "xpath_tags_seq": "reads where each text stands in a web page",
    "input_shape_ids": "reads shapes and pronunciations of characters beside them",
}
# what a config says: its field, when that stands in the way, and what the architecture does then
REFUSED_BY_CONFIG: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    (
        "block_per_row",
        lambda config: True,
        "attends by a CUDA kernel that is not here, and without it to nothing",
    ),
    (
        "type_vocab_sizes",
        lambda config: len(config.type_vocab_sizes) > 1,
        "reads tables, each token with its row and column",
    ),
    (
        "default_language",
        lambda config: config.default_language is None,
        "has weights for each language, and its config names none: set default_language there",
    ),
    (
        "num_landmarks",
        lambda config: config.num_landmarks != config.segment_means_seq_len,
        "cuts a text into landmarks, and so takes one length alone; set num_landmarks to "
        "segment_means_seq_len in its config for attention without them",
    ),
    (
        "lsh_attn_chunk_length",
        lambda config: True,
        "hashes tokens at random to choose what attends to what, and trains on one length alone",
    ),
)
# model types whose answer to a text depends on the padding beside it
READS_PADDING = {  # and what of it does
    "canine": "its strided convolution",
    "convbert": "its convolutions",
    "funnel": "its pooling",
    "fnet": "its Fourier transform",
    "nystromformer": "its convolutions",
    "t5gemma": "its head, which looks one column further where there is one",
    "t5gemma2": "its head, which looks one column further where there is one",
    "xlnet": "its head, which looks at the last column",
    "yoso": "its attention",
}
# types whose positions are relative to each other: no text is too long for them
WITHOUT_LIMIT = ("funnel", "mt5", "t5", "umt5", "xlnet")
POSITION_TABLES = (
    "position_embeddings", "position_embedding", "embed_positions", "positions_embed", "wpe",
    "char_position_embeddings",
)  # fmt: skip
PICTURES = ("vision", "visual", "multi_modal", "connector")  # in the names of modules that see
LENGTHS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length")


def why_refused(config: PretrainedConfig, model_class: type[nn.Module]) -> str | None:
    """What an architecture does that texts alone cannot serve; None where they can."""
    takes = inspect.signature(model_class.forward).parameters
    for name, reason in NEEDED_INPUTS.items():
        if name in takes:
            return reason
    if "input_ids" not in takes:
        return "takes no tokens"
    for name, stands_in_the_way, reason in REFUSED_BY_CONFIG:
        if hasattr(config, name) and stands_in_the_way(config):
            return reason
    return None


def why_native_only(config: PretrainedConfig) -> str | None:
    """Why a head of ours does not go on an architecture; None where it does."""
    if config.is_encoder_decoder:
        return "has a decoder"
    if not hasattr(config.get_text_config(), "hidden_size"):  # Perceiver, whose latents are read
        return "has no hidden state for each token (no hidden_size in its config)"
    return None


def why_no_language(config: PretrainedConfig) -> str | None:
    """Why an architecture does not write text by going on from it; None where it may."""
    if config.is_encoder_decoder:
        return "has an encoder beside its decoder"
    if config.get_text_config(decoder=True) is not config:
        return "reads more than text; take the text model alone"
    return None


def reads_end(model: nn.Module) -> bool:
    """Whether a native head looks for end tokens to know where to read."""
    return "eos_token_id" in inspect.unwrap(type(model).forward).__code__.co_names


def reads_last(model: nn.Module) -> bool:
    """Whether a native head looks for pad tokens, to read the last token before them."""
    return "pad_token_id" in inspect.unwrap(type(model).forward).__code__.co_names


def sees(name: str) -> bool:
    """Whether a module, by its dotted name, is there for pictures, which no text reaches."""
    return any(part in name for part in PICTURES)


def position_tables(model: nn.Module) -> Iterator[Any]:
    """The tables of positions of a text."""
    for name, module in model.named_modules():
        is_table = hasattr(module, "padding_idx") and name.rpartition(".")[2] in POSITION_TABLES
        if is_table and not sees(name):
            yield module


def longest_text(model: Any) -> int | None:
    """Tokens that a loaded model has positions for: rows of its tables of positions less those it
    keeps for itself (RoBERTa counts from padding_idx + 1, BART's tables hold two more), and what
    its config says. None: no limit."""
    config = model.config.get_text_config()
    limits = []
    for module in position_tables(model):
        kept = 0 if module.padding_idx is None else module.padding_idx + 1
        limits.append(len(module.weight) - getattr(module, "offset", kept))
    relative = config.model_type in WITHOUT_LIMIT or getattr(config, "relative_attention", False)
    if not relative:
        limits += [getattr(config, name) for name in LENGTHS if getattr(config, name, None)]
    return min((limit for limit in limits if limit > 0), default=None)


def token_table(model: Any) -> nn.Module | None:
    """The table of token embeddings; None for a model that hashes characters (CANINE) or hides its
    table in a preprocessor (Perceiver), where a tokenizer of bytes or characters cannot outgrow it.
    """
    try:
        table = model.get_input_embeddings()
    except NotImplementedError:
        return None
    return table if isinstance(table, nn.Module) else None
