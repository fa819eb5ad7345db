"""Dropout, residual and layer norm as one: equal to fp64, and to the modules they replace."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from models.fast.cpu.dropout import FastDropout
from models.fast.cpu.masks import keep_bits, make_draw
from models.fast.cpu.norm import AddNorm, add_norm
from models.fast.speed import SpeedArgs, speed_up
from models.heads import Classifier

CLOSE = {"atol": 1e-5, "rtol": 1e-5}
NAMES = ("out", "y", "residual", "weight", "bias")
BATCH = {
    "input_ids": torch.arange(2, 16).view(2, 7),
    "attention_mask": torch.tensor([[1] * 7, [1] * 4 + [0] * 3]),
}


def make_norm(width, trains=True):
    torch.manual_seed(width)
    norm = nn.LayerNorm(width)
    nn.init.normal_(norm.weight, 1.0, 0.3)
    nn.init.normal_(norm.bias, 0.0, 0.3)
    return norm.requires_grad_(trains)


def run(function, y, residual, norm, grad, twin_grad=None):
    """Output and the gradients of y, residual, weight and bias."""
    norm.zero_grad()
    leaves = [y.clone().requires_grad_(), residual.clone().requires_grad_()]
    out, twin = function(*leaves)
    if twin_grad is None:
        out.backward(grad.to(out.dtype))
    else:
        torch.autograd.backward([out, twin], [grad.to(out.dtype), twin_grad.to(twin.dtype)])
    return [out.detach(), *(leaf.grad for leaf in leaves), norm.weight.grad, norm.bias.grad]


@pytest.mark.parametrize("width", [1, 7, 16, 31, 33, 384])
@pytest.mark.parametrize("rate", [0.0, 0.3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_output_and_gradients_are_those_of_fp64(native_kernels, width, rate, dtype):
    norm = make_norm(width)
    y, residual, grad = torch.randn(3, 2, 100, width)
    y = y.to(dtype)
    draw = make_draw(rate, torch.arange(200).view(2, 100), width) if rate else None
    mask = (keep_bits(draw, width) != 0).double() * draw.scale if draw else 1.0
    exact_norm = make_norm(width).double()
    found = run(
        lambda a, b: AddNorm.apply(a, b, norm.weight, norm.bias, norm, draw, native_kernels),
        y, residual, norm, grad,
    )  # fmt: skip
    expected = run(
        lambda a, b: (exact_norm(a * mask + b), None),
        y.double(), residual.double(), exact_norm, grad,
    )  # fmt: skip
    assert found[1].dtype == dtype
    for name, a, b in zip(NAMES, found, expected, strict=True):
        loose = {"atol": 0.02, "rtol": 2**-8} if name == "y" and dtype != torch.float32 else {}
        close = {"atol": 5e-5, "rtol": 1e-5} | loose
        torch.testing.assert_close(a.double(), b, **close, msg=lambda s, n=name: f"{n}: {s}")


@pytest.mark.parametrize("width", [7, 33, 384])
def test_the_twin_is_the_output_rounded_and_its_gradient_adds_up(native_kernels, width):
    norm = make_norm(width)
    y, residual, grad, twin_grad = torch.randn(4, 200, width)
    y, twin_grad = y.bfloat16(), twin_grad.bfloat16()
    draw = make_draw(0.3, torch.arange(200), width)

    def function(a, b):
        return AddNorm.apply(a, b, norm.weight, norm.bias, norm, draw, native_kernels)

    out, twin = function(y, residual)
    assert torch.equal(twin, out.bfloat16())
    both = run(function, y, residual, norm, grad, twin_grad)
    found = [t.clone() for t in both]
    expected = run(function, y, residual, norm, grad + twin_grad)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    leaf = y.clone().requires_grad_()
    function(leaf, residual)[1].backward(twin_grad)  # the twin alone
    alone = run(function, y, residual, norm, twin_grad.float())[1]
    assert torch.equal(leaf.grad, alone)


def test_an_fp32_input_has_no_twin(native_kernels):
    ones, norm = torch.ones(3, 8), make_norm(8)
    assert add_norm(ones, ones, norm, None, native_kernels)[1] is None
    assert add_norm(ones, ones, norm, None, None)[1] is None


def test_output_in_bf16_errs_no_more_than_the_modules(native_kernels):
    norm, draw = make_norm(64), make_draw(0.1, torch.arange(500), 64)
    y, residual = torch.randn(500, 64).bfloat16(), torch.randn(500, 64)
    mask = (keep_bits(draw, 64) != 0).double() * draw.scale
    exact = F.layer_norm(
        y.double() * mask + residual, (64,), norm.weight.double(), norm.bias.double()
    )
    ours, *_ = native_kernels.add_norm(y, residual, norm, draw, False)
    theirs = norm(native_kernels.drop(y, draw) + residual)
    mine, its = ((t - exact).square().mean().item() for t in (ours, theirs))
    assert mine < its / 100  # the modules round the dropped y to bf16, the kernel does not


def test_weights_that_are_frozen_get_no_gradient(native_kernels):
    norm = make_norm(8, trains=False)
    y = torch.randn(3, 8, requires_grad=True)
    add_norm(y * 1, torch.randn(3, 8), norm, None, native_kernels)[0].sum().backward()
    assert y.grad is not None
    for trains in (False, True):
        ones = torch.ones(3, 8)
        out, _, s, stats = native_kernels.add_norm(ones, ones, norm, None, True)
        given = (out, None, s, stats, norm, None, torch.float32, trains)
        grads = native_kernels.add_norm_backward(*given)
        assert [g is not None for g in grads] == [True, True, trains, trains]


def test_a_weight_that_changes_before_the_backward_pass_is_refused(native_kernels):
    norm = make_norm(8)
    y = torch.randn(3, 8, requires_grad=True)
    out, _ = add_norm(y * 1, y * 2, norm, None, native_kernels)
    with torch.no_grad():
        norm.weight.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()


def test_a_second_backward_pass_is_refused(native_kernels):
    norm = make_norm(8)
    y = torch.randn(3, 8, requires_grad=True)
    out, _ = add_norm(y * 1, y * 2, norm, None, native_kernels)
    out.sum().backward(retain_graph=True)
    with pytest.raises(RuntimeError, match=r"speed\.norm"):
        out.sum().backward()


def gradients(model, seed=0):
    model.zero_grad()
    torch.manual_seed(seed)
    hidden = model(**BATCH).last_hidden_state
    hidden.square().mean().backward()
    named = model.named_parameters()
    return hidden.detach(), {n: p.grad.clone() for n, p in named if p.grad is not None}


def speed_up_encoder(model, native, **switches):
    """The model on the fast paths, with these switches."""
    args = SpeedArgs(native=native, **switches)
    return speed_up(Classifier(model, nn.Identity()), args, torch.device("cpu"), torch.float32)


@pytest.mark.parametrize("name", ["bert", "distilbert", "electra", "roberta"])
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_a_whole_model_trains_alike_with_the_same_masks(encoder, native_kernels, name, mode):
    results = []
    for norm in (True, False):
        model = getattr(encoder(name), mode)()
        speed = speed_up_encoder(model, "on", norm=norm)
        assert ("norm" in speed.resolved) == norm
        results.append(gradients(model))
    found, expected = results
    torch.testing.assert_close(found, expected, **CLOSE)
    assert (mode == "train") != torch.equal(expected[0], gradients(model, seed=1)[0])


def test_layers_of_another_form_keep_their_norms(encoder, native_kernels):
    assert "norm" not in speed_up_encoder(encoder("albert"), "on").resolved


@pytest.mark.parametrize("case", ["bf16 residual", "stock dropout", "all dropped", "own norm"])
def test_plain_modules_run_where_the_kernel_does_not_fit(native_kernels, case):
    norm = nn.Identity() if case == "own norm" else make_norm(8)
    rate = {"all dropped": 1.0, "stock dropout": 0.5}.get(case, 0.0)
    stock = case == "stock dropout"
    dropout = nn.Dropout(rate) if stock else FastDropout(rate, native_kernels)
    y, residual = torch.randn(2, 2, 3, 8)
    if case == "bf16 residual":
        norm, y, residual = norm.bfloat16(), y.bfloat16(), residual.bfloat16()
    torch.manual_seed(0)
    expected = norm(dropout(y) + residual)
    torch.manual_seed(0)
    found, twin = add_norm(y, residual, norm, dropout, native_kernels)
    assert torch.equal(found, expected)
    assert twin is None


@pytest.mark.parametrize("grad", [True, False])
def test_without_gradients_no_sum_is_kept(native_kernels, monkeypatch, grad):
    seen, kernel = [], native_kernels.add_norm

    def watched(*inputs, for_backward):
        seen.append(for_backward)
        return kernel(*inputs, for_backward)

    monkeypatch.setattr(native_kernels, "add_norm", watched)
    with torch.set_grad_enabled(grad):
        add_norm(*torch.randn(2, 3, 8), make_norm(8), None, native_kernels)
    assert seen == [grad]
    out, _, s, _ = kernel(torch.randn(3, 8), torch.randn(3, 8), make_norm(8), None, False)
    assert out.data_ptr() == s.data_ptr()


def test_fp16_draws_the_masks_of_the_modules(native_kernels):
    dropout, norm, (y, residual) = (
        FastDropout(0.5, native_kernels),
        make_norm(8),
        torch.randn(2, 3, 8),
    )
    torch.manual_seed(0)
    found, _ = add_norm(y.half(), residual, norm, dropout, native_kernels)
    torch.manual_seed(0)
    assert torch.equal(found, norm(dropout(y.half()) + residual))


def test_checkpointed_layers_give_the_same_gradients(encoder, native_kernels):
    model = encoder("bert").train()
    speed_up_encoder(model, "on")
    expected = gradients(model)
    model.activation_checkpointing_enable({"use_reentrant": False})
    found = gradients(model)
    assert all(torch.equal(found[1][n], expected[1][n]) for n in expected[1])
