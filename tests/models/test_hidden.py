"""The states that are matched are those of the layers, whatever way the model runs."""

import pytest
import torch

from models.args import ModelArgs
from models.build import build_model
from models.fast.speed import SpeedArgs, speed_up
from models.heads import pool
from models.hidden import LayerStates
from models.load import load_tokenizer
from models.methods.prompt import Prompt


@pytest.mark.parametrize("fast", [False, True])
def test_a_state_is_the_mean_over_a_texts_own_tokens(tiny_folder, fast):
    args = ModelArgs(source=str(tiny_folder), head_kind="linear", num_labels=2,
                     label_names=("neg", "pos"))  # fmt: skip
    tokenizer = load_tokenizer(str(tiny_folder))
    plain = build_model(args, tokenizer, 0).model
    inputs = tokenizer(["a film", "the music was good and the story too"], padding=True,
                       return_tensors="pt")  # fmt: skip
    inputs = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        layers = plain.backbone(**inputs, output_hidden_states=True).hidden_states[1:]
    expected = torch.stack([pool(h, inputs["attention_mask"], "mean") for h in layers], 1)
    model = build_model(args, tokenizer, 0).model
    if fast:
        speed = speed_up(model, SpeedArgs(last_layer=False), torch.device("cpu"), torch.float32)
        assert speed.streams
    states = LayerStates(model)
    model(**inputs)
    got = states.read(inputs)
    assert got.requires_grad  # of a student: they have to learn
    assert got.shape == (2, 2, 32)
    assert torch.allclose(got, expected, atol=1e-5)


def test_a_model_without_one_list_of_layers_is_refused(tiny_tokenizer, tmp_path):
    from transformers import AlbertConfig, AlbertModel

    config = AlbertConfig(vocab_size=len(tiny_tokenizer), num_hidden_layers=2, hidden_size=32,
                          num_attention_heads=2, intermediate_size=48)  # fmt: skip
    AlbertModel(config).save_pretrained(tmp_path)
    tiny_tokenizer.save_pretrained(tmp_path)
    args = ModelArgs(source=str(tmp_path), head_kind="linear", num_labels=2,
                     label_names=("neg", "pos"))  # fmt: skip
    model = build_model(args, load_tokenizer(str(tmp_path)), 0).model
    with pytest.raises(ValueError, match="'albert' has none to compare"):
        LayerStates(model)


def test_a_text_behind_a_prompt_has_no_states_to_compare(tiny_folder):
    args = ModelArgs(source=str(tiny_folder), head_kind="linear", num_labels=2,
                     method=Prompt(tokens=8), label_names=("neg", "pos"))  # fmt: skip
    model = build_model(args, load_tokenizer(str(tiny_folder)), 0).model
    with pytest.raises(ValueError, match=r"none to compare: a method puts tokens in front of each"):
        LayerStates(model)


def test_a_text_in_several_windows_has_no_states_to_compare(tiny_folder):
    args = ModelArgs(source=str(tiny_folder), head_kind="linear", num_labels=2, window_pool="mean",
                     label_names=("neg", "pos"))  # fmt: skip
    model = build_model(args, load_tokenizer(str(tiny_folder)), 0).model
    with pytest.raises(ValueError, match=r"none to compare: a text stands in several windows"):
        LayerStates(model)
