"""A student from every Nth layer of a model: those layers, and all around them, to the bit."""

import re

import pytest
import torch
from transformers import AutoConfig, AutoModel

from models.args import ModelArgs
from models.build import build_model
from models.export import export_model, load_exported
from models.hidden import LayerStates
from models.load import load_tokenizer
from models.methods.lora import LoRA
from models.thin import kept_layers, thin

SHAPES = {
    "bert": {"num_hidden_layers": 4, "hidden_size": 32, "num_attention_heads": 2,
             "intermediate_size": 48},
    "distilbert": {"n_layers": 4, "dim": 32, "n_heads": 2, "hidden_dim": 48},
    "gpt2": {"n_layer": 4, "n_embd": 32, "n_head": 2},
    "modernbert": {"num_hidden_layers": 4, "hidden_size": 32, "num_attention_heads": 2,
                   "intermediate_size": 48, "pad_token_id": 0},
}  # fmt: skip


@pytest.fixture
def folder(tmp_path, tiny_tokenizer):
    """`folder("bert")`: a random model of four layers with its tokenizer."""

    def save(kind):
        torch.manual_seed(0)
        config = AutoConfig.for_model(kind, vocab_size=len(tiny_tokenizer), **SHAPES[kind])
        AutoModel.from_config(config).save_pretrained(tmp_path / kind)
        tiny_tokenizer.save_pretrained(tmp_path / kind)
        return tmp_path / kind

    return save


def of_the_teacher(layer):
    """Of a student's layer 0 or 1 the teacher's, 1 or 3."""
    return f".{layer[1]}.{2 * int(layer[2]) + 1}."


def args_for(folder, **more):
    return ModelArgs(source=str(folder), head_kind="linear", num_labels=2,
                     label_names=("neg", "pos"), **more)  # fmt: skip


@pytest.mark.parametrize("kind", SHAPES)
def test_a_student_has_every_second_layer_and_all_around_them(folder, kind):
    source = folder(kind)
    built = build_model(args_for(source), load_tokenizer(str(source)), 0, every=2)
    whole, own = AutoModel.from_pretrained(source).state_dict(), built.model.backbone.state_dict()
    assert built.initialised == ["head.out.bias", "head.out.weight"]
    assert built.base["in_memory"]
    for name, tensor in own.items():
        theirs = re.sub(r"\.(layers?|h)\.(\d+)\.", of_the_teacher, f".{name}")[1:]
        assert torch.equal(tensor, whole[theirs]), name
    assert LayerStates(built.model).depth == 2


@pytest.mark.parametrize("method", [None, LoRA(rank=2, targets=("query",))])
def test_an_exported_student_opens_without_its_teacher(folder, tmp_path, method):
    source = folder("bert")
    args, tokenizer = args_for(source, method=method), load_tokenizer(str(source))
    built = build_model(args, tokenizer, 0, every=2)
    export_model(built, args, tokenizer, tmp_path / "out")
    source.rename(tmp_path / "gone")
    again, _, _ = load_exported(tmp_path / "out")
    inputs = tokenizer(["a good film"], return_tensors="pt")
    inputs = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        assert torch.equal(again(**inputs), built.model(**inputs))


def test_layers_that_do_not_come_in_such_groups_are_refused_with_those_that_do():
    assert kept_layers(6, 2) == [1, 3, 5]
    assert kept_layers(6, 3) == [2, 5]
    with pytest.raises(ValueError, match='"layers:2" or "layers:3" or "layers:6"'):
        kept_layers(6, 4)


def test_an_architecture_that_shares_its_layers_is_refused(tiny_tokenizer):
    config = AutoConfig.for_model("albert", num_hidden_layers=4, hidden_size=32,
                                  num_attention_heads=2, intermediate_size=48)  # fmt: skip
    with pytest.raises(ValueError, match="no list with a module for each layer"):
        thin(config, {}, 2)


def test_what_is_said_of_each_layer_goes_with_it(folder):
    config = AutoConfig.from_pretrained(folder("modernbert"))
    kinds = list(config.layer_types)
    smaller, _, _ = thin(config, {}, 2)
    assert list(smaller.layer_types) == [kinds[1], kinds[3]]
    assert list(config.layer_types) == kinds
