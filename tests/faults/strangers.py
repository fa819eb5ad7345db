"""Folders, tables and recipes as somebody who means harm would write them.

Each case is a function of a place (conftest.py) that makes it hostile, and the command that meets
it. What must never be read lies in outside/, and all code in it holds the word "stranger".
"""

import io
import json
import os
import pickle
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from files.verify import sha256

CODE = "# stranger\nimport os\nopen('pwned', 'w').close()\nclass Head: pass\n"


class Payload:
    """What a pickle would run."""

    def __reduce__(self):
        return (os.system, ("touch pwned",))


def plant_outside(place: Path) -> Path:
    """outside/: files that a name in a stranger's folder may point to."""
    outside = place / "outside"
    outside.mkdir(exist_ok=True)
    (outside / "secret.json").write_text('{"model_type": "bert", "k": "secret"}', encoding="utf-8")
    (outside / "evil.py").write_text(CODE, encoding="utf-8")
    (outside / "evil.bin").write_bytes(pickle.dumps(Payload()))
    shutil.copy(place / "base" / "model.safetensors", outside / "evil.safetensors")
    shutil.copy(place / "base" / "tokenizer.json", outside / "tokenizer.json")
    return outside


def edit(path: Path, **values: Any) -> None:
    """Set keys of a JSON file; those that are `...` go."""
    held = json.loads(path.read_text(encoding="utf-8")) | values
    held = {key: value for key, value in held.items() if value is not ...}
    path.write_text(json.dumps(held), encoding="utf-8")


def reseal(run: Path) -> None:
    """Make all lists of a run's files true again, as somebody would who rewrites it whole."""
    model = run / "model"
    manifest, record = model / "manifest.json", model / "openloop.json"

    def entries() -> dict[str, Path]:
        files = (p for p in model.rglob("*") if p.is_file() and p != manifest)
        return {p.relative_to(model).as_posix(): p for p in files}

    try:
        listed = {n: sha256(p) for n, p in entries().items() if p != record}
        edit(record, files=listed)
    except (ValueError, AttributeError, TypeError, RecursionError):
        pass  # it is no object any more
    sizes = {n: {"bytes": p.stat().st_size, "sha256": sha256(p)} for n, p in entries().items()}
    manifest.write_text(json.dumps({"files": sizes}), encoding="utf-8")
    names = ("config.toml", "environment.json", "data.json", "model/manifest.json")
    edit(run / "result.json", files={n: sha256(run / n) for n in names if (run / n).is_file()})


def link(path: Path, target: str) -> None:
    if path.exists():
        path.unlink()
    path.symlink_to(target)


Harm = Callable[[Path], None]
Cases = dict[str, Harm]


# Model folders: base/ is trained on

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

TEXTS = {
    "empty": b"",
    "a list": b"[]",
    "a text": b'"bert"',
    "null": b"null",
    "infinite": b'{"model_type": "bert", "hidden_size": Infinity}',
    "not UTF-8": b'{"model_type": "b\xff\xfert"}',
    "nested 100,000 deep": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "lists 100,000 deep": b"[" * 100_000 + b"]" * 100_000,
    "controls in a key": (
        b'{"model_type": "bert", "\\u001b[31m": 1, "\\u202e": 2, '
        b'"hidden_size": "\\u001b]0;x\\u0007"}'
    ),
    "128 MB": b'{"a": "' + b"x" * (128 << 20) + b'"}',
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


def header(entries: dict[str, Any], data: bytes = b"\0" * 64, length: int | None = None) -> bytes:
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def tensor(shape: list[int], begin: int, end: int, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


WEIGHTS: dict[str, bytes] = {
    "empty": b"",
    "a header of 2^63 bytes": header({}, length=2**63),
    "a header of 90 MB that is not there": header({}, length=90 << 20),
    "a shape of 2^60": header({"embeddings.word_embeddings.weight": tensor([2**60], 0, 64)}),
    "a shape that overflows": header({"x": tensor([2**33, 2**33], 0, 64)}),
    "offsets beyond the file": header({"x": tensor([2**20], 0, 2**22)}),
    "offsets backwards": header({"x": tensor([16], 64, 0)}),
    "offsets over each other": header({"x": tensor([16], 0, 64), "y": tensor([16], 0, 64)}),
    "an unknown type": header({"x": tensor([16], 0, 64, "EVIL")}),
    "no tensors": header({}, b""),
    "controls in a name": header({"\x1b[31m\u202e": tensor([16], 0, 64)}),
    "a nested header": struct.pack("<Q", 200_000) + b"[" * 200_000,
    "a pickle": pickle.dumps(Payload()),
    "other shapes": header({"embeddings.word_embeddings.weight": tensor([4, 4], 0, 64)}),
    "whole numbers": header({"embeddings.LayerNorm.weight": tensor([8], 0, 64, "I64")}),
    "a million names": header({f"n{i}": tensor([0], 0, 0) for i in range(200_000)}, b""),
}


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
    cases["weights: a pickle alone"] = pickled_alone
    cases["weights: a pickle's index"] = pickled_index
    cases["adapter of a hub"] = adapter_beside("stranger/repo")
    cases["adapter of a folder elsewhere"] = adapter_beside("../outside")
    cases["templates elsewhere"] = templates_elsewhere
    cases["snapshot of links"] = snapshot_of_links
    return cases


# Run folders: runs/one is asked


def set_record(**values: Any) -> Harm:
    """Other words in openloop.json, all lists of files made true."""

    def harm(place: Path) -> None:
        run = place / "runs" / "one"
        (run / "model" / "head_code.py").write_text(CODE, encoding="utf-8")
        edit(run / "model" / "openloop.json", **values)
        reseal(run)

    return harm


def set_model(**values: Any) -> Harm:
    def harm(place: Path) -> None:
        run = place / "runs" / "one"
        path = run / "model" / "openloop.json"
        model = json.loads(path.read_text(encoding="utf-8"))["model"]
        edit(path, model={k: v for k, v in (model | values).items() if v is not ...})
        reseal(run)

    return harm


def set_base(**values: Any) -> Harm:
    def harm(place: Path) -> None:
        run = place / "runs" / "one"
        path = run / "model" / "openloop.json"
        base = json.loads(path.read_text(encoding="utf-8"))["base"]
        edit(path, base=base | values)
        reseal(run)

    return harm


def set_run_text(name: str, content: bytes) -> Harm:
    def harm(place: Path) -> None:
        (place / "runs" / "one" / name).write_bytes(content)
        if name != "result.json":
            reseal(place / "runs" / "one")

    return harm


def set_adapter(**values: Any) -> Harm:
    def harm(place: Path) -> None:
        edit(place / "runs" / "one" / "model" / "adapter_config.json", **values)
        reseal(place / "runs" / "one")

    return harm


def append_settings(text: str) -> Harm:
    """Settings at the end of a run's config.toml."""

    def harm(place: Path) -> None:
        path = place / "runs" / "one" / "config.toml"
        path.write_text(path.read_text(encoding="utf-8") + text, encoding="utf-8")
        reseal(place / "runs" / "one")

    return harm


def change_setting(old: str, new: str) -> Harm:
    def harm(place: Path) -> None:
        path = place / "runs" / "one" / "config.toml"
        text = path.read_text(encoding="utf-8")
        assert old in text, old
        path.write_text(text.replace(old, new, 1), encoding="utf-8")
        reseal(place / "runs" / "one")

    return harm


def ring(place: Path) -> None:
    """Two runs, each the base of the other."""
    shutil.copytree(place / "runs" / "one", place / "runs" / "three")
    for name, other in (("one", "three"), ("three", "one")):
        path = place / "runs" / name / "model" / "openloop.json"
        base = json.loads(path.read_text(encoding="utf-8"))["base"]
        edit(path, base=base | {"source": f"run:{place}/runs/{other}"})
        reseal(place / "runs" / name)


def itself(place: Path) -> None:
    set_base(source=f"run:{place}/runs/one")(place)


def tower(place: Path) -> None:
    """A thousand runs, each on top of the next."""
    run = place / "runs" / "one"
    for number in range(60):
        shutil.copytree(run / "model", place / "runs" / f"t{number}" / "model")
        path = place / "runs" / f"t{number}" / "model" / "openloop.json"
        base = json.loads(path.read_text(encoding="utf-8"))["base"]
        edit(path, base=base | {"source": f"run:{place}/runs/t{number + 1}"})
    set_base(source=f"run:{place}/runs/t0")(place)


def linked_model(place: Path) -> None:
    model = place / "runs" / "one" / "model"
    shutil.copytree(model, place / "outside" / "model")
    shutil.rmtree(model)
    model.symlink_to("../../outside/model")


def run_link(name: str, target: str) -> Harm:
    return lambda place: link(place / "runs" / "one" / name, target)


def run_pipe(name: str) -> Harm:
    def harm(place: Path) -> None:
        (place / "runs" / "one" / name).unlink(missing_ok=True)
        os.mkfifo(place / "runs" / "one" / name)

    return harm


def list_elsewhere(place: Path) -> None:
    name = "../../outside/secret.json"
    edit(place / "runs" / "one" / "result.json", files={name: "0" * 64})


def manifest_elsewhere(place: Path) -> None:
    files = {"../../../outside/secret.json": {"bytes": 1, "sha256": "0" * 64}}
    edit(place / "runs" / "one" / "model" / "manifest.json", files=files)


def planted_vocabulary(place: Path) -> None:
    (place / "runs" / "one" / "model" / "vocab.txt").write_text("evil\n", encoding="utf-8")


LORA = {"targets": ["query"], "rank": 2, "alpha": 4.0, "dropout": 0.0, "layers": None}

RUNS: Cases = {
    "record: format 99": set_record(format=99),
    "record: format a text": set_record(format="1"),
    "record: format true": set_record(format=True),
    "record: no base": set_record(base=...),
    "record: base null": set_record(base=None),
    "record: no model": set_record(model=...),
    "record: files a list": set_record(files=[1]),
    "record: head code": set_record(head_code={"class": "Head", "sha256": "0"}),
    "record: head code a list": set_record(head_code=["Head"]),
    "record: head code of an attribute": set_record(head_code={"class": 5}),
    "model: a head of their own": set_model(head_kind="outside/evil.py:Head"),
    "model: a head of nobody": set_model(head_kind="stranger"),
    "model: a head's kind a list": set_model(head_kind=["linear"]),
    "model: head words": set_model(head_args={"__class__": 1, "width": 10}),
    "model: a wide head": set_model(head_kind="mlp", head_args={"width": 10**12}),
    "model: a fairly wide head": set_model(head_kind="mlp", head_args={"width": 10**9}),
    "model: labels 10^12": set_model(num_labels=10**12, label_names=[]),
    "model: labels 10^9": set_model(num_labels=10**9, label_names=[]),
    "model: labels -1": set_model(num_labels=-1, label_names=[]),
    "model: labels a text": set_model(num_labels="2"),
    "model: labels named alike": set_model(label_names=["a", "a"]),
    "model: labels that steer": set_model(label_names=["\x1b[31mneg", "\u202epos\n\rx"]),
    "model: labels of numbers": set_model(label_names=[1, None]),
    "model: labels swapped": set_model(label_names=["pos", "neg"]),
    "model: kind": set_model(kind="stranger"),
    "model: a regression": set_model(kind="regression", num_labels=1, label_names=[],
                                     target_mean=1e308, target_deviation=1e308),
    "model: a mean of nothing": set_model(target_mean=None),
    "model: rank 10^9": set_model(lora=LORA | {"rank": 10**9}),
    "model: rank 0": set_model(lora=LORA | {"rank": 0}),
    "model: alpha a text": set_model(lora=LORA | {"alpha": "x"}),
    "model: alpha infinite": set_model(lora=LORA | {"alpha": float("inf")}),
    "model: an unknown variant": set_model(lora=LORA | {"variant": "stranger"}),
    "model: layers of a table": set_model(lora=LORA | {"layers": {"a": 1}}),
    "model: lora a list": set_model(lora=[1]),
    "model: lora empty": set_model(lora={}),
    "model: no lora": set_model(lora=None),
    "model: unknown words": set_model(allow_code=True),
    "model: more unknown words": set_model(stranger=1),
    "model: dropout a list": set_model(dropout=[0.1]),
    "model: trains": set_model(train="last:999999999999"),
    "model: revision": set_model(revision=5),
    "base: itself": itself,
    "base: a ring": ring,
    "base: a tower": tower,
    "base: of a hub": set_base(source="hub:stranger/repo"),
    "base: of a hub, as a path": set_base(source="hub:../../outside"),
    "base: a revision of a hub": set_base(source="hub:stranger/repo", revision="../../x"),
    "base: an address": set_base(source="https://example.org/x"),
    "base: elsewhere": set_base(source="outside"),
    "base: a package": set_base(source="package:os/x"),
    "base: a package's path": set_base(source="package:torch/../../../outside"),
    "base: a number": set_base(source=5),
    "base: in memory": set_base(in_memory=True),
    "base: in a text's memory": set_base(in_memory="yes"),
    "base: no hash": set_base(sha256=None),
    "base: a device": set_base(source="/dev"),
    "base: a process": set_base(source="/proc/self/cwd/outside"),
    "adapter: no targets": set_adapter(target_modules=...),
    "adapter: a pattern": set_adapter(target_modules="(x+x+)+y"),
    "adapter: targets of numbers": set_adapter(target_modules=[1]),
    "adapter: targets of nothing": set_adapter(target_modules=["nowhere"]),
    "adapter: r 0": set_adapter(r=0),
    "adapter: r a text": set_adapter(r="x"),
    "adapter: another method": set_adapter(peft_type="STRANGER"),
    "adapter: dora": set_adapter(use_dora=True),
    "adapter: a base of a hub": set_adapter(base_model_name_or_path="stranger/repo"),
    "adapter: code": set_adapter(auto_mapping={"parent_library": "evil"}),
    "model is a link": linked_model,
    "weights are a link": run_link("model/adapter_model.safetensors", "../../../outside/evil.bin"),
    "head is a link": run_link("model/head.safetensors", "../../../outside/evil.bin"),
    "settings are a link": run_link("config.toml", "../../outside/secret.json"),
    "settings are a pipe": run_pipe("config.toml"),
    "result is a pipe": run_pipe("result.json"),
    "environment is a pipe": run_pipe("environment.json"),
    "record is a pipe": run_pipe("model/openloop.json"),
    "manifest is a pipe": run_pipe("model/manifest.json"),
    "tokenizer is a pipe": run_pipe("model/tokenizer.json"),
    "a list of files elsewhere": list_elsewhere,
    "a manifest of files elsewhere": manifest_elsewhere,
    "a vocabulary planted": planted_vocabulary,
    "settings: 100,000 threads": change_setting("[run]\n", "[run]\nthreads = 100000\n"),
    "settings: a name that leaves": change_setting('name = "one"', 'name = "../../outside/x"'),
    "settings: a nested value": append_settings(f"\nx = {'[' * 50_000}{']' * 50_000}\n"),
    "settings: a nested key": append_settings("\n[" + ".".join(["a"] * 20_000) + "]\nx = 1\n"),
    "settings: a long number": append_settings(f"\nx = {'9' * 100_000}\n"),
    "settings: keys that steer": append_settings('\n["\\u001b[31m\\u202e"]\nx = 1\n'),
    "settings: not UTF-8": set_run_text("config.toml", b"[run]\nname = '\xff'\n"),
    "settings: length 10^12": change_setting("max_length = 32", "max_length = 1000000000000"),
    "settings: rows 10^12": change_setting('micro_batch_size = "auto"',
                                         "micro_batch_size = 1000000000000"),
    "settings: an encoding that unpacks": change_setting('encoding = "utf-8"',
                                                         'encoding = "zlib_codec"'),
    "settings: an encoding that runs": change_setting('encoding = "utf-8"', 'encoding = "idna"'),
    "settings: a device": change_setting('device = "cpu"', 'device = "cuda:99"'),
    "settings: a dtype": change_setting('dtype = "fp32"', 'dtype = "fp16"'),
    "settings: a head of their own": change_setting('kind = "linear"',
                                                    'kind = "outside/evil.py:Head"'),
    "environment: a dtype": set_run_text("environment.json", b'{"dtype": "evil", "device": "cpu"}'),
}  # fmt: skip


def run_cases() -> Cases:
    cases = dict(RUNS)
    for name in ("config.toml", "environment.json", "result.json", "data.json",
                 "model/openloop.json", "model/adapter_config.json"):  # fmt: skip
        for title, content in TEXTS.items():
            if "MB" not in title:
                cases[f"{name}: {title}"] = set_run_text(name, content)
    for title, content in WEIGHTS.items():
        for name in ("model/adapter_model.safetensors", "model/head.safetensors"):
            cases[f"{name}: {title}"] = set_run_text(name, content)
    return cases


# Tables and texts: hostile.* is guessed, read, and asked about


def written(name: str, content: bytes | str) -> Harm:
    raw = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
    return lambda place: (place / name).write_bytes(raw) and None


ROWS = "".join(f"some text number {i},{i % 2}\n" for i in range(40))


def packed(kind: str, size: int) -> bytes:
    """A small file that unpacks to `size` bytes of one line."""
    import bz2
    import gzip
    import lzma

    pack = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}[kind]
    return pack(b"text,label\n" + b"a" * size)


def workbook(inner: str) -> bytes:
    """An .xlsx whose first sheet is this XML."""
    import zipfile

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("[Content_Types].xml", "<Types/>")
        file.writestr("xl/workbook.xml", inner)
        file.writestr("xl/worksheets/sheet1.xml", inner)
    return buffer.getvalue()


LAUGHS = "<!DOCTYPE l [<!ENTITY a0 'ha'>" + "".join(
    f"<!ENTITY a{i} '{f'&a{i - 1};' * 10}'>" for i in range(1, 12)
) + "]><l>&a11;</l>"  # fmt: skip
ENTITY = "<!DOCTYPE l [<!ENTITY x SYSTEM 'file:///etc/passwd'>]><l>&x;</l>"


def tables() -> Iterator[tuple[str, str, bytes | str]]:
    """(name of the case, of the file, content)."""
    yield "header that steers", "h.csv", "te\x1b[31mxt,la\u202ebel\n" + ROWS
    yield "header of lines", "h.csv", '"te\nINFO forged\nxt","label"\n' + ROWS
    yield "header of 50,000 names", "h.csv", ",".join(f"c{i}" for i in range(50_000)) + "\n" + ROWS
    yield "header of one long name", "h.csv", "x" * 2_000_000 + ",label\n" + ROWS
    yield "labels that steer", "h.csv", "text,label\n" + ROWS.replace(",1", ",\x1b]0;x\x07\u202e")
    yield "labels that are markup", "h.csv", "text,label\n" + ROWS.replace(",1", ",<script>`|")
    yield "texts that steer", "h.csv", "text,label\n" + ROWS.replace("some", "\x1b[2J\x9b")
    yield "zero bytes", "h.csv", "text,label\n" + ROWS.replace("some", "so\0me")
    yield "a quote that is never closed", "h.csv", 'text,label\n"' + ROWS * 2000
    yield "one field of 20 MB", "h.csv", "text,label\n" + "a " * 10_000_000 + ",1\n" + ROWS
    yield "formulas", "h.csv", "text,label\n" + ROWS.replace("some", "=cmd|' /C calc'!A0")
    yield "half surrogates", "h.csv", "text,label\n" + ROWS.replace("some", "\ud83d")
    yield "random bytes", "h.csv", bytes(range(256)) * 400
    yield "nested JSON", "h.jsonl", '{"text":' + "[" * 100_000 + "]" * 100_000 + "}\n"
    yield "nested JSON in a list", "h.json", "[" * 1_000_000
    yield "JSON keys by the thousand", "h.jsonl", json.dumps({f"k{i}": i for i in range(50_000)})
    yield "JSON of long numbers", "h.jsonl", '{"text": "x", "label": ' + "9" * 100_000 + "}\n"
    yield "JSON of infinities", "h.jsonl", '{"text": "x", "label": 1e999}\n{"text": NaN}\n'
    yield (
        "JSON with keys that steer",
        "h.jsonl",
        ('{"te\\u001b[31mxt": "some words", "la\\u202ebel": 1}\n' * 40),
    )
    yield "JSON of half surrogates", "h.jsonl", '{"text": "\\ud83d", "label": "\\udc00"}\n' * 40
    yield "a parquet file that is none", "h.parquet", b"PAR1" + b"\xff" * 64 + b"PAR1"
    yield "a parquet footer of 2 GB", "h.parquet", b"PAR1" + b"\0" * 8 + b"\xff\xff\xff\x7fPAR1"
    yield "a pickle called parquet", "h.parquet", pickle.dumps(Payload())
    yield "a pickle called CSV", "h.csv", pickle.dumps(Payload())
    yield "a workbook of laughs", "h.xlsx", workbook(LAUGHS)
    yield "a workbook that reads a file", "h.xlsx", workbook(ENTITY)
    yield "a workbook of 300 MB", "h.xlsx", workbook("<a>" + " " * (300 << 20))
    for kind in ("gz", "bz2", "xz"):
        yield f"a bomb: {kind}", f"h.csv.{kind}", packed(kind, 300 << 20)
        yield f"cut: {kind}", f"h.csv.{kind}", packed(kind, 1000)[:-9]


def table_cases() -> dict[str, tuple[Harm, str]]:
    """Name -> harm, and the file that it writes."""
    return {name: (written(file, content), file) for name, file, content in tables()}


RECIPES: dict[str, str] = {
    "a name that leaves": 'name = "../../outside/x"',
    "a name of dots": 'name = ".."',
    "a name that steers": 'name = "a\\u001b[31m"',
    "a folder elsewhere": 'name = "x"\ndir = "/proc/1/root/x"',
    "100,000 threads": 'name = "x"\nthreads = 100000',
    "10^18 threads": 'name = "x"\nthreads = 1000000000000000000',
    "a seed of 4,000 digits": f'name = "x"\nseed = {"9" * 4000}',
    "a seed of 5,000 digits": f'name = "x"\nseed = {"9" * 5000}',
    "a nested value": f'name = "x"\ny = {"[" * 50_000}{"]" * 50_000}',
    "nested tables": f'name = "x"\ny = {"{a=" * 5_000}1{"}" * 5_000}',
    "a long key": 'name = "x"\n' + ".".join(["a"] * 20_000) + " = 1",
    "a key that steers": 'name = "x"\n"\\u001b]0;title\\u0007\\u202e" = 1',
    "a name of 300 letters": f'name = "{"a" * 300}"',
    "a name of a device": 'name = "x"\ndir = "/dev/null"',
}

FILTERS = (
    "__import__('os').system('touch pwned')", "text == open('outside/secret.json').read()",
    "(" * 20_000 + "label == 1" + ")" * 20_000, "not " * 50_000 + "label == 1",
    "text == '" + "a" * 1_000_000 + "'", "label ** 99 ** 99 ** 99 > 1", "text.__class__ == 1",
    "label in [" + "1," * 100_000 + "1]", "\x1b[31m == 1", "label == 9" + "9" * 5000,
)  # fmt: skip
SPOKEN = (
    "\x1b[31mred\x1b]0;title\x07", "\u202eevil", "a\rb\x08\x08", "\ud800", "\x00", "", " ", "-",
    "a" * 200_000, "好" * 50_000, "\u200b" * 1000, "'; DROP TABLE x; --", "{{7*7}}", "%s%n%x",
    "x" * 60 + "y" * 60, "\U000e0041" * 50, "Z\u0300\u0301" * 20_000, "<!--" * 50_000, "&" * 50_000,
)  # fmt: skip
