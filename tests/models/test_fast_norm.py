"""Dropout, residual and layer norm as one: equal to fp64, and to the modules they replace."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from models.fast.dropout import FastDropout, replace_dropout
from models.fast.masks import keep_bits, make_draw
from models.fast.norm import AddNorm, add_norm_forward, fuse_norm

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


def run(function, y, residual, norm, grad):
    """Output and the gradients of y, residual, weight and bias."""
    norm.zero_grad()
    leaves = [y.clone().requires_grad_(), residual.clone().requires_grad_()]
    out = function(*leaves)
    out.backward(grad.to(out.dtype))
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
        lambda a, b: AddNorm.apply(
            a, b, norm.weight, norm.bias, norm, draw, native_kernels, False
        ),
        y, residual, norm, grad,
    )  # fmt: skip
    expected = run(
        lambda a, b: exact_norm(a * mask + b), y.double(), residual.double(), exact_norm, grad
    )
    assert found[1].dtype == dtype
    for name, a, b in zip(NAMES, found, expected, strict=True):
        loose = {"atol": 0.02, "rtol": 2**-8} if name == "y" and dtype != torch.float32 else {}
        close = {"atol": 5e-5, "rtol": 1e-5} | loose
        torch.testing.assert_close(a.double(), b, **close, msg=lambda s, n=name: f"{n}: {s}")


def test_output_in_bf16_errs_no_more_than_the_modules(native_kernels):
    norm, draw = make_norm(64), make_draw(0.1, torch.arange(500), 64)
    y, residual = torch.randn(500, 64).bfloat16(), torch.randn(500, 64)
    mask = (keep_bits(draw, 64) != 0).double() * draw.scale
    exact = F.layer_norm(
        y.double() * mask + residual, (64,), norm.weight.double(), norm.bias.double()
    )
    ours, _, _ = native_kernels.add_norm(y, residual, norm, draw, True)
    theirs = norm(native_kernels.drop(y, draw) + residual)
    mine, its = ((t - exact).square().mean().item() for t in (ours, theirs))
    assert mine < its / 100  # the modules round the dropped y to bf16, the kernel does not


def test_weights_that_are_frozen_get_no_gradient(native_kernels):
    norm = make_norm(8, trains=False)
    y = torch.randn(3, 8, requires_grad=True)
    AddNorm.apply(
        y * 1, torch.randn(3, 8), norm.weight, norm.bias, norm, None, native_kernels, False
    ).sum().backward()
    assert y.grad is not None
    for trains in (False, True):
        ones = torch.ones(3, 8)
        out, s, stats = native_kernels.add_norm(ones, ones, norm, None, False)
        grads = native_kernels.add_norm_backward(out, s, stats, norm, None, torch.float32, trains)
        assert [g is not None for g in grads] == [True, True, trains, trains]


def test_a_weight_that_changes_before_the_backward_pass_is_refused(native_kernels):
    norm = make_norm(8)
    y = torch.randn(3, 8, requires_grad=True)
    out = AddNorm.apply(y * 1, y * 2, norm.weight, norm.bias, norm, None, native_kernels, False)
    with torch.no_grad():
        norm.weight.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()


def test_a_second_backward_pass_is_refused(native_kernels):
    norm = make_norm(8)
    y = torch.randn(3, 8, requires_grad=True)
    out = AddNorm.apply(y * 1, y * 2, norm.weight, norm.bias, norm, None, native_kernels, False)
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


@pytest.mark.parametrize("name", ["bert", "electra", "roberta"])
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_a_whole_model_trains_alike_with_the_same_masks(encoder, native_kernels, name, mode):
    model = getattr(encoder(name), mode)()
    replace_dropout(model, native_kernels)
    expected = gradients(model)
    assert fuse_norm(model, native_kernels) == 2 * model.config.num_hidden_layers
    found = gradients(model)
    torch.testing.assert_close(found, expected, **CLOSE)
    assert (mode == "train") != torch.equal(found[0], gradients(model, seed=1)[0])


@pytest.mark.parametrize("name", ["albert", "distilbert"])
def test_blocks_of_another_form_stay(encoder, native_kernels, name):
    assert fuse_norm(encoder(name), native_kernels) == 0


@pytest.mark.parametrize("case", ["bf16 residual", "stock dropout", "all dropped"])
def test_plain_modules_run_where_the_kernel_does_not_fit(encoder, native_kernels, case):
    block = encoder("bert").encoder.layer[0].output.train()
    if case == "all dropped":
        block.dropout = FastDropout(1.0, native_kernels)
    if case == "bf16 residual":
        block.bfloat16().eval()
    hidden = torch.randn(2, 3, block.dense.in_features).to(block.dense.weight.dtype)
    residual = torch.randn(2, 3, block.dense.out_features).to(hidden.dtype)
    block.kernels = native_kernels
    torch.manual_seed(0)
    expected = type(block).forward(block, hidden, residual)
    torch.manual_seed(0)
    assert torch.equal(add_norm_forward(block, hidden, residual), expected)


@pytest.mark.parametrize("grad", [True, False])
def test_without_gradients_no_sum_is_kept(encoder, native_kernels, monkeypatch, grad):
    block = encoder("bert").encoder.layer[0].output
    block.kernels, seen, add_norm = native_kernels, [], native_kernels.add_norm
    monkeypatch.setattr(
        native_kernels, "add_norm", lambda *given: seen.append(given[-1]) or add_norm(*given)
    )
    with torch.set_grad_enabled(grad):
        add_norm_forward(
            block, torch.randn(2, block.dense.in_features), torch.randn(2, block.dense.out_features)
        )
    assert seen == [not grad]
    out, s, _ = add_norm(torch.randn(3, 8), torch.randn(3, 8), make_norm(8), None, True)
    assert out.data_ptr() == s.data_ptr()


def test_fp16_draws_the_masks_of_the_modules(encoder, native_kernels):
    block = encoder("bert").encoder.layer[0].output.train()
    block.dropout, block.kernels = FastDropout(0.5, native_kernels), native_kernels
    given = torch.randn(2, block.dense.in_features), torch.randn(2, block.dense.out_features)
    found = []
    for forward in (add_norm_forward, type(block).forward):
        torch.manual_seed(0)
        with torch.autocast("cpu", dtype=torch.float16):
            found.append(forward(block, *given))
    assert torch.equal(*found)


def test_checkpointed_layers_give_the_same_gradients(encoder, native_kernels):
    model = encoder("bert").train()
    replace_dropout(model, native_kernels)
    fuse_norm(model, native_kernels)
    expected = gradients(model)
    model.activation_checkpointing_enable({"use_reentrant": False})
    found = gradients(model)
    assert all(torch.equal(found[1][n], expected[1][n]) for n in expected[1])
