"""GELU with a native backward pass: torch's gradient, in the memory of its input."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from transformers.activations import GELUActivation

from models.fast.cpu.gelu import FastGELU, Gelu, replace_gelu

CLOSE = {"atol": 1e-5, "rtol": 1e-5}
BATCH = {
    "input_ids": torch.arange(2, 16).view(2, 7),
    "attention_mask": torch.tensor([[1] * 7, [1] * 4 + [0] * 3]),
}


def gradient(function, x, grad):
    """Of x, which stays as it is."""
    leaf = x.clone().requires_grad_()
    function(leaf * 1).backward(grad)
    return leaf.grad


@pytest.mark.parametrize("count", [1, 15, 32, 33, 1000, 9001])
def test_gradient_is_that_of_fp64(native_kernels, count):
    x = torch.linspace(-11, 11, count)
    grad = torch.randn(count, generator=torch.Generator().manual_seed(count))
    found = gradient(lambda t: Gelu.apply(t, native_kernels), x, grad)
    exact = gradient(F.gelu, x.double(), grad.double())
    torch.testing.assert_close(found.double(), exact, atol=2e-6, rtol=2e-6)


def test_gradient_in_bf16_errs_no_more_than_torch(native_kernels):
    x = torch.linspace(-6, 6, 40_000).bfloat16()
    grad = torch.randn(40_000, generator=torch.Generator().manual_seed(0)).bfloat16()
    exact = gradient(F.gelu, x.double(), grad.double())
    ours = gradient(lambda t: Gelu.apply(t, native_kernels), x, grad)
    theirs = gradient(F.gelu, x, grad)
    assert ours.dtype == torch.bfloat16
    mine, its = ((t.double() - exact).square().mean().sqrt().item() for t in (ours, theirs))
    assert mine <= 1.001 * its  # both are one rounding away from the exact value


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_forward_gives_torch_bits_and_backward_needs_no_memory(native_kernels, dtype):
    linear = nn.Linear(5, 64).to(dtype)
    x = linear(torch.randn(3, 5).to(dtype))
    place, out = x.data_ptr(), FastGELU(native_kernels)(x)
    assert torch.equal(out, F.gelu(x))
    seen = []
    x.register_hook(lambda g: seen.append(g.data_ptr()))
    out.sum().backward()
    assert seen == [place]


def test_what_is_not_a_number_stays_so(native_kernels):
    x = torch.tensor([float("nan"), 0.0, float("nan")])
    found = gradient(lambda t: Gelu.apply(t, native_kernels), x, torch.ones(3))
    assert found.isnan().tolist() == [True, False, True]


def test_a_second_backward_pass_is_refused(native_kernels):
    x = torch.randn(8, requires_grad=True)
    out = Gelu.apply(x * 1, native_kernels).sum()
    out.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match=r"speed\.gelu"):
        out.backward()


@pytest.mark.parametrize("case", ["fp16", "strided"])
def test_plain_torch_where_the_kernel_does_not_fit(native_kernels, case):
    x = torch.randn(6, 4, requires_grad=True)
    x = x.half() if case == "fp16" else (x * 1).T
    out = FastGELU(native_kernels)(x)
    assert torch.equal(out, F.gelu(x))
    assert type(out.grad_fn).__name__ == "GeluBackward0"  # torch's


@pytest.mark.parametrize("form", ["expanded", "transposed"])
def test_a_gradient_in_another_order_of_memory_is_read_right(native_kernels, form):
    x = torch.randn(64, 4096)
    grad = torch.randn(1).expand(64, 4096) if form == "expanded" else torch.randn(4096, 64).T
    found = gradient(lambda t: Gelu.apply(t, native_kernels), x, grad)
    torch.testing.assert_close(found, gradient(F.gelu, x, grad), **CLOSE)


@pytest.mark.parametrize("name", ["albert", "bert", "distilbert", "electra", "roberta"])
def test_gradients_of_a_whole_model_stay(encoder, native_kernels, name):
    model, found = encoder(name), []
    for module in model.modules():  # ALBERT comes with another GELU
        if name == "albert" and hasattr(module, "activation"):
            module.activation = GELUActivation()
    for _ in range(2):
        model.zero_grad()
        model(**BATCH).last_hidden_state[0].square().sum().backward()
        named = model.named_parameters()
        found.append({n: p.grad.clone() for n, p in named if p.grad is not None})
        replaced = replace_gelu(model, native_kernels)
    assert (replaced, len(found[0])) == ([], len(found[1]))  # the second time nothing is left
    assert any(isinstance(m, FastGELU) for m in model.modules())
    torch.testing.assert_close(found[1], found[0], **CLOSE)


def test_only_the_listed_blocks_change(encoder, native_kernels):
    model = encoder("bert")
    model.mine = nn.Sequential(nn.Linear(3, 3), nn.GELU(), GELUActivation())
    assert len(replace_gelu(model, native_kernels)) == model.config.num_hidden_layers
    assert [type(m) for m in model.mine] == [nn.Linear, nn.GELU, GELUActivation]


def test_another_activation_stays(encoder, native_kernels):
    model = encoder("albert")  # gelu_new
    assert replace_gelu(model, native_kernels) == []


def test_checkpointed_layers_give_the_same_gradients(encoder, native_kernels):
    model, found = encoder("bert").train(), []
    replace_gelu(model, native_kernels)
    for checkpointed in (False, True):
        if checkpointed:
            model.activation_checkpointing_enable({"use_reentrant": False})
        model.zero_grad()
        torch.manual_seed(0)
        model(**BATCH).last_hidden_state.square().sum().backward()
        found.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
