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

USUAL = {"num_hidden_layers": 4, "hidden_size": 32, "num_attention_heads": 2,
         "intermediate_size": 48}  # fmt: skip
SHAPES = {
    "bert": USUAL,
    "roberta": USUAL,
    "electra": {**USUAL, "embedding_size": 16},
    "deberta-v2": {**USUAL, "relative_attention": True, "pos_att_type": ["c2p", "p2c"]},
    "mpnet": USUAL,
    "llama": {**USUAL, "num_key_value_heads": 2},
    "distilbert": {"n_layers": 4, "dim": 32, "n_heads": 2, "hidden_dim": 48},
    "gpt2": {"n_layer": 4, "n_embd": 32, "n_head": 2},
}


@pytest.fixture
def folder(tmp_path, tiny_tokenizer):
    """`folder("bert")`: a random model of four layers with its tokenizer."""

    def save(kind):
        torch.manual_seed(0)
        shape = SHAPES.get(kind, USUAL)
        config = AutoConfig.for_model(kind, vocab_size=len(tiny_tokenizer), pad_token_id=0, **shape)
        AutoModel.from_config(config).save_pretrained(tmp_path / kind)
        tiny_tokenizer.save_pretrained(tmp_path / kind)
        return tmp_path / kind

    return save


def in_the_student(name):
    """Where a tensor of the teacher belongs: its layers 2 and 4 are the student's, 1 and 3 not."""
    match = re.search(r"(?<=\.)(?:layers?|h)\.(\d+)(?=\.)", f".{name}")
    if match is None:
        return name
    layer = int(match[1])
    if layer % 2 == 0:
        return None
    start, end = match.start(1) - 1, match.end(1) - 1
    return f"{name[:start]}{layer // 2}{name[end:]}"


def args_for(folder, **more):
    return ModelArgs(source=str(folder), head_kind="linear", num_labels=2,
                     label_names=("neg", "pos"), **more)  # fmt: skip


@pytest.mark.parametrize("kind", SHAPES)
def test_every_tensor_of_the_layers_that_are_kept_and_around_them_arrives(folder, kind):
    source = folder(kind)
    built = build_model(args_for(source), load_tokenizer(str(source)), 0, every=2)
    whole, own = AutoModel.from_pretrained(source).state_dict(), built.model.backbone.state_dict()
    expected = {in_the_student(n): t for n, t in whole.items() if not n.startswith("pooler.")}
    expected.pop(None)
    assert own.keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in own.items())
    assert built.initialised == ["head.out.bias", "head.out.weight"]
    assert built.base["in_memory"]
    assert LayerStates(built.model).depth == 2


def test_a_layer_that_loses_a_tensor_in_its_new_place_is_refused_by_name(folder):
    """ModernBERT's first layer has no norm before its attention."""
    source = folder("modernbert")
    message = r"layer 2 of the teacher would be layer 1, .*ModernBertModel: attn_norm.weight; leave"
    with pytest.raises(ValueError, match=message):
        build_model(args_for(source), load_tokenizer(str(source)), 0, every=2)


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


def test_what_is_said_of_each_layer_goes_with_it():
    config = AutoConfig.for_model("gemma2", **USUAL, num_key_value_heads=2, head_dim=16)
    kinds = list(config.layer_types)
    config.layer_types = kinds = [kinds[0], kinds[0], kinds[0], kinds[1]]
    smaller, _, _ = thin(config, {}, 2)
    assert list(smaller.layer_types) == [kinds[1], kinds[3]]
    assert list(config.layer_types) == kinds
