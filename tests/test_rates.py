"""Layers with a rate and a beginning of their own."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModel

import train
from configs.schema import Train
from job.training.rates import first_steps, layer_rates
from models.heads import Classifier, LinearHead
from models.trainable import layers_above
from tests.killed import kill_after_save

ALL = ["--unset", "lora", "train.unfreeze=0.9", "train.layer_decay=0.5", "train.warmup=0"]


@pytest.mark.parametrize("kind", ["bert", "gpt2", "distilbert"])
def test_distance_counts_layers_from_the_head_down_to_the_embeddings(kind):
    names = {"num_hidden_layers": 3, "hidden_size": 8, "num_attention_heads": 2, "vocab_size": 9}
    config = AutoConfig.for_model(kind, **names)
    model = Classifier(AutoModel.from_config(config), LinearHead(8, 2, 0.0))
    above, most = layers_above(model)
    assert most == 4
    assert {above[name] for name in above if "embed" in name or "wte" in name} == {4}
    assert above["head.out.weight"] == 0
    layers = {above[n] for n in above if ".layer." in n or ".h." in n}
    assert layers == {1, 2, 3}
    assert above["backbone.ln_f.weight"] == 0 if kind == "gpt2" else True


def test_rates_fall_and_beginnings_come_from_the_last_layer_down():
    config = AutoConfig.for_model("bert", num_hidden_layers=3, hidden_size=8, vocab_size=9,
                                  num_attention_heads=2)  # fmt: skip
    model = Classifier(AutoModel.from_config(config), LinearHead(8, 2, 0.0))
    settings = Train(layer_decay=0.5, unfreeze=0.5)
    rates, begins = layer_rates(settings, model), first_steps(settings, model, 80)
    query = "backbone.encoder.layer.{}.attention.self.query.weight"
    table = "backbone.embeddings.word_embeddings.weight"
    assert [rates[query.format(i)] for i in (2, 1, 0)] == [0.5, 0.25, 0.125]
    assert [begins[query.format(i)] for i in (2, 1, 0)] == [10, 20, 30]
    assert (rates["head.out.weight"], rates[table]) == (1, 0.0625)
    assert (begins["head.out.weight"], begins[table]) == (0, 40)


def weights(run: Path):
    return load_file(run / "model" / "model.safetensors")


def test_a_run_stopped_before_its_layers_have_begun_goes_on_to_the_same_bits(recipe, tmp_path):
    path = recipe(train={"epochs": 3, "accumulate": 1}, run={"save_every": 1, "keep": 50})
    whole = tmp_path / "whole"
    assert train.main(["--config", str(path), *ALL, f"run.dir={whole}"]) == 0
    checkpoints = sorted((whole / "tiny" / "checkpoints").glob("step-*"))
    assert len(checkpoints) > 12
    kill_after_save(5, lambda: train.main(["--config", str(path), *ALL]))
    assert train.main(["--config", str(path), *ALL, "--resume"]) == 0
    first, second = weights(whole / "tiny"), weights(tmp_path / "runs" / "tiny")
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_low_layers_are_as_they_were_until_they_begin(recipe, tmp_path, tiny_folder):
    words = [*ALL, "train.max_steps=2", "train.epochs=9"]  # the embeddings begin with the second
    assert train.main(["--config", str(recipe(run={"save_every": 1})), *words]) == 0
    run = tmp_path / "runs" / "tiny"
    before = load_file(tiny_folder / "model.safetensors")
    (first,) = run.glob("checkpoints/step-*1/trainable.safetensors")
    after = load_file(first)
    table = "embeddings.word_embeddings.weight"
    key = next(name for name in after if name.endswith(table))
    old = before[next(name for name in before if name.endswith(table))]
    assert torch.equal(old, after[key])
    assert not torch.equal(old, weights(run)[next(n for n in weights(run) if n.endswith(table))])
    assert any(
        not torch.equal(before[n], after[m])
        for n in before for m in after if m.endswith(n) and "layer.1" in n
    )  # fmt: skip


def test_a_backbone_without_a_list_of_layers_is_refused_with_the_setting():
    model = Classifier(AutoModel.from_config(AutoConfig.for_model(
        "bert", num_hidden_layers=2, hidden_size=8, vocab_size=9, num_attention_heads=2
    )), LinearHead(8, 2, 0.0))  # fmt: skip
    model.backbone.config.num_hidden_layers = 7
    with pytest.raises(ValueError, match=r"train\.layer_decay is 0\.5, but this backbone has no"):
        layer_rates(Train(layer_decay=0.5), model)


@pytest.mark.parametrize("setting", ["layer_decay", "unfreeze"])
@pytest.mark.parametrize("words", [["--unset", "lora", "model.train=head"],
                                   ["--unset", "lora", "prompt.tokens=2"]])  # fmt: skip
def test_where_no_layer_learns_both_are_refused(recipe, capsys, words, setting):
    words = [*words, f"train.{setting}=0.5"]
    assert train.main(["--config", str(recipe()), *words, "--dry-run"]) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert f"train.{setting} is 0.5, but nothing in the layers of this model learns" in error
