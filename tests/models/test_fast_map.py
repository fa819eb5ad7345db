"""What runs instead of what: the table is whole, current, and true of a model."""

from collections import Counter

import pytest
import torch
from torch import nn
from transformers import AutoModelForSequenceClassification

from models.fast import map as fast_map
from models.fast.cpu.dropout import FastDropout
from models.fast.cpu.gelu import FastGELU
from models.fast.frozen import frozen_weights
from models.fast.map import PATHS, Replacement, render_doc, replacement
from models.fast.speed import SpeedArgs, speed_up
from models.fast.streams import POSITIONS
from models.heads import transformers_model
from models.methods.lora import LoRA, inject_lora

CPU, FP32, BF16 = torch.device("cpu"), torch.float32, torch.bfloat16
KINDS = ["all", "lora"]


@pytest.fixture
def model(encoder):
    """model("bert", "lora"): a classifier in training mode, whole or with adapters."""

    def build(name, trains):
        found = encoder(name, AutoModelForSequenceClassification)
        found.set_attn_implementation("sdpa")
        if trains == "lora":
            found.requires_grad_(False)
            inject_lora(found, LoRA("all-linear", rank=2), seed=0)
        return found.train()

    return build


def test_the_document_is_current():
    text = fast_map.DOC.read_text(encoding="utf-8")
    assert text == render_doc(text), "run: python -m models.fast.map"


def test_markers_that_are_missing_are_an_error():
    with pytest.raises(ValueError, match="end of fast paths"):
        render_doc("# How it works")


def test_every_switch_has_a_row():
    named = {switch for path in PATHS.values() for switch in path.switches}
    assert named == SpeedArgs.__dataclass_fields__.keys() - {"plain", "native"}


def test_a_replacement_counts_modules_by_class():
    layers = [nn.Linear(1, 1), nn.Linear(1, 1), nn.GELU()]
    expected = Replacement(
        "Linear x2, GELU", "product_forward", "models/fast/linear.py", "speed.linear"
    )
    assert replacement("linear", layers) == expected


@pytest.mark.parametrize("trains", KINDS)
@pytest.mark.parametrize("name", POSITIONS)
def test_every_module_that_computes_otherwise_is_listed(model, name, trains, native_kernels):
    classifier = model(name, trains)
    speed = speed_up(classifier, SpeedArgs(native="on"), CPU, FP32)
    found = Counter(
        (type(module).__name__, module.forward.__func__.__name__)
        for module in classifier.modules()
        if "forward" in vars(module)
    )
    found += Counter(
        (plain, type(module).__name__)
        for module in classifier.modules()
        for plain, fast in (("Dropout", FastDropout), ("GELUActivation", FastGELU))
        if type(module) is fast
    )
    listed = Counter()
    for row in speed.replaced:
        if row.by.endswith("_forward") or row.by.startswith("Fast"):
            for part in row.module.split(", "):
                kind, _, count = part.partition(" x")
                listed[kind, row.by] += int(count or 1)
    assert listed == found
    assert any("Attention" in row.module for row in speed.replaced if row.by == "attend")


@pytest.mark.parametrize("dtype", [FP32, BF16])
@pytest.mark.parametrize("trains", KINDS)
@pytest.mark.parametrize("name", POSITIONS)
def test_plain_replaces_nothing(model, name, trains, dtype):
    classifier = model(name, trains)
    before = [(path, type(module)) for path, module in classifier.named_modules()]
    speed = speed_up(classifier, SpeedArgs(plain=True), CPU, dtype)
    assert (speed.replaced, speed.resolved) == ([], {})
    assert [(path, type(module)) for path, module in classifier.named_modules()] == before
    assert not any("forward" in vars(module) for module in classifier.modules())
    assert transformers_model(classifier).config._attn_implementation == "sdpa"
    assert all(weight.dtype == FP32 for weight in frozen_weights(classifier).values())


@pytest.mark.parametrize("trains", KINDS)
@pytest.mark.parametrize("name", POSITIONS)
def test_plain_trains_as_the_fast_paths_do(model, name, trains):
    mask = (torch.arange(9) < torch.tensor([[9], [4], [7]])).long()
    inputs = {"input_ids": torch.arange(27).view(3, 9) % 40 + 5, "attention_mask": mask}
    inputs["input_ids"] *= mask
    losses = []
    for plain in (True, False):
        classifier = model(name, trains)
        for module in classifier.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        speed_up(classifier, SpeedArgs(plain=plain), CPU, FP32)
        trained = [p for p in classifier.parameters() if p.requires_grad]
        optimizer = torch.optim.SGD(trained, lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            loss = classifier(**inputs, labels=torch.tensor([0, 1, 1])).loss
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
    plain_losses, fast_losses = torch.stack(losses).chunk(2)
    assert plain_losses[-1] != plain_losses[0]  # it trains
    torch.testing.assert_close(fast_losses, plain_losses, atol=1e-5, rtol=1e-5)
