"""The fused LoRA layer: equal to the plain one, and where the plain one must stay."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from transformers import AutoModel
from transformers.pytorch_utils import Conv1D

from models.fast import linear
from models.fast.cpu.attention import SpanAttention
from models.fast.linear import Product, fuse_lora, project
from models.fast.speed import SpeedArgs, speed_up
from models.methods.lora import LoRA, LoRALinear
from models.methods.method import merge

EXACT = {"atol": 1e-6, "rtol": 1e-6}


def layer(bias=True, dropout=0.0, rank=4, sizes=(24, 40)):
    """A frozen Linear with an adapter that has been trained: B is not zero."""
    torch.manual_seed(0)
    base = nn.Linear(*sizes, bias=bias).requires_grad_(False)
    adapter = LoRALinear(base, rank, 2.0 * rank, dropout)
    nn.init.normal_(adapter.lora_A, std=0.2)
    nn.init.normal_(adapter.lora_B, std=0.2)
    return adapter


def fused(adapter):
    assert fuse_lora(nn.ModuleDict({"only": adapter})) == [adapter]
    return adapter


def run(adapter, x, autocast=False):
    """Output and the gradients of x, A and B."""
    x = x.clone().requires_grad_()
    adapter.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        out = adapter(x)
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    out.backward(weights.to(out.dtype))
    return [out.detach(), x.grad, adapter.lora_A.grad.clone(), adapter.lora_B.grad.clone()]


def exact(adapter, x):
    """The same in fp64, without the layer's own code."""
    x, A, B = (t.detach().double().requires_grad_() for t in (x, adapter.lora_A, adapter.lora_B))
    bias = None if adapter.base.bias is None else adapter.base.bias.double()
    out = F.linear(x, adapter.base.weight.double(), bias) + adapter.scaling * (x @ A.T @ B.T)
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    out.backward(weights.double())
    return [out.detach(), x.grad, A.grad, B.grad]


def is_fused(out):
    node = out.grad_fn
    if type(node).__name__ == "ViewBackward0":  # the shape of x is put on outside
        node = node.next_functions[0][0]
    return type(node).__name__ == f"{Product.__name__}Backward"


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(24,), (1, 24), (50, 24), (3, 7, 24), (2, 3, 4, 24)])
def test_output_and_gradients_equal_the_plain_layer(bias, shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    plain, fast = run(layer(bias), x), run(fused(layer(bias)), x)
    for found, expected in zip(fast, plain, strict=True):
        assert found.shape == expected.shape
        assert ((found - expected).norm() / expected.norm()).item() < 1e-6


@pytest.mark.parametrize("bias", [True, False])
def test_gradients_equal_fp64(bias):
    adapter, x = fused(layer(bias)), torch.randn(50, 24)
    for found, expected in zip(run(adapter, x), exact(adapter, x), strict=True):
        assert ((found.double() - expected).norm() / expected.norm()).item() < 1e-6


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("rank", [1, 8])
def test_autocast_errs_no_more_than_the_plain_layer(seed, rank):
    x = torch.randn(512, 384, generator=torch.Generator().manual_seed(seed))
    plain, fast = (layer(rank=rank, sizes=(384, 384)) for _ in range(2))
    expected = exact(plain, x)
    theirs, ours = run(plain, x, autocast=True), run(fused(fast), x, autocast=True)
    for name, a, b, e in zip(("out", "dx", "dA", "dB"), ours, theirs, expected, strict=True):
        assert a.dtype == b.dtype
        mine, its = ((t.double() - e).norm().item() for t in (a, b))
        assert mine <= its, f"{name}: {mine:.4e} against {its:.4e}, {mine / its - 1:+.2%}"


def test_frozen_weight_in_bf16_gives_the_same_bits_under_autocast():
    x, kept, cast = torch.randn(50, 24), fused(layer()), fused(layer())
    for parameter in cast.base.parameters():
        parameter.data = parameter.data.bfloat16()
    for a, b in zip(run(kept, x, True), run(cast, x, True), strict=True):
        assert torch.equal(a, b)


def test_no_gradient_goes_to_an_input_that_needs_none(monkeypatch):
    adapter, x, products = fused(layer()), torch.randn(50, 24), []
    with torch.no_grad():
        expected = adapter(x)
    out = adapter(x)
    assert torch.equal(out, expected)
    addmm = torch.Tensor.addmm_
    monkeypatch.setattr(
        torch.Tensor, "addmm_", lambda t, *a, **k: products.append(a) or addmm(t, *a, **k)
    )
    out.sum().backward()
    assert products == []  # the one product that only the input's gradient needs
    assert adapter.lora_A.grad.any()
    assert adapter(x.requires_grad_()).sum().backward() is None
    assert len(products) > 0


def test_frozen_weights_get_no_gradient():
    adapter = fused(layer())
    adapter(torch.randn(5, 24)).sum().backward()
    assert [n for n, p in adapter.named_parameters() if p.grad is not None] == ["lora_A", "lora_B"]


def test_gradients_of_two_passes_add_up():
    adapter, (x, y) = fused(layer()), torch.randn(2, 5, 24)
    parts = [run(adapter, t)[2:] for t in (x, y)]
    adapter.zero_grad()
    for t in (x, y):
        out = adapter(t)
        out.backward(torch.randn(out.shape, generator=torch.Generator().manual_seed(1)))
    for name, a, b in zip(("lora_A", "lora_B"), *parts, strict=True):
        torch.testing.assert_close(getattr(adapter, name).grad, a + b, **EXACT)


def test_fused_layers_run_as_one_function():
    assert is_fused(fused(layer())(torch.randn(5, 24)))
    assert is_fused(fused(layer(dropout=0.5)).eval()(torch.randn(5, 24)))


def test_dropout_in_training_falls_back_to_the_plain_layer():
    plain, fast, x = layer(dropout=0.5), fused(layer(dropout=0.5)), torch.randn(5, 24)
    torch.manual_seed(3)
    expected = plain(x)
    torch.manual_seed(3)
    found = fast(x)
    assert not is_fused(found)
    assert torch.equal(found, expected)


def test_merged_layer_gives_its_bases_output():
    adapter, x = fused(layer()), torch.randn(5, 24)
    before = adapter(x)
    merge(nn.ModuleDict({"only": adapter}))
    found = adapter(x)
    torch.testing.assert_close(found, before, atol=1e-5, rtol=1e-5)
    assert torch.equal(found, adapter.base(x))


@pytest.mark.parametrize("part", ["weight", "bias"])
def test_base_that_trains_gets_its_gradient(part):
    plain, fast, x = layer(), fused(layer()), torch.randn(5, 24)
    for adapter in (plain, fast):
        getattr(adapter.base, part).requires_grad_()
        adapter(x).square().sum().backward()
    expected = getattr(plain.base, part).grad
    assert torch.equal(getattr(fast.base, part).grad, expected)


def test_an_adapter_on_a_conv1d_equals_the_plain_one():
    torch.manual_seed(0)
    plain = LoRALinear(Conv1D(40, 24).requires_grad_(False), 4, 8.0, 0.0)
    for weight in (plain.lora_A, plain.lora_B):  # else it is what the memory held
        nn.init.normal_(weight, std=0.2)
    x = torch.randn(50, 24)
    expected = run(plain, x)
    torch.testing.assert_close(run(fused(plain), x), expected, atol=1e-5, rtol=1e-5)


def test_a_variant_stays_as_it_is():
    class Variant(LoRALinear):
        def forward(self, x):
            return super().forward(x) * 2

    kept = [Variant(nn.Linear(2, 3), 1, 1, 0.0)]
    assert fuse_lora(nn.ModuleList(kept)) == []
    assert not any("forward" in vars(adapter) for adapter in kept)


def test_fusing_changes_no_name():
    adapter = layer()
    before = list(adapter.state_dict())
    assert list(fused(adapter).state_dict()) == before


def test_nothing_is_computed_below_the_first_trainable_layer_on_the_way_back(make, monkeypatch):
    lora = LoRA(("query", "value"), rank=2, layers=(1, 1))
    built, _, _ = make("bert", method=lora, head_kind="linear")
    args = SpeedArgs(native="off")
    speed_up(built.model, args, torch.device("cpu"), torch.float32, compiled=False)
    layers, calls = built.model.backbone.encoder.layer, []
    backward = SpanAttention.backward
    monkeypatch.setattr(
        SpanAttention, "backward", staticmethod(lambda *a: calls.append(1) or backward(*a))
    )
    grown = {}
    for number, block in enumerate(layers):
        block.register_forward_hook(lambda _, given, out, n=number: grown.update({n: out[0]}))
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    ids = torch.arange(8).view(2, 4)
    built.model.train()(input_ids=ids, attention_mask=mask).sum().backward()
    assert len(calls) == 1
    assert not grown[0].requires_grad
    assert grown[1].requires_grad


def test_query_and_value_alone_leave_no_gradient_of_the_keys_to_work_out(make, monkeypatch):
    """In the first layer neither the input nor the key's weights train."""
    built, _, _ = make("bert", method=LoRA(("query",), rank=2), head_kind="linear")
    args = SpeedArgs(native="off")
    speed_up(built.model, args, torch.device("cpu"), torch.float32, compiled=False)
    needed, backward = [], SpanAttention.backward

    def watch(ctx, grad):
        needed.append(ctx.needs_input_grad[:3])
        return backward(ctx, grad)

    monkeypatch.setattr(SpanAttention, "backward", staticmethod(watch))
    ids = torch.arange(8).view(2, 4)
    built.model.train()(input_ids=ids, attention_mask=torch.ones_like(ids)).sum().backward()
    assert needed == [(True, True, True), (True, False, False)]  # last layer first


def test_whole_model_has_the_gradients_of_the_plain_one(make, stir):
    found = []
    for fast in (True, False):
        lora = LoRA(("query", "dense"), rank=2)
        built, _, _ = make("bert", method=lora, head_kind="linear")
        stir(built.model)
        assert not fast or len(fuse_lora(built.model)) == 8
        ids = torch.arange(8).view(2, 4)
        logits = built.model(input_ids=ids, attention_mask=torch.ones_like(ids))
        logits.square().sum().backward()
        named = built.model.named_parameters()
        found.append({n: p.grad for n, p in named if p.grad is not None})
    torch.testing.assert_close(found[0], found[1], atol=1e-5, rtol=1e-5)
    assert len(found[0]) > 16


def test_fused_layer_takes_an_encoder_of_every_kind(tiny, targets):
    from models.methods.lora import inject_lora

    for name in ("bert", "distilbert", "roberta"):
        model = AutoModel.from_config(tiny(name, 50))
        inject_lora(model, LoRA(targets[name], rank=2), seed=0)
        assert len(fuse_lora(model)) == 4


def test_layers_of_one_input_share_it_and_differ_as_apart():
    torch.manual_seed(0)
    adapter, other, x = fused(layer()), nn.Linear(24, 16), torch.randn(5, 24)
    linear.fuse([other])
    found, expected = [], []
    for joint, results in ((True, found), (False, expected)):
        inputs = x.clone().requires_grad_()
        nn.ModuleList([adapter, other]).zero_grad()
        outs = project(inputs, [adapter, other]) if joint else (adapter(inputs), other(inputs))
        (outs[0].square().sum() + outs[1].sin().sum()).backward()
        trained = [p.grad for m in (adapter, other) for p in m.parameters() if p.requires_grad]
        results += [*outs, inputs.grad, *(g.clone() for g in trained)]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert len(found) == 7
    inputs = x.clone().requires_grad_()
    project(inputs, [adapter, other])[1].sum().backward()  # nobody needs the adapter's output
    torch.testing.assert_close(inputs.grad, other.weight.sum(0).expand(5, 24), **EXACT)


def test_a_layer_that_runs_as_it_is_parts_the_others():
    plain, x = nn.Linear(24, 16), torch.randn(5, 24)
    outs = project(x, [fused(layer()), plain])
    assert torch.equal(outs[1], plain(x))


def test_a_hook_on_one_of_the_layers_is_called():
    other, x, seen = nn.Linear(24, 16), torch.randn(5, 24), []
    layers = [fused(layer()), other]
    linear.fuse([other])
    expected = project(x, layers)
    other.register_forward_hook(lambda module, given, out: seen.append(out))
    found = project(x, layers)
    assert torch.equal(seen[0], found[1])
    other.register_full_backward_hook(lambda module, given, out: seen.append(out[0]))
    project(x.clone().requires_grad_(), layers)[1].sum().backward()
    assert torch.equal(seen[-1], torch.ones(5, 16))
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
