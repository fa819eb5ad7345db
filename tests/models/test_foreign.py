"""A model folder is data alone, read within itself, and no larger than the machine."""

import json
import os
import re
import shutil
from pathlib import Path

import pytest
import torch
import transformers
from torch import nn

from files.read import MOST_BYTES
from files.verify import sha256
from models.args import ModelArgs, check_model_args
from models.counted import check_parameters
from models.foreign import check_inside, check_model_folder, is_readable, weight_files
from models.limits import (
    MOST_LABELS,
    MOST_LAYERS,
    check_bytes,
    group_limits,
    machine_memory,
)
from models.load import load_tokenizer, read_config, read_weights
from models.verified import folder_differences
from tests.edits import edit

VOCABULARY = re.compile(r"VOCAB_FILES_NAMES\s*=\s*\{(.*?)\}", re.DOTALL)


@pytest.fixture
def folder(tiny_folder, tmp_path):
    return shutil.copytree(tiny_folder, tmp_path / "m")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"attn_implementation": "a/kernel"}, r"attn_implementation is 'a/kernel'"),
        ({"text_config": {"_attn_implementation": "a/b"}}, "_attn_implementation is 'a/b'"),
        ({"attn_implementation": {"": "a/b"}}, "'a/b'"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantised weights"),
        ({"tokenizer_class": "AutoModel"}, "tokenizer_class is 'AutoModel'"),
        ({"num_hidden_layers": MOST_LAYERS + 1}, "num_hidden_layers is 1,025"),
        ({"num_labels": MOST_LABELS + 1}, "num_labels is 250,001"),
        ({"vocab_size": 10**12}, "vocab_size is 1,000,000,000,000"),
        ({"hidden_size": "32"}, "cannot be used"),
    ],
)
def test_a_config_that_asks_for_more_is_refused_with_its_key(folder, values, message):
    edit(folder / "config.json", **values)
    with pytest.raises(ValueError, match=message):
        read_config(str(folder))


def test_a_config_of_a_size_the_machine_has_not_is_refused_before_it_is_allocated(
    make, folder, monkeypatch
):
    monkeypatch.setattr("models.limits.machine_memory", lambda: 50_000)
    with pytest.raises(ValueError, match=r"in fp32, needs .* this machine has 0\.0 GB"):
        make(source=str(folder))


def test_a_config_of_endless_layers_is_refused_while_they_are_counted(folder, monkeypatch):
    from transformers import BertConfig, BertModel

    monkeypatch.setattr("models.counted.MOST_TENSORS", 100)
    config = BertConfig(num_hidden_layers=10**6, hidden_size=2, num_attention_heads=1)
    with pytest.raises(ValueError, match="the number of its tensors is 201"):
        check_parameters(BertModel, config, str(folder))


class Tied(nn.Module):
    """A table that other layers share, after each was made with one of its own."""

    def __init__(self, config):
        super().__init__()
        self.table = nn.Linear(100, 10, bias=False)
        self.table.weight = nn.Parameter(torch.empty(10, 100))
        self.heads = nn.ModuleList(nn.Linear(100, 10, bias=False) for _ in range(config["heads"]))
        for head in self.heads:
            head.weight = self.table.weight


@pytest.mark.parametrize("heads", [0, 1, 20])
def test_a_parameter_in_several_places_is_counted_once(monkeypatch, heads):
    monkeypatch.setattr("models.limits.machine_memory", lambda: 4 * 1000)
    monkeypatch.setattr("models.counted.MOST_TENSORS", 20)
    check_parameters(Tied, {"heads": heads}, "m")
    monkeypatch.setattr("models.limits.machine_memory", lambda: 4 * 1000 - 1)
    with pytest.raises(ValueError, match=r"in fp32, needs"):
        check_parameters(Tied, {"heads": heads}, "m")


GROUPS = {
    "version 2, its root": ("0::/\n", "memory.max", "5000\n"),
    "version 2, nested": ("0::/user/run.scope\n", "user/run.scope/memory.max", "5000"),
    "version 2, one around it": ("0::/user/run.scope\n", "user/memory.max", "5000\n"),
    "version 1": ("5:cpu:/a\n4:memory:/a/b\n", "memory/a/b/memory.limit_in_bytes", "5000\n"),
    "version 1, by another name": ("4:memory:/docker/1\n", "memory/memory.limit_in_bytes", "5000"),
    "version 1, joined": ("4:cpu,memory:/x\n0::/\n", "memory/x/memory.limit_in_bytes", "5000"),
}


@pytest.mark.parametrize("name", GROUPS)
def test_the_limit_of_a_group_is_found_wherever_it_is_set(name, tmp_path):
    groups, file, limit = GROUPS[name]
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text(limit, encoding="utf-8")
    assert list(group_limits(groups, tmp_path)) == [5000]


@pytest.mark.parametrize("groups", ["0::/\n", "0::/../other\n", "3:cpu:/\n", ""])
def test_a_group_without_a_limit_has_none(groups, tmp_path):
    (tmp_path / "memory.max").write_text("max\n", encoding="utf-8")
    assert list(group_limits(groups, tmp_path)) == []


def test_what_a_run_stores_of_the_most_labels_can_be_read_again():
    third = 1 / 3
    row = {"precision": third, "recall": third, "f1": third, "n": 10**9, "predicted": 10**9}
    text = json.dumps({"test": {"classes": [row] * 1000}}, indent=1)
    assert len(text) / 1000 * MOST_LABELS < 0.7 * MOST_BYTES


def test_label_names_that_no_file_could_hold_are_refused():
    names = tuple(f"{number} " + "é" * 3000 for number in range(1000))
    args = ModelArgs(source="m", num_labels=len(names), label_names=names)
    with pytest.raises(ValueError, match="names of the 1,000 labels take"):
        check_model_args(args)


def test_the_machines_memory_is_that_of_its_container_at_most():
    assert 1 << 28 < machine_memory() < 1 << 50
    check_bytes(machine_memory(), "this")
    with pytest.raises(ValueError, match="this needs"):
        check_bytes(machine_memory() + 1, "this")


@pytest.mark.parametrize(
    "values",
    [{"tokenizer_class": "AutoModel"}, {"tokenizer_class": "Trainer"}, {"init_inputs": ["x"]},
     {"auto_map": {"AutoTokenizer": ["evil.T", None]}}],
)  # fmt: skip
def test_a_tokenizer_config_that_names_code_is_refused(folder, values):
    edit(folder / "tokenizer_config.json", **values)
    with pytest.raises(ValueError, match=r"tokenizer_config\.json"):
        load_tokenizer(str(folder))


NAMES = ["config.json", "model.safetensors", "tokenizer.json", "x.jinja", "bpe.codes", "source.spm",
         "prophetnet.tokenizer", "words.any", "words"]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "make_one"),
    [*((name, one) for name in NAMES for one in ("link", "link to a folder", "pipe")),
     *((name, "folder") for name in NAMES[:7])],
)  # fmt: skip
def test_what_is_no_file_of_the_folder_is_refused(folder, tmp_path, name, make_one):
    (folder / name).unlink(missing_ok=True)
    if make_one == "link":
        (tmp_path / "outside").write_text("{}", encoding="utf-8")
        (folder / name).symlink_to("../outside")
    elif make_one == "link to a folder":
        (tmp_path / "outside").mkdir()
        (folder / name).symlink_to("../outside")
    elif make_one == "pipe":
        os.mkfifo(folder / name)
    else:
        (folder / name).mkdir()
    with pytest.raises(ValueError, match=f"{name} is (a link|no regular file)"):
        check_model_folder(folder)


def test_folders_that_nothing_opens_may_lie_in_a_model_folder(folder):
    for name in ("1_Pooling", "onnx", ".git"):
        (folder / name).mkdir()
        os.mkfifo(folder / name / "pipe")
    check_model_folder(folder)


def test_a_tokenizer_of_codes_is_not_read_through_a_link(folder, tmp_path):
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").write_text("good 1\n", encoding="utf-8")
    (tmp_path / "secret").write_text("g ood</w> 1\n", encoding="utf-8")
    (folder / "bpe.codes").symlink_to("../secret")
    edit(folder / "tokenizer_config.json", tokenizer_class="PhobertTokenizer")
    with pytest.raises(ValueError, match=r"bpe\.codes is a link"):
        load_tokenizer(str(folder))


def test_every_file_that_a_tokenizer_names_is_known_by_its_ending():
    models = Path(transformers.__file__).parent / "models"
    names = set()
    for path in models.glob("*/tokenization_*.py"):
        for block in VOCABULARY.findall(path.read_text(encoding="utf-8")):
            names |= set(re.findall(r':\s*"([^"]+)"', block))
    assert {"bpe.codes", "source.spm", "vocab.txt"} <= names
    assert {name for name in names if not is_readable(Path(name))} == set()


def export(folder):
    """A record of all that a folder holds, as an export writes it."""
    held = [path for path in folder.rglob("*") if path.is_file()]
    files = {path.relative_to(folder).as_posix(): sha256(path) for path in held}
    (folder / "openloop.json").write_text(json.dumps({"files": files}), encoding="utf-8")


@pytest.mark.parametrize(
    "name",
    ["bpe.codes", "source.spm", "prophetnet.tokenizer", "added_tokens.json",
     "additional_chat_templates/x.jinja", "base/openloop.json", "base/manifest.json",
     "base/model.safetensors", "base/vocab.txt", "base/additional_chat_templates/x.jinja"],
)  # fmt: skip
def test_a_file_that_was_added_is_named(folder, name):
    shutil.copytree(folder, folder / "base")
    (folder / "base" / "model.safetensors").rename(folder / "base" / "weights.safetensors")
    export(folder)
    assert folder_differences(folder) == []
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("{}", encoding="utf-8")
    assert folder_differences(folder) == [f"{folder}: {name} was added, and loading would read it"]


def test_links_of_a_hubs_cache_are_read_and_those_that_leave_it_are_not(folder, tmp_path):
    snapshot = tmp_path / "hub" / "snapshots" / "abc"
    blobs = tmp_path / "hub" / "blobs"
    blobs.mkdir(parents=True)
    shutil.copytree(folder, snapshot)
    (snapshot / "model.safetensors").rename(blobs / "123")
    (snapshot / "model.safetensors").symlink_to("../../blobs/123")
    check_model_folder(snapshot)
    assert read_weights(snapshot)
    (blobs / "123").rename(tmp_path / "elsewhere")
    (blobs / "123").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="outside its folder"):
        check_inside(snapshot, snapshot / "model.safetensors")


def shard(folder, names):
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    index = {"metadata": {}, "weight_map": names}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")


def test_weights_by_an_index_are_those_of_its_files(folder):
    whole = read_weights(folder)
    shard(folder, dict.fromkeys(whole, "model-00001-of-00001.safetensors"))
    (folder / "other.safetensors").write_bytes(b"never opened")
    parts = read_weights(folder)
    assert parts.keys() == whole.keys()
    assert all(torch.equal(parts[name], whole[name]) for name in whole)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "../x.safetensors", "/x.safetensors", "", 5])
def test_an_index_of_anything_but_safetensors_in_the_folder_is_refused(make, folder, name):
    torch.save({}, folder / "pytorch_model.bin")
    shard(folder, {"a": name})
    with pytest.raises(ValueError, match=r"safetensors files of the same folder alone.*Convert"):
        make(source=str(folder))


def test_a_file_that_the_index_names_and_the_folder_lacks_is_named(folder):
    shard(folder, {"a": "model-00002-of-00002.safetensors"})
    with pytest.raises(ValueError, match="has no model-00002-of-00002"):
        weight_files(folder)


def test_an_adapter_beside_a_model_leads_nowhere(make, folder):
    config = {"peft_type": "LORA", "base_model_name_or_path": "nobody/nothing", "r": 1}
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    built, _, _ = make(source=str(folder))
    assert built.model is not None


def test_a_tokenizer_of_numbers_far_apart_is_refused(folder):
    edit(folder / "tokenizer.json", model={
        "type": "WordLevel", "unk_token": "a", "vocab": {"a": 0, "b": 2**31}})  # fmt: skip
    with pytest.raises(ValueError, match=r"a word's number is 2,147,483,648; at most 10,000,000"):
        load_tokenizer(str(folder))
