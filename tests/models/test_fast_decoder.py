"""The layers of decoders written out: every part equals the stock one, values and gradients."""

import pytest
import torch
import transformers
from torch import nn
from transformers import AutoModelForCausalLM
from transformers.activations import ACT2FN
from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm, apply_rotary_pos_emb

from models.fast.cpu.dropout import FastDropout
from models.fast.cpu.gated import GatedDown, gated_down
from models.fast.cpu.kernels import PlainKernels, Turn
from models.fast.cpu.pre_norm import pre_norm
from models.fast.decoder import layers_of
from models.fast.speed import SpeedArgs, speed_up
from models.methods.lora import LoRA, inject_lora
from tests.models.test_fast_causal import CONFIGS, config_of, packed, padded

CPU, FP32, BF16 = torch.device("cpu"), torch.float32, torch.bfloat16
CLOSE = {"atol": 1e-5, "rtol": 1e-5}
NAMES = list(CONFIGS)
SWITCHES = ("qkv", "norm", "gate", "gelu", "rotary", "lora", "linear", "attention", "unpad")
PLAIN = dict.fromkeys(SWITCHES, False)


def drawn(*shape, seed=0, scale=1.0):
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# The parts


@pytest.mark.parametrize("kind", ["silu", "gelu_new", "gelu_pytorch_tanh"])
@pytest.mark.parametrize("gated", [True, False])
@pytest.mark.parametrize("adapted", [True, False])
def test_gate_and_product_equal_fp64_autograd(native_kernels, kind, gated, adapted):
    torch.manual_seed(0)
    down = nn.Linear(37, 12)
    tensors = [drawn(50, 37, seed=1, scale=4.0), drawn(50, 37, seed=2), *down.parameters()]
    low = [drawn(3, 37, seed=3), drawn(12, 3, seed=4)] if adapted else [None, None]
    x, up, W, b, A, B = (
        t if t is None else t.detach().double().requires_grad_() for t in (*tensors, *low)
    )
    inner = ACT2FN[kind](x) * (up if gated else 1)
    out = inner @ W.T + b + (2.0 * (inner @ A.T) @ B.T if adapted else 0)
    weights = drawn(50, 12, seed=5)
    (out * weights).sum().backward()
    found = [t if t is None else t.detach().clone().requires_grad_() for t in (*tensors, *low)]
    x_, up_, *rest = found
    given = (x_ * 1, up_ * 1 if gated else None)  # fresh, as from layers
    tanh = kind != "silu"
    result = GatedDown.apply(*given, tanh, 2.0, native_kernels, *rest)
    torch.testing.assert_close(result, out.float(), **CLOSE)
    (result * weights).sum().backward()
    for mine, theirs in zip(found, (x, up, W, b, A, B), strict=True):
        if mine is not None and theirs.grad is not None:
            torch.testing.assert_close(mine.grad, theirs.grad.float(), rtol=1e-5, atol=2e-5)


def test_the_gate_keeps_nothing_but_what_it_was_given(native_kernels):
    down = nn.Linear(64, 8)
    x, up = drawn(32, 64).requires_grad_(), drawn(32, 64, seed=1).requires_grad_()
    given = x * 1, up * 1
    out = gated_down(*given, nn.SiLU(), down, native_kernels)
    kept = out.grad_fn.saved_tensors if hasattr(out.grad_fn, "saved_tensors") else ()
    assert "GatedDown" not in out.grad_fn.name()  # `down` is no product of ours: plain torch
    from models.fast.linear import fuse

    fuse([down])
    out = gated_down(*given, nn.SiLU(), down, native_kernels).grad_fn
    while "GatedDown" not in out.name():
        out = out.next_functions[0][0]
    kept = [t for t in out.saved_tensors if t is not None and t.numel() == x.numel()]
    assert {t.data_ptr() for t in kept} == {t.data_ptr() for t in given}


def norms():
    yield nn.LayerNorm(40), 0.0
    yield nn.LayerNorm(40), 0.3
    yield LlamaRMSNorm(40, eps=1e-5), 0.0
    yield GemmaRMSNorm(40), 0.0


@pytest.mark.parametrize("case", range(4))
@pytest.mark.parametrize("trains", [True, False])
@pytest.mark.parametrize("first", [True, False])
def test_residual_and_norm_equal_the_stock_ones(native_kernels, case, trains, first):
    norm, rate = list(norms())[case]
    with torch.no_grad():
        for n, parameter in enumerate(norm.parameters()):
            parameter.add_(drawn(40, seed=n, scale=0.5))
            parameter.requires_grad_(trains)
    dropout = FastDropout(rate, native_kernels).train()
    results = []
    for kernels in (native_kernels, None):
        norm.zero_grad()
        x, y = (drawn(2, 25, 40, seed=s, scale=3.0).requires_grad_() for s in (1, 2))
        torch.manual_seed(3)
        s, out = pre_norm(None if first else y, x * 1, norm, dropout, FP32, kernels)
        (s * drawn(2, 25, 40, seed=4) + out * drawn(2, 25, 40, seed=5)).sum().backward()
        grads = [t.grad for t in (x, y, *norm.parameters())]
        results.append((s.detach().clone() if first else None, out.detach(), grads))
    (_, mine, grads), (_, theirs, expected) = results
    torch.testing.assert_close(mine, theirs, **CLOSE)
    for a, b in zip(grads, expected, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, **CLOSE)


def test_a_norm_goes_back_once(native_kernels):
    x, y = drawn(4, 40).requires_grad_(), drawn(4, 40, seed=1).requires_grad_()
    _, out = pre_norm(y, x, LlamaRMSNorm(40), None, FP32, native_kernels)
    out.sum().backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="second backward"):
        out.sum().backward()


@pytest.mark.parametrize("dtype", [FP32, BF16])
@pytest.mark.parametrize("size", [10, 32, 64, 80])
def test_rotary_positions_in_place_equal_transformers(kernels, dtype, size):
    x = drawn(2, 30, 3, size).to(dtype)  # q and k
    angles = drawn(30, size // 2, seed=1, scale=3.0).repeat(1, 2)
    turn = Turn(angles.cos(), angles.sin())
    q, k = x.float().transpose(1, 2).unsqueeze(1).detach().requires_grad_()  # (1, H, N, D) each
    wanted, _ = apply_rotary_pos_emb(q, k, turn.cos[None], turn.sin[None])
    found = x[0].clone()
    kernels.rotate(found, turn, False)
    close = CLOSE if dtype == FP32 else {"atol": 2e-2, "rtol": 2e-2}
    expected = wanted[0].transpose(0, 1)
    torch.testing.assert_close(found.float(), expected.detach(), **close)
    wanted = torch.autograd.grad(expected, q, x[1].float())[0][0].transpose(0, 1)
    wide = drawn(30, 5, size).to(dtype)  # a gradient beside others
    back = wide[:, 1:4]
    back.copy_(x[1])
    kernels.rotate(back, turn, True)
    torch.testing.assert_close(back.float(), wanted, **close)


# All together


@pytest.fixture
def model_of(stir):
    """model_of(name, adapted, **switches): in training mode, on the paths that are left on."""

    def build(name, adapted=False, dropout=0.0, dtype=FP32, **switches):
        rates = ("resid_pdrop", "embd_pdrop", "attn_pdrop") if name == "gpt2" else ()
        more = dict.fromkeys(rates, dropout) or {"attention_dropout": dropout}
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config_of(name, **more))
        stir(model)
        if adapted:
            inject_lora(model, LoRA("all-linear", rank=2), seed=0, exclude=["lm_head"])
            for parameter_name, parameter in model.named_parameters():
                parameter.requires_grad_("lora" in parameter_name)
                if parameter_name.endswith("lora_B"):
                    nn.init.normal_(parameter, std=0.2)
        model.speed = speed_up(model, SpeedArgs(**switches), CPU, dtype)
        return model.train()

    return build


def hidden_and_gradients(model, inputs, autocast=False):
    model.zero_grad()
    torch.manual_seed(3)  # for dropouts
    with torch.autocast("cpu", dtype=BF16, enabled=autocast):
        hidden = model.base_model(**inputs).last_hidden_state
    hidden = hidden[inputs["attention_mask"].bool()]
    (hidden * drawn(*hidden.shape, seed=2)).mean().backward()
    named = model.named_parameters()
    return hidden.detach(), {n: p.grad.clone() for n, p in named if p.grad is not None}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("adapted", [True, False])
@pytest.mark.parametrize("native", ["on", "off"])
def test_training_equals_the_stock_layers(model_of, native_kernels, name, adapted, native):
    inputs = padded()
    found = hidden_and_gradients(model_of(name, adapted, native=native), inputs)
    expected = hidden_and_gradients(model_of(name, adapted, dropout=0.0, **PLAIN), inputs)
    assert len(expected[1]) > (6 if adapted else 15)
    torch.testing.assert_close(found, expected, **CLOSE)
    assert all("lora" in parameter for parameter in found[1]) == adapted


@pytest.mark.parametrize("name", NAMES)
def test_a_models_own_head_takes_the_layers_output(model_of, native_kernels, name):
    """The head of transformers, which reads more of the output than its last hidden state."""
    inputs = padded()
    found, expected = (
        model_of(name, **switches).eval()(**inputs).logits[inputs["attention_mask"].bool()]
        for switches in ({"native": "on"}, PLAIN)
    )
    torch.testing.assert_close(found, expected, **CLOSE)


@pytest.mark.parametrize("name", ["gpt2", "qwen3"])
@pytest.mark.parametrize("switch", SWITCHES)
def test_each_switch_changes_nothing_but_its_path(model_of, native_kernels, name, switch):
    """With dropout: it falls on the same elements with a path or without."""
    given = {"adapted": True, "dropout": 0.3, "native": "on"}
    inputs = packed() if switch not in ("attention", "unpad") else padded()
    if switch in ("attention", "unpad"):  # stock attention drops by torch's own numbers
        given["dropout"] = 0.0
    whole, part = model_of(name, **given), model_of(name, **given, **{switch: False})
    assert part.speed.resolved != whole.speed.resolved or (name, switch) in {
        ("gpt2", "gate"), ("gpt2", "rotary"), ("qwen3", "gelu"), ("gpt2", "linear"),
        ("qwen3", "linear"),
    }  # fmt: skip
    found, expected = (hidden_and_gradients(model, inputs) for model in (whole, part))
    torch.testing.assert_close(found, expected, **CLOSE)


def test_what_runs_is_said(model_of, native_kernels):
    llama = model_of("llama", adapted=True, native="on").speed.resolved
    about = {"norm": "native", "gate": "native", "rotary": "in place", "qkv": "joint"}
    assert about.items() <= llama.items()
    gpt2 = model_of("gpt2", native="on").speed.resolved
    assert {"norm": "native", "gelu": "native", "qkv": "joint"}.items() <= gpt2.items()
    assert not gpt2.keys() & {"gate", "rotary"}
    plain = model_of("llama", native="off").speed.resolved
    assert not plain.keys() & {"gate", "norm"}


@pytest.mark.parametrize("name", ["gpt2", "llama", "qwen3"])
def test_activation_checkpointing_changes_no_bit(model_of, native_kernels, name):
    found = []
    for checkpointing in (False, True):
        model = model_of(name, adapted=True, dropout=0.3, native="on")
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
            model.speed = speed_up(model, SpeedArgs(native="on"), CPU, FP32)
            model.train()
        found.append(hidden_and_gradients(model, packed()))
    assert torch.equal(found[0][0], found[1][0])
    assert all(torch.equal(found[0][1][name], found[1][1][name]) for name in found[0][1])


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_a_layer_leaves_its_state_for_hooks(model_of, native_kernels, name):
    states = []
    for switches in ({"native": "on"}, PLAIN):
        model, seen = model_of(name, **switches), []
        for layer in layers_of(model.base_model):
            layer.register_forward_hook(
                lambda _, __, out, seen=seen: seen.append(out[0] if isinstance(out, tuple) else out)
            )
        inputs = padded()
        model.base_model(**inputs)
        real = inputs["attention_mask"].bool()
        flat = [x[0, : real.sum()] if x.shape[0] == 1 else x[real] for x in seen]
        states.append([x.detach().clone() for x in flat])
    torch.testing.assert_close(*states, **CLOSE)


@pytest.mark.parametrize("name", ["gpt2", "llama", "qwen3"])
@pytest.mark.parametrize("adapted", [True, False])
def test_autocast_errs_no_more_than_the_stock_layers(model_of, native_kernels, name, adapted):
    inputs = padded()
    exact = hidden_and_gradients(model_of(name, adapted, **PLAIN).double(), inputs)
    errors = []
    for switches in ({"native": "on"}, PLAIN):
        model = model_of(name, adapted, dtype=BF16, **switches)
        hidden, gradients = hidden_and_gradients(model, inputs, autocast=True)
        assert all(gradient.dtype == FP32 for gradient in gradients.values())
        wrong = [(g.double() - exact[1][n]).square().sum() for n, g in gradients.items()]
        errors.append((sum(wrong) + (hidden.double() - exact[0]).square().mean()).sqrt().item())
    ours, theirs = errors
    assert 0 < ours <= 1.2 * theirs


def test_scaled_rotary_kinds_come_from_transformers(stir):
    kinds = {"rope_type": "llama3", "rope_theta": 1e4, "factor": 4.0, "low_freq_factor": 1.0,
             "high_freq_factor": 4.0, "original_max_position_embeddings": 16}  # fmt: skip
    outs = []
    for switches in ({}, PLAIN):
        torch.manual_seed(0)
        config = transformers.LlamaConfig(**CONFIGS["llama"][1], rope_parameters=kinds)
        model = AutoModelForCausalLM.from_config(config)
        stir(model)
        speed_up(model, SpeedArgs(**switches), CPU, FP32)
        outs.append(model(**padded()).logits[padded()["attention_mask"].bool()])
    torch.testing.assert_close(*outs, **CLOSE)


def test_plain_kernels_turn_as_native_ones(native_kernels):
    angles = drawn(9, 8).repeat(1, 2)
    turn, x = Turn(angles.cos(), angles.sin()), drawn(9, 2, 16)
    y = x.clone()
    PlainKernels().rotate(x, turn, False)
    native_kernels.rotate(y, turn, False)
    torch.testing.assert_close(x, y, atol=1e-6, rtol=1e-6)
