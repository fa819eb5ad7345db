"""Linear layers by oneDNN: equal to torch's own, and gradients that lie side by side."""

import copy

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from models.fast import linear, products
from models.fast.linear import fuse_linear, lend_native, project, takes_onednn

needs_onednn = pytest.mark.skipif(not takes_onednn(torch.float32), reason="torch without oneDNN")


def plain_and_fast(bias=True, sizes=(24, 40)):
    """The same trainable Linear twice, the second one by oneDNN."""
    torch.manual_seed(0)
    plain = nn.Linear(*sizes, bias=bias)
    fast = copy.deepcopy(plain)
    assert fuse_linear(nn.ModuleDict({"only": fast}), torch.float32) == [fast]
    return plain, fast


def run_linear(layer, x, autocast=False, trains=True):
    """Output and the gradients of x, and of weight and bias where they train."""
    x = x.detach().clone().requires_grad_()
    layer.requires_grad_(trains).zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        out = layer(x)
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    out.backward(weights.to(out.dtype))
    return [out.detach(), x.grad, *(p.grad.clone() for p in layer.parameters() if trains)]


@needs_onednn
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(24,), (50, 24), (3, 7, 24), (0, 24)])
@pytest.mark.parametrize("trains", [True, False])
def test_linear_equals_the_plain_one(bias, shape, trains):
    plain, fast = plain_and_fast(bias)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    expected, found = (run_linear(layer, x, trains=trains) for layer in (plain, fast))
    assert len(found) == (2 + (1 + bias) * trains)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


@needs_onednn
@pytest.mark.parametrize("seed", range(3))
def test_linear_under_autocast_errs_no_more_than_the_plain_one(seed):
    plain, fast = plain_and_fast(sizes=(384, 384))
    x = torch.randn(512, 384, generator=torch.Generator().manual_seed(seed))
    exact = run_linear(copy.deepcopy(plain).double(), x.double())
    theirs, ours = (run_linear(layer, x, autocast=True) for layer in (plain, fast))
    for name, a, b, e in zip(("out", "dx", "dW", "db"), ours, theirs, exact, strict=True):
        assert a.dtype == b.dtype
        mine, its = ((t.double() - e).norm().item() for t in (a, b))
        assert mine <= its * (1 + 1e-6), f"{name}: {mine:.4e} against {its:.4e}"


@needs_onednn
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_linear_of_another_dtype_is_torchs_own(dtype):
    plain, fast = (layer.to(dtype) for layer in plain_and_fast())
    x = torch.randn(5, 24, dtype=dtype)
    assert torch.equal(fast(x), plain(x))


def test_conv1d_equals_the_plain_one(monkeypatch):
    torch.manual_seed(0)
    plain = Conv1D(40, 24)
    fast = copy.deepcopy(plain)
    assert fuse_linear(nn.ModuleDict({"only": fast}), torch.float32) == [fast]
    x = torch.randn(50, 24)
    expected, found = (run_linear(layer, x) for layer in (plain, fast))
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
    assert fast.weight.grad.is_contiguous()  # and so is not copied once more


def test_no_linear_layer_is_replaced_where_onednn_has_none(monkeypatch):
    monkeypatch.setattr(linear, "takes_onednn", lambda dtype: False)
    assert linear.fuse_linear(nn.ModuleDict({"only": nn.Linear(2, 3)}), torch.float32) == []


def test_gradients_side_by_side_are_taken_as_they_lie():
    wide = torch.randn(5, 12)
    for parts in (wide.split(4, 1), wide.split([4, 8], 1), [wide]):
        joined = products.side_by_side(parts)
        assert joined.data_ptr() == wide.data_ptr()
        assert torch.equal(joined, wide)


@pytest.mark.parametrize(
    "parts",
    [
        lambda wide: (wide[:, 4:8], wide[:, :4]),  # not in this order
        lambda wide: (wide[:, :4], wide[:, 4:8]),  # four columns are left over
        lambda wide: (wide[:, :4], wide[:, 4:].clone()),
        lambda wide: (wide[:, :4], torch.randn(5, 20)[:, 4:12]),  # another memory, the right place
        lambda wide: (torch.randn(5, 4), torch.randn(5, 3)),
    ],
)
def test_gradients_that_lie_otherwise_are_copied(parts):
    parts = parts(torch.randn(5, 12))
    assert torch.equal(products.side_by_side(parts), torch.cat(parts, 1))


class Native:
    """Kernels that count what they are asked."""

    def __init__(self):
        self.rows = []

    def multiply_few(self, x, weight, bias):
        self.rows.append(len(x))
        return torch.nn.functional.linear(x, weight, bias)


@needs_onednn
@pytest.mark.parametrize(("narrow", "few"), [(True, range(2, 129)), (False, range(1, 65))])
def test_few_rows_are_native_only_where_no_gradient_is_asked_for(monkeypatch, narrow, few):
    monkeypatch.setattr(products, "is_narrow", lambda: narrow)
    for name in ("native_rows", "prefers_onednn"):  # without what they know of this processor
        monkeypatch.setattr(products, name, getattr(products, name).__wrapped__)
    native, (plain, fast) = Native(), plain_and_fast()
    assert lend_native(nn.Sequential(fast, nn.Linear(2, 2)), native) == [fast]
    x = torch.randn(few.stop, 24)
    fast(x[:5])
    assert native.rows == []
    with torch.no_grad():
        for rows in (few.start - 1, few.start, few.stop - 1, few.stop):
            torch.testing.assert_close(fast(x[:rows]), plain(x[:rows]))
        assert native.rows == [few.start, few.stop - 1]
        project(x[:5], [fast, fast])
        assert native.rows == [few.start, few.stop - 1, 5, 5]
        fast.double()(x[:5].double())
        with torch.autocast("cpu", dtype=torch.bfloat16):
            fast.float()(x[:5])
    assert native.rows == [few.start, few.stop - 1, 5, 5]
