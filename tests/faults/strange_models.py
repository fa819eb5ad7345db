"""Model folders of strangers: base/ is what a run would start from."""

import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

from tests.edits import edit
from tests.faults.strangers import CODE, TEXTS, WEIGHTS, Cases, Harm, Payload, link

CONFIGS: dict[str, dict[str, Any]] = {
    "remote code beside a known type": {"auto_map": {"AutoModel": "evil.Model"}},
    "remote code of an unknown type": {"model_type": "evil", "auto_map": {"AutoConfig": "evil.C"}},
    "remote code of another repository": {"auto_map": {"AutoModel": "stranger/repo--evil.Model"}},
    "kernel of a hub": {"attn_implementation": "stranger/kernel"},
    "kernel of a hub, underscored": {"_attn_implementation": "stranger/kernel@main:run"},
    "kernel of a hub, by part": {"attn_implementation": {"": "kernels-community/flash-attn"}},
    "kernel of a hub, deep inside": {"text_config": {"_attn_implementation_internal": "a/b"}},
    "kernel that is no name": {"attn_implementation": 5},
    "kernels for experts": {"experts_implementation": "stranger/kernel"},
    "use of kernels": {"use_kernels": True, "kernel_config": {"RMSNorm": "stranger/kernel:X"}},
    "activation of a hub": {"hidden_act": "stranger/kernel"},
    "activation that is a function": {"hidden_act": "os.system"},
    "quantised": {"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}},
    "quantised, no method": {"quantization_config": {"quant_method": "stranger"}},
    "compressed": {"compression_config": {"format": "stranger"}},
    "fused": {"fusion_config": {"patch_embeddings": "stranger"}},
    "weights elsewhere": {"transformers_weights": "../outside/evil.safetensors"},
    "weights in a pickle": {"transformers_weights": "pytorch_model.bin"},
    "extra files": {"extra_files": ["../outside/evil.bin"]},
    "name of another folder": {"_name_or_path": "../outside", "name_or_path": "stranger/repo"},
    "class that is no tokenizer": {"tokenizer_class": "AutoModel"},
    "class of nothing": {"tokenizer_class": 5},
    "dtype that is a function": {"dtype": "os.system", "torch_dtype": "__import__"},
    "architectures of numbers": {"architectures": [1, None]},
    "architectures of one text": {"architectures": "BertForSequenceClassification"},
    "labels of a list": {"architectures": ["BertForSequenceClassification"], "id2label": [1]},
    "labels without numbers": {"id2label": {"a": "b", "\u001b[31m": "c"}},
    "type that is a path": {"model_type": "../../outside/evil"},
    "type that is a number": {"model_type": 5},
    "type that is absent": {"model_type": ...},
    "generation": {"generation_config": {"custom_generate": "stranger/repo"}, "max_length": 1e400},
    "pruned heads": {"pruned_heads": {"0": [0, 1, 2, 3, 99]}},
    "pad token beyond all": {"pad_token_id": 10**9},
    "a decoder": {"is_decoder": True, "add_cross_attention": True, "is_encoder_decoder": True},
    "hidden size 0": {"hidden_size": 0},
    "hidden size -1": {"hidden_size": -1},
    "hidden size 10^9": {"hidden_size": 10**9, "num_attention_heads": 1},
    "hidden size 2^63": {"hidden_size": 2**63},
    "hidden size a text": {"hidden_size": "32"},
    "hidden size a fraction": {"hidden_size": 32.5},
    "hidden size of 4,000 digits": {"hidden_size": 10**4000},
    "a million layers": {"num_hidden_layers": 10**6},
    "negative layers": {"num_hidden_layers": -5},
    "layers a list": {"num_hidden_layers": [1, 2]},
    "vocabulary 10^12": {"vocab_size": 10**12},
    "vocabulary 10^9": {"vocab_size": 10**9},
    "positions 10^10": {"max_position_embeddings": 10**10},
    "positions 10^12": {"max_position_embeddings": 10**12},
    "segments 10^10": {"type_vocab_size": 10**10},
    "inner size 10^10": {"intermediate_size": 10**10},
    "heads 10^9": {"num_attention_heads": 10**9},
    "labels 10^12": {"num_labels": 10**12},
    "labels 10^7": {"num_labels": 10**7},
    "labels negative": {"num_labels": -3},
    "distilbert with 10^9 positions": {
        "model_type": "distilbert", "dim": 512, "n_layers": 1, "n_heads": 1,
        "sinusoidal_pos_embds": True, "max_position_embeddings": 10**9,
    },
    "gpt2 with a million layers": {"model_type": "gpt2", "n_layer": 10**6},
    "t5 with a million decoder layers": {"model_type": "t5", "num_decoder_layers": 10**6},
    "xlnet with a million layers": {"model_type": "xlnet", "n_layer": 10**6, "d_model": 64},
    "mixture of 10^9 experts": {"model_type": "mixtral", "num_local_experts": 10**9},
    "funnel with large blocks": {"model_type": "funnel", "block_sizes": [10**6, 10**6]},
    "layer types by the million": {"layer_types": ["full_attention"] * 10**6},
    "epsilon a text": {"layer_norm_eps": "x"},
    "dropout 5": {"hidden_dropout_prob": 5},
    "initialiser infinite": {"initializer_range": float("inf")},
    "chunks": {"chunk_size_feed_forward": 10**9},
    "rope of strangers": {"model_type": "llama", "rope_scaling": {"rope_type": "stranger"}},
    "subconfigs": {"backbone_config": {"model_type": "stranger"}, "backbone": "stranger/repo",
                   "use_timm_backbone": True, "use_pretrained_backbone": True},
    "speech": {"model_type": "wav2vec2"},
    "pictures": {"model_type": "vit"},
    "a clip of two": {"model_type": "clip", "text_config": {"num_hidden_layers": 10**7}},
    "an encoder and a decoder": {
        "model_type": "encoder-decoder",
        "encoder": {"model_type": "bert", "num_hidden_layers": 10**7},
        "decoder": {"model_type": "bert"},
    },
}  # fmt: skip

TOKENIZER_CONFIGS: dict[str, dict[str, Any]] = {
    "remote code": {"auto_map": {"AutoTokenizer": ["evil.T", "evil.T"]}},
    "remote code in a list": {"auto_map": ["stranger/repo--evil.T", None]},
    "class of a model": {"tokenizer_class": "AutoModel"},
    "class of a trainer": {"tokenizer_class": "Trainer"},
    "class of a pipeline": {"tokenizer_class": "pipeline"},
    "class that is automatic": {"tokenizer_class": "AutoTokenizer"},
    "class of nobody": {"tokenizer_class": "StrangerTokenizer"},
    "class of another kind": {"tokenizer_class": "WhisperTokenizer"},
    "class without a fast form": {"tokenizer_class": "BertJapaneseTokenizer"},
    "class of a byte": {"tokenizer_class": "ByT5Tokenizer"},
    "class of retrieval": {"tokenizer_class": "RagTokenizer"},
    "class of Mistral": {"tokenizer_class": "MistralCommonBackend"},
    "inputs": {"init_inputs": ["../outside/secret.json", 1]},
    "files elsewhere": {"tokenizer_file": "../outside/tokenizer.json",
                        "vocab_file": "../outside/secret.json", "merges_file": "/etc/passwd"},
    "other files elsewhere": {"spm_file": "../outside/secret.json", "sp_model": "/etc/passwd",
                              "special_tokens_map_file": "../outside/secret.json"},
    "versions elsewhere": {"fast_tokenizer_files": ["../outside/tokenizer.1.0.json"]},
    "a slow one to begin with": {"from_slow": True, "use_fast": False, "gguf_file": "../outside/x"},
    "an object": {"tokenizer_object": "stranger", "backend": "mistral-common"},
    "token numbers beyond all": {"added_tokens_decoder": {str(10**12): {"content": "x"}}},
    "token numbers that are none": {"added_tokens_decoder": {"x": {"content": "x"}, "1": 5}},
    "tokens with unknown keys": {"added_tokens_decoder": {"1": {"content": "x", "evil": True}}},
    "tokens of numbers": {"extra_special_tokens": [1, 2], "unk_token": 5, "pad_token": ["x"]},
    "a million special tokens": {"extra_special_tokens": [f"<{i}>" for i in range(100_000)]},
    "length a text": {"model_max_length": "long"},
    "length negative": {"model_max_length": -5},
    "length infinite": {"model_max_length": 1e400},
    "side": {"padding_side": "up", "truncation_side": 7},
    "inputs by name": {"model_input_names": ["__class__", 5]},
    "template that runs": {"chat_template": "{{ ''.__class__.__mro__[1].__subclasses__() }}"},
    "settings for calls": {"__class__": "x", "self": 1, "pretrained_model_name_or_path": "x",
                           "trust_remote_code": True, "local_files_only": False},
}  # fmt: skip


def set_config(values: dict[str, Any]) -> Harm:
    def harm(place: Path) -> None:
        (place / "base" / "evil.py").write_text(CODE, encoding="utf-8")
        (place / "base" / "pytorch_model.bin").write_bytes(pickle.dumps(Payload()))
        edit(place / "base" / "config.json", **values)

    return harm


def set_text(name: str, content: bytes) -> Harm:
    return lambda place: (place / "base" / name).write_bytes(content) and None


def set_tokenizer(values: dict[str, Any]) -> Harm:
    def harm(place: Path) -> None:
        (place / "base" / "evil.py").write_text(CODE, encoding="utf-8")
        edit(place / "base" / "tokenizer_config.json", **values)

    return harm


def set_pipeline(**parts: Any) -> Harm:
    """Other parts of tokenizer.json."""
    return lambda place: edit(place / "base" / "tokenizer.json", **parts)


def split_at(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


PIPELINES: dict[str, Harm] = {
    "explosive pattern": set_pipeline(pre_tokenizer=split_at("(x+x+)+y|(.+.+)+$z")),
    "explosive replacement": set_pipeline(
        normalizer={"type": "Replace", "pattern": {"Regex": "(.*)*(.*)*q$"}, "content": "z"}
    ),
    "pattern that is none": set_pipeline(pre_tokenizer=split_at("(((")),
    "replacement that grows": set_pipeline(
        normalizer={"type": "Sequence", "normalizers": [
            {"type": "Replace", "pattern": {"String": "o"}, "content": "oooooooo"}] * 4}
    ),
    "no parts": set_pipeline(model=None),
    "unknown parts": set_pipeline(model={"type": "Stranger"}, pre_tokenizer={"type": "Stranger"}),
    "unknown word missing": set_pipeline(
        model={"type": "WordPiece", "unk_token": "[NONE]", "continuing_subword_prefix": "##",
               "max_input_chars_per_word": 100, "vocab": {"a": 0}}
    ),
    "numbers with gaps": set_pipeline(
        model={"type": "WordLevel", "unk_token": "a", "vocab": {"a": 0, "b": 2**31}}
    ),
    "numbers beyond the table": set_pipeline(
        added_tokens=[{"id": 10**6, "content": "good", "single_word": False, "lstrip": False,
                       "rstrip": False, "normalized": False, "special": False}]
    ),
    "template of unknown tokens": set_pipeline(
        post_processor={"type": "TemplateProcessing", "single": [
            {"SpecialToken": {"id": "[EVIL]", "type_id": 0}}], "pair": [], "special_tokens": {}}
    ),
    "template without the text": set_pipeline(
        post_processor={"type": "TemplateProcessing", "single": [], "pair": [],
                        "special_tokens": {}}
    ),
    "precompiled nonsense": set_pipeline(
        normalizer={"type": "Precompiled", "precompiled_charsmap": "AAAA"}
    ),
    "truncation to nothing": set_pipeline(
        truncation={"direction": "Right", "max_length": 0, "strategy": "LongestFirst", "stride": 9}
    ),
    "padding to 10^9": set_pipeline(
        padding={"strategy": {"Fixed": 10**9}, "direction": "Right", "pad_to_multiple_of": None,
                 "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"}
    ),
}  # fmt: skip


def put_index(names: Any) -> Harm:
    """An index in place of model.safetensors, which becomes one of two shards."""

    def harm(place: Path) -> None:
        base = place / "base"
        (base / "model.safetensors").rename(base / "model-00001-of-00002.safetensors")
        (base / "pytorch_model.bin").write_bytes(pickle.dumps(Payload()))
        index = {"metadata": {}, "weight_map": names}
        (base / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")

    return harm


INDEXES: dict[str, Any] = {
    "of a pickle": {"a": "pytorch_model.bin"},
    "of a pickle elsewhere": {"a": "../outside/evil.bin"},
    "of weights elsewhere": {"a": "../outside/evil.safetensors"},
    "of an absolute path": {"a": "/etc/passwd"},
    "of a nameless file": {"a": ""},
    "of its own folder": {"a": "."},
    "of a file that is missing": {"a": "model-00002-of-00002.safetensors"},
    "of numbers": {"a": 5},
    "of nothing": {},
    "that is a list": ["model-00001-of-00002.safetensors"],
    "with a zero byte": {"a": "model-00001-of-00002\0.safetensors"},
    "with controls": {"a": "\x1b[31m.safetensors"},
    "of an address": {"a": "https://example.org/evil.safetensors"},
}


def replaced(name: str, target: str) -> Harm:
    """A link in base/."""
    return lambda place: link(place / "base" / name, target)


def pipe(name: str) -> Harm:
    """A pipe that nobody writes to."""

    def harm(place: Path) -> None:
        (place / "base" / name).unlink(missing_ok=True)
        os.mkfifo(place / "base" / name)

    return harm


def pickled_alone(place: Path) -> None:
    (place / "base" / "model.safetensors").unlink()
    (place / "base" / "pytorch_model.bin").write_bytes(pickle.dumps(Payload()))


def pickled_index(place: Path) -> None:
    pickled_alone(place)
    index = {"metadata": {}, "weight_map": {"a": "../outside/evil.bin"}}
    path = place / "base" / "pytorch_model.bin.index.json"
    path.write_text(json.dumps(index), encoding="utf-8")


def adapter_beside(base: str) -> Harm:
    """An adapter's files beside the model, which peft would load with the base it names."""

    def harm(place: Path) -> None:
        config = {
            "peft_type": "LORA", "base_model_name_or_path": base, "r": 1, "lora_alpha": 1,
            "target_modules": ["query"], "auto_mapping": {"parent_library": "evil"},
        }  # fmt: skip
        path = place / "base" / "adapter_config.json"
        path.write_text(json.dumps(config), encoding="utf-8")
        (place / "base" / "adapter_model.bin").write_bytes(pickle.dumps(Payload()))

    return harm


def templates_elsewhere(place: Path) -> None:
    (place / "base" / "additional_chat_templates").mkdir()
    link(place / "base" / "additional_chat_templates" / "x.jinja", "../../outside/evil.py")


def of_a_class(name: str, harm: Harm) -> Harm:
    """A tokenizer's class that opens files by names of its own."""

    def both(place: Path) -> None:
        (place / "base" / "tokenizer.json").unlink()
        (place / "base" / "vocab.txt").write_text("evil 1\n", encoding="utf-8")
        set_tokenizer({"tokenizer_class": name})(place)
        harm(place)

    return both


def snapshot_of_links(place: Path) -> None:
    """As a hub's cache looks, with blobs that lead elsewhere."""
    snapshot = place / "hub" / "snapshots" / "abc"
    shutil.copytree(place / "base", snapshot)
    (place / "hub" / "blobs").symlink_to("../outside")
    link(snapshot / "model.safetensors", "../../blobs/evil.safetensors")
    shutil.rmtree(place / "base")
    (place / "base").symlink_to("hub/snapshots/abc")


def model_cases() -> Cases:
    cases: Cases = {f"config: {n}": set_config(v) for n, v in CONFIGS.items()}
    cases |= {f"config: {n}": set_text("config.json", t) for n, t in TEXTS.items()}
    cases |= {f"tokenizer config: {n}": set_tokenizer(v) for n, v in TOKENIZER_CONFIGS.items()}
    for name in ("tokenizer_config.json", "tokenizer.json", "special_tokens_map.json"):
        cases |= {f"{name}: {n}": set_text(name, t) for n, t in TEXTS.items() if "MB" not in n}
    cases |= {f"tokenizer: {n}": harm for n, harm in PIPELINES.items()}
    cases |= {f"weights: {n}": set_text("model.safetensors", t) for n, t in WEIGHTS.items()}
    cases |= {f"index: {n}": put_index(names) for n, names in INDEXES.items()}
    for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
                 "chat_template.jinja", "vocab.txt", "generation_config.json"):  # fmt: skip
        cases[f"{name}: a link elsewhere"] = replaced(name, "../outside/secret.json")
        cases[f"{name}: a link to itself"] = replaced(name, name)
        cases[f"{name}: a pipe"] = pipe(name)
    for name, user in (("bpe.codes", "PhobertTokenizer"), ("source.spm", "MarianTokenizer"),
                       ("prophetnet.tokenizer", "ProphetNetTokenizer"),
                       ("words.any", "BertTokenizer")):  # fmt: skip
        elsewhere = replaced(name, "../outside/secret.json")
        cases[f"{name}: a link elsewhere"] = of_a_class(user, elsewhere)
        cases[f"{name}: a pipe"] = of_a_class(user, pipe(name))
    cases["weights: a pickle alone"] = pickled_alone
    cases["weights: a pickle's index"] = pickled_index
    cases["adapter of a hub"] = adapter_beside("stranger/repo")
    cases["adapter of a folder elsewhere"] = adapter_beside("../outside")
    cases["templates elsewhere"] = templates_elsewhere
    cases["snapshot of links"] = snapshot_of_links
    return cases
