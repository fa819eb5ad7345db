"""Runs of the LoRA family that are killed and go on."""

import pytest
import torch
from safetensors.torch import load_file

import train
from models.methods import lora
from tests.killed import kill_after_save


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(["lora.init=pissa", "lora.variant=dora"], id="pissa, dora"),
        pytest.param(
            ["lora.bias=all", "lora.plus_ratio=16"], id="biases, loraplus", marks=pytest.mark.slow
        ),
    ],
)
def test_a_killed_run_goes_on_to_the_same_bits(recipe, tmp_path, monkeypatch, words):
    """PiSSA's start comes from the checkpoint: another machine's SVD would differ in bits."""
    words = ["--config", str(recipe(eval={"baseline": False})), *words, "speed.native=off"]
    assert train.main([*words, f"run.dir={tmp_path / 'whole'}"]) == 0
    save = ["run.save_every=1", "run.keep=50"]
    kill_after_save(3, lambda: train.main([*words, *save]))
    pair = lora.principal_pair
    monkeypatch.setattr(lora, "principal_pair", lambda layer: [-t for t in pair(layer)])
    assert train.main([*words, *save, "--resume"]) == 0
    for name in ("adapter_model.safetensors", "head.safetensors"):
        first, second = (
            load_file(tmp_path / runs / "tiny" / "model" / name) for runs in ("whole", "runs")
        )
        assert first.keys() == second.keys()
        assert all(torch.equal(first[key], second[key]) for key in first)
