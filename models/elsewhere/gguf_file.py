"""A language model as a GGUF file, which llama.cpp, Ollama and LM Studio open: numbers of its
config, its tokenizer and chat template, and its weights by llama.cpp's names.

llama.cpp turns pairs of neighbouring numbers of a head where transformers turns the first half
against the second; for Llama the rows of two matrices are put into that order, Qwen's are read as
they are.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from models.elsewhere.merged import merged
from models.heads import transformers_model
from models.methods.method import plain_state

FILE = "model.gguf"
TURNED = ("llama",)  # types whose queries and keys are put into another order
TYPES = (*TURNED, "qwen2", "qwen3")
ROW = 32  # numbers of a block of Q8_0
NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5  # kinds of tokens, as llama.cpp counts them
LETTERS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
SPLITS = {LETTERS + REST: "qwen2", LETTERS + "{1,3}" + REST: "llama-bpe"}  # pattern -> its name


def why_no_gguf(model: nn.Module, tokenizer: Any) -> str | None:
    """Why a language model has no GGUF file here; None where it has."""
    config = transformers_model(model).config
    if config.model_type not in TYPES:
        return (
            f"it is of type {config.model_type!r}, and GGUF files are written of {', '.join(TYPES)}"
        )
    rope = getattr(config, "rope_parameters", None) or {}
    if (kind := rope.get("rope_type", "default")) != "default":
        return f"its positions are scaled ({kind}), which is not written"
    for name in ("attention_bias", "mlp_bias", "use_sliding_window"):
        if getattr(config, name, False):
            return f"its config says {name}, which is not written"
    if not tokenizer.is_fast or pre_tokenizer(tokenizer) is None:
        return "its tokenizer is no byte-level BPE that llama.cpp knows by a name"
    return None


def pre_tokenizer(tokenizer: Any) -> str | None:
    """llama.cpp's name for how a byte-level BPE splits a text into words; None where it has none,
    or the tokenizer is another kind."""
    made_of = json.loads(tokenizer.backend_tokenizer.to_str())
    model, normalizer = made_of["model"], made_of["normalizer"] or {}
    first = made_of["pre_tokenizer"] or {}
    parts = first.get("pretokenizers", [first])
    kinds, last = [part.get("type") for part in parts], parts[-1]
    if (
        model["type"] != "BPE" or model.get("byte_fallback") or kinds[-1] != "ByteLevel"
        or last["add_prefix_space"] or normalizer.get("type", "NFC") != "NFC"
    ):  # fmt: skip
        return None
    if last["use_regex"]:
        if kinds == ["ByteLevel"]:
            return "gpt-2"
        each = kinds == ["Digits", "ByteLevel"] and parts[0]["individual_digits"]
        return "smollm" if each else None
    if kinds != ["Split", "ByteLevel"] or parts[0]["behavior"] != "Isolated":
        return None
    name = SPLITS.get(parts[0]["pattern"].get("Regex"))
    whole = bool(model.get("ignore_merges"))  # whether a word of the vocabulary is never split
    return name if name is not None and whole == (name == "llama-bpe") else None


def write_gguf(model: nn.Module, tokenizer: Any, template: str | None, folder: Path, eight: bool
               ) -> float:  # fmt: skip
    """Write a language model that why_no_gguf passes, its method merged, as FILE: matrices in half
    precision, or `eight` bits (Q8_0), vectors in float32. The drift, as merge() has it. Raises
    ValueError where it cannot be merged."""
    import gguf

    config = transformers_model(model).config
    writer = gguf.GGUFWriter(folder / FILE, config.model_type)
    kinds = gguf.GGMLQuantizationType
    write_numbers(writer, config)
    kind = gguf.LlamaFileType.MOSTLY_Q8_0 if eight else gguf.LlamaFileType.MOSTLY_F16
    writer.add_file_type(kind)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    write_tokenizer(writer, tokenizer, config.vocab_size, template)
    architecture = {name: number for number, name in gguf.MODEL_ARCH_NAMES.items()}
    names = gguf.get_tensor_name_map(architecture[config.model_type], config.num_hidden_layers)
    with merged(model) as drift:
        for name, tensor in plain_state(model).items():
            if name == "lm_head.weight" and config.tie_word_embeddings:
                continue
            theirs = names.get_name(name, try_suffixes=(".weight", ".bias"))
            if theirs is None:
                raise ValueError(f"llama.cpp has no name for {name} of a {config.model_type}")
            weight = ordered(name, tensor.float().numpy(), config)
            if weight.ndim == 1:
                writer.add_tensor(theirs, np.ascontiguousarray(weight))
            elif eight and weight.shape[-1] % ROW == 0:
                packed = gguf.quants.quantize(weight, kinds.Q8_0)
                writer.add_tensor(theirs, packed, raw_dtype=kinds.Q8_0)
            else:
                check_range(name, weight)
                writer.add_tensor(theirs, weight.astype(np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return drift


def write_numbers(writer: Any, config: Any) -> None:
    """The sizes of the model."""
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_type("model")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(size)
    writer.add_value_length(size)
    writer.add_rope_dimension_count(size)
    writer.add_rope_freq_base(float(config.rope_parameters["rope_theta"]))
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)


def write_tokenizer(writer: Any, tokenizer: Any, rows: int, template: str | None) -> None:
    """The vocabulary, its merges, special tokens and the chat template. `rows`: of the table of
    tokens, which may be longer than the vocabulary."""
    made_of = json.loads(tokenizer.backend_tokenizer.to_str())
    added = {one["id"]: one for one in made_of["added_tokens"]}
    words = {number: word for word, number in tokenizer.get_vocab().items()}
    tokens, kinds = [], []
    for number in range(rows):
        tokens.append(words.get(number, f"[PAD{number}]"))
        special = added.get(number)
        kind = NORMAL if number in words else UNUSED
        if special is not None:
            kind = CONTROL if special["special"] else USER_DEFINED
        kinds.append(kind)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre_tokenizer(tokenizer))
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    merges = made_of["model"]["merges"]
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in merges])
    for name in ("bos", "eos", "unk", "pad"):
        number = getattr(tokenizer, f"{name}_token_id")
        if number is not None:
            getattr(writer, f"add_{name}_token_id")(number)
    first = tokenizer("a")["input_ids"][:1]
    writer.add_add_bos_token(first == [tokenizer.bos_token_id])
    writer.add_add_space_prefix(False)
    if template is not None:
        writer.add_chat_template(template)


def ordered(name: str, weight: np.ndarray, config: Any) -> np.ndarray:
    """A weight (out, in) as llama.cpp reads it: of Llama's queries and keys the two halves of each
    head's rows are interleaved."""
    if config.model_type not in TURNED:
        return weight
    for part, heads in (
        (".q_proj.weight", config.num_attention_heads),
        (".k_proj.weight", config.num_key_value_heads),
    ):
        if name.endswith(part):
            halves = weight.reshape(heads, 2, -1, weight.shape[1])  # (H, 2, D / 2, in)
            return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(weight.shape))
    return weight


def check_range(name: str, weight: np.ndarray) -> None:
    """Raise ValueError where a weight is too large for half precision."""
    most = float(np.abs(weight).max())
    if not most < float(np.finfo(np.float16).max):
        raise ValueError(f"{name} holds {most:.3g}, which half precision has no number for")
