"""Layers on a stream: joint query, key and value, and a last layer for first tokens alone."""

import pytest
import torch
from torch import nn
from transformers import AutoModel, AutoModelForSequenceClassification

from models.fast.encoder import encoder_of, first_token_only
from models.fast.layout import stream_length
from models.fast.speed import SpeedArgs, speed_up
from models.heads import Classifier, LinearHead, MLPHead
from models.methods.lora import LoRA, inject_lora

CPU, FP32 = torch.device("cpu"), torch.float32
CLOSE = {"atol": 1e-5, "rtol": 1e-5}
STREAM = stream_length(12)  # tokens of a stream of batch("right")
NAMES = ["bert", "distilbert", "electra", "roberta", "xlm-roberta"]
MASKS = {
    "right": [[1, 1, 1, 1, 1, 1, 1], [1, 0, 0, 0, 0, 0, 0], [1, 1, 1, 1, 0, 0, 0]],
    "left": [[1, 1, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0, 1], [0, 0, 0, 1, 1, 1, 1]],
    "empty row": [[1, 1, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0, 0], [1, 1, 1, 0, 0, 0, 0]],
}


def batch(side="right"):
    mask = torch.tensor(MASKS[side])
    draw = torch.Generator().manual_seed(1)
    ids = torch.randint(1, 50, mask.shape, generator=draw) * mask
    return {"input_ids": ids, "attention_mask": mask}


@pytest.fixture
def model_of(encoder, targets):
    """model_of(name, head="cls", adapted=False, **switches): on the fast paths that are left on."""

    def build(name, head="cls", adapted=False, dropout=False, dtype=FP32, **switches):
        kind = AutoModelForSequenceClassification if head == "native" else AutoModel
        inner = encoder(name, kind)
        torch.manual_seed(2)
        model = inner if head == "native" else Classifier(inner, LinearHead(16, 2, 0.0, head))
        if adapted:
            wanted = targets.get(name, targets["bert"])
            rate = 0.3 if dropout else 0.0
            lora = LoRA(wanted, rank=2, dropout=rate)
            inject_lora(model, lora, seed=0, exclude=["head", "classifier"])
            for name, parameter in model.named_parameters():
                parameter.requires_grad_("lora" in name)
                if name.endswith("lora_B"):
                    nn.init.normal_(parameter, std=0.2)
        for module in model.modules() if not dropout else ():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        speed_up(model, SpeedArgs(**({"native": "off"} | switches)), CPU, dtype)
        return model.train()

    return build


def logits_and_gradients(model, inputs):
    model.zero_grad()
    torch.manual_seed(3)  # for dropouts
    out = model(**inputs)
    logits = out if isinstance(out, torch.Tensor) else out.logits
    (logits * torch.arange(1, 7).view(3, 2)).sum().backward()
    named = model.named_parameters()
    return logits.detach(), {n: p.grad.clone() for n, p in named if p.grad is not None}


PLAIN = {"attention": False, "linear": False, "lora": False}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("head", ["cls", "mean"])
@pytest.mark.parametrize("adapted", [True, False])
def test_logits_and_gradients_equal_the_stock_layers(model_of, name, side, head, adapted):
    found = logits_and_gradients(model_of(name, head, adapted), batch(side))
    expected = logits_and_gradients(model_of(name, head, adapted, **PLAIN), batch(side))
    assert len(expected[1]) > (7 if adapted else 20)
    for parameter, gradient in expected[1].items():
        if not gradient.any():  # of what no output needs
            found[1].setdefault(parameter, gradient)
    torch.testing.assert_close(found, expected, **CLOSE)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("native", ["auto", "off"])
def test_the_architectures_own_head_gives_the_stock_logits_and_gradients(model_of, name, native):
    fast = model_of(name, "native", native=native)
    assert encoder_of(fast.base_model).how.first_only
    found = logits_and_gradients(fast, batch())
    expected = logits_and_gradients(model_of(name, "native", **PLAIN), batch())
    torch.testing.assert_close(found, expected, **CLOSE)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("native", ["auto", "off"])
@pytest.mark.parametrize("switch", ["qkv", "last_layer"])
def test_dropout_falls_on_the_same_elements_with_a_path_or_without(model_of, name, native, switch):
    args = {"adapted": True, "dropout": True, "native": native}
    found = logits_and_gradients(model_of(name, **args), batch())
    expected = logits_and_gradients(model_of(name, **args, **{switch: False}), batch())
    torch.testing.assert_close(found, expected, **CLOSE)
    quiet = logits_and_gradients(model_of(name, **args | {"dropout": False}), batch())
    assert not torch.allclose(found[0], quiet[0], atol=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_the_last_layer_works_out_the_first_tokens_alone(model_of, name):
    model, seen = model_of(name), {}
    for layer, module in model.backbone.named_modules():
        if isinstance(module, nn.Linear | nn.LayerNorm) and "pooler" not in layer:
            module.register_forward_hook(
                lambda _, given, out, layer=layer: seen.update({layer: out.shape[1]})
            )
    model(**batch())
    last = {layer: count for layer, count in seen.items() if "layer.1." in layer}
    whole = {layer.rpartition(".")[2] for layer, count in last.items() if count == STREAM}
    assert whole in ({"key", "value"}, {"k_lin", "v_lin"})
    # query, out, up, down and two norms: three texts and the filling
    assert sorted(last.values()) == [4] * 6 + [STREAM] * 2
    assert {count for layer, count in seen.items() if "layer.0." in layer} == {STREAM}


@pytest.mark.parametrize("name", NAMES)
def test_texts_without_a_token_have_finite_gradients_and_disturb_no_other(model_of, name):
    inputs = batch("empty row")
    logits, gradients = logits_and_gradients(model_of(name), inputs)
    kept = {key: value[[0, 2]] for key, value in inputs.items()}
    torch.testing.assert_close(model_of(name)(**kept), logits[[0, 2]], **CLOSE)
    assert all(gradient.isfinite().all() for gradient in gradients.values())
    nothing = {key: torch.zeros_like(value) for key, value in inputs.items()}
    assert logits_and_gradients(model_of(name), nothing)[0].isfinite().all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("head", ["cls", "mean"])
def test_activation_checkpointing_changes_no_bit(model_of, name, head):
    found = []
    for checkpointing in (False, True):
        model = model_of(name, head, dropout=True)
        if checkpointing:
            model.backbone.activation_checkpointing_enable({"use_reentrant": False})
        found.append(logits_and_gradients(model, batch()))
    assert torch.equal(found[0][0], found[1][0])
    assert all(torch.equal(found[0][1][name], found[1][1][name]) for name in found[0][1])


@pytest.mark.parametrize("name", ["bert", "distilbert"])
@pytest.mark.parametrize("head", ["cls", "mean"])
@pytest.mark.parametrize("adapted", [True, False])
def test_autocast_errs_no_more_than_the_stock_layers(model_of, native_kernels, name, head, adapted):
    """All of it at once, as the benchmark runs: bf16, native kernels, twins, first tokens."""
    exact = logits_and_gradients(model_of(name, head, adapted, **PLAIN).double(), batch())
    errors = []
    for switches in ({"native": "on"}, PLAIN):
        model = model_of(name, head, adapted, dtype=torch.bfloat16, **switches)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits, gradients = logits_and_gradients(model, batch())
        assert all(gradient.dtype == FP32 for gradient in gradients.values())
        wrong = [(g.double() - exact[1][n]).square().sum() for n, g in gradients.items()]
        errors.append((sum(wrong) + (logits.double() - exact[0]).square().sum()).sqrt().item())
    ours, theirs = errors
    assert ours <= 1.1 * theirs
    assert theirs > 0


class Reader(nn.Module):
    """A head of the user's own, which happens to have a pooling of that name."""

    pool = "cls"

    def forward(self, hidden, mask):
        return hidden.mean(1)


def test_only_heads_known_to_read_the_first_token_alone_shorten_the_last_layer(encoder):
    inner = encoder("bert", AutoModel)
    assert first_token_only(Classifier(inner, LinearHead(16, 2, 0.0, "cls")))
    assert first_token_only(Classifier(inner, MLPHead(16, 2, 0.0, "cls")))
    assert first_token_only(encoder("bert", AutoModelForSequenceClassification))
    assert not first_token_only(Classifier(inner, LinearHead(16, 2, 0.0, "mean")))
    assert not first_token_only(Classifier(inner, LinearHead(16, 2, 0.0, "last")))
    assert not first_token_only(Classifier(inner, Reader()))
    assert not first_token_only(encoder("albert", AutoModelForSequenceClassification))


def test_query_key_and_value_send_back_one_product(model_of, monkeypatch):
    model = model_of("bert", "mean", adapted=True)
    from models.fast import products

    shapes, joined = [], products.side_by_side
    monkeypatch.setattr(
        products, "side_by_side", lambda grads: shapes.append(joined(grads)) or shapes[-1]
    )
    copies = []
    monkeypatch.setattr(
        torch,
        "cat",
        lambda parts, *rest, cat=torch.cat: copies.append(parts) or cat(parts, *rest),
    )
    logits_and_gradients(model, batch())
    assert (STREAM, 48) in [tuple(s.shape) for s in shapes]  # in the upper layer
    # the weights; the gradients lie side by side as they come
    assert [len(parts) for parts in copies if parts[0].shape == (16, 16)] == [3]
