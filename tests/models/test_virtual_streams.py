"""Prompts and prefixes on batches without padding: every architecture that runs so, both devices'
paths (a GPU's on the CPU), against the plain model."""

import copy

import pytest
import torch
from torch import nn
from transformers import AutoModel, AutoModelForSequenceClassification

from models.fast.speed import SpeedArgs, speed_up
from models.fast.streams import POSITIONS, lay_out
from models.heads import Classifier, LinearHead
from models.methods.method import added_modules
from models.methods.prefix import PrefixTuning
from models.methods.prompt import Prompt

METHODS = {"prompt": Prompt(3), "prefix": PrefixTuning(3)}
LENGTHS = {"left": [7, 1, 4], "empty row": [7, 0, 4], "right": [7, 1, 4]}
# an architecture's own head looks at the first column, so its padding stands behind
BATCHES = [(name, head, "right") for name in POSITIONS for head in ("native", "cls", "mean")]
BATCHES += [
    (n, "cls", side) for n in ("albert", "bert", "roberta") for side in ("left", "empty row")
]


def batch(side):
    counts = torch.tensor(LENGTHS[side]).unsqueeze(1)
    place = torch.arange(int(counts.max()))
    mask = (place >= len(place) - counts if side == "left" else place < counts).long()
    ids = torch.randint(1, 50, mask.shape, generator=torch.Generator().manual_seed(1)) * mask
    return {"input_ids": ids, "attention_mask": mask}


@pytest.fixture
def model_of(encoder):
    """model_of(name, head, method): trains, without dropout, the method alone."""

    def build(name, head, method):
        inner = encoder(name, AutoModelForSequenceClassification if head == "native" else AutoModel)
        inner.set_attn_implementation("sdpa")
        torch.manual_seed(2)
        model = inner if head == "native" else Classifier(inner, LinearHead(16, 2, 0.0, head))
        METHODS[method].inject(model, 0)
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        model.requires_grad_(False)
        for added in added_modules(model).values():
            for parameter_name, parameter in added.named_parameters():
                parameter.requires_grad_(not parameter_name.startswith("base."))
        return model.train()

    return build


def logits_and_gradients(model, inputs):
    out = model(**inputs)
    logits = out if isinstance(out, torch.Tensor) else out.logits
    logits = logits[inputs["attention_mask"].any(1)]  # of a row without a text nothing is said
    (logits * torch.arange(1, logits.numel() + 1).view_as(logits)).sum().backward()
    named = model.named_parameters()
    return logits.detach(), {n: p.grad for n, p in named if p.requires_grad}


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize(("name", "head", "side"), BATCHES)
@pytest.mark.parametrize("method", METHODS)
def test_streams_give_the_plain_logits_and_gradients(model_of, method, name, head, side, device):
    plain, inputs = model_of(name, head, method), batch(side)
    fast = copy.deepcopy(plain)
    speed = speed_up(fast, SpeedArgs(compile=False), torch.device(device), torch.float32)
    assert speed.streams
    there = lay_out({"inputs": inputs}, speed.in_front)["inputs"] if device == "cuda" else inputs
    found, expected = logits_and_gradients(fast, there), logits_and_gradients(plain, inputs)
    assert all(gradient.any() for gradient in expected[1].values())
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_half_precision_and_recomputed_activations_change_nothing_but_rounding(model_of, method):
    plain, inputs = model_of("bert", "mean", method), batch("right")
    fast = copy.deepcopy(plain)
    fast.backbone.activation_checkpointing_enable({"use_reentrant": False})
    speed_up(fast, SpeedArgs(), torch.device("cpu"), torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        found = logits_and_gradients(fast, inputs)
    expected = logits_and_gradients(plain, inputs)
    assert all(gradient.dtype == torch.float32 for gradient in found[1].values())
    torch.testing.assert_close(found[0].float(), expected[0], atol=0.05, rtol=0.05)
    for name, gradient in expected[1].items():
        near = torch.nn.functional.cosine_similarity(gradient, found[1][name], -1)
        assert near.mean() > 0.99, name


def test_nothing_is_asked_of_a_device_where_the_layout_is_known(model_of, questions):
    for method in METHODS:
        model = model_of("bert", "mean", method)
        speed = speed_up(model, SpeedArgs(compile=False), torch.device("cuda"), torch.float32)
        inputs = lay_out({"inputs": batch("right")}, speed.in_front)["inputs"]
        with questions:
            model(**inputs).sum().backward()
        assert questions.asked == []
