"""The GPU's paths of decoders: causal attention with shared keys, on the CPU as far as it goes
there, and what the kernels of a GPU are asked for."""

import pytest
import torch
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from models.fast.cuda import attention
from models.fast.cuda.attention import attend_varlen
from models.fast.cuda.lean_sdpa import use_lean_sdpa
from models.fast.layout import layout_of
from models.fast.speed import SpeedArgs, speed_up
from tests.models.test_fast_causal import NAMES, PACKS, config_of, packed, padded

CUDA, FP32 = torch.device("cuda"), torch.float32
CLOSE = {"atol": 1e-5, "rtol": 1e-5}


@pytest.fixture
def model_of(stir):
    """model_of(name, kind, fast): with a GPU's paths put in, but on the CPU."""

    def build(name, kind=AutoModelForCausalLM, fast=True):
        torch.manual_seed(0)
        model = kind.from_config(config_of(name), attn_implementation="sdpa").eval()
        stir(model)
        if fast:
            model.speed = speed_up(model, SpeedArgs(compile=False), CUDA, FP32)
        return model

    return build


def hidden_and_gradients(model, inputs, real):
    model.zero_grad()
    hidden = model.base_model(**inputs).last_hidden_state[real.bool()]
    (
        hidden * torch.randn(hidden.shape, generator=torch.Generator().manual_seed(2))
    ).mean().backward()
    named = model.named_parameters()
    return hidden.detach(), {n: p.grad.clone() for n, p in named if p.grad is not None}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("rows", ["padded", "packed"])
def test_streams_equal_the_stock_layers(model_of, name, rows):
    inputs = padded() if rows == "padded" else packed()
    real = inputs["attention_mask"]
    fast = model_of(name)
    assert fast.speed.resolved["attention"] == "varlen"
    assert fast.speed.resolved["batches"] == "streams"
    found = hidden_and_gradients(fast, inputs, real)
    if rows == "packed":
        del inputs["attention_mask"]
        inputs["use_cache"] = False  # so that transformers looks for packs
    expected = hidden_and_gradients(model_of(name, fast=False), inputs, real)
    torch.testing.assert_close(found, expected, **CLOSE)


@pytest.mark.parametrize("name", ["gpt2", "llama", "qwen3"])
@pytest.mark.parametrize("side", ["left", "none"])
def test_generation_with_a_cache_gives_the_stock_tokens(model_of, name, side):
    inputs = padded("left", (11, 1, 6) if side == "left" else (7, 7, 7))
    if side == "none":
        del inputs["attention_mask"]
    wanted = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None}
    found = model_of(name).generate(**inputs, **wanted)
    assert torch.equal(found, model_of(name, fast=False).generate(**inputs, **wanted))


def test_several_tokens_behind_a_cache_see_what_stock_lets_them_see(model_of):
    outs = []
    for fast in (True, False):
        model, ids = model_of("llama", fast=fast), padded("left", (9, 9))["input_ids"]
        cache = model(ids[:, :5], use_cache=True).past_key_values
        outs.append(model(ids[:, 5:], past_key_values=cache, use_cache=True).logits)
    torch.testing.assert_close(*outs, **CLOSE)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_the_architectures_own_classifier_gives_the_stock_logits(model_of, name):
    kind = AutoModelForSequenceClassification
    found, expected = (model_of(name, kind, fast)(**padded()).logits for fast in (True, False))
    torch.testing.assert_close(found, expected, **CLOSE)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_lean_sdpa_keeps_what_is_causal(model_of, name):
    inputs = padded()
    real = inputs["attention_mask"].bool()
    model = model_of(name, fast=False)
    expected = model(**inputs).logits[real]
    assert use_lean_sdpa(model)
    torch.testing.assert_close(model(**inputs).logits[real], expected, **CLOSE)


def stream(heads=4, groups=2, size=8):
    """A layout of packs, and q, k, v of its stream."""
    inputs = packed()
    layout = layout_of(inputs["attention_mask"], inputs["position_ids"])
    draw = torch.Generator().manual_seed(0)
    tokens = layout.ids.shape[1]
    shapes = [(tokens, n, size) for n in (heads, groups, groups)]
    return layout, [torch.randn(shape, generator=draw) for shape in shapes]


def test_varlen_attention_is_asked_to_look_back_with_shared_keys(monkeypatch):
    layout, (q, k, v) = stream()
    asked = []
    monkeypatch.setattr(attention, "kernel_of", lambda q: "flash")
    monkeypatch.setattr(attention, "varlen_attn", lambda *a, **b: asked.append((a, b)) or a[0])
    for causal in (True, False):
        attend_varlen(q, k, v, layout, False, 8**-0.5, 0.0, causal=causal)
    assert [b["window_size"] for _, b in asked] == [(-1, 0), (-1, -1)]
    assert all(b["enable_gqa"] for _, b in asked)
    (*_, ends, more_ends, most, more), _ = asked[0]
    assert ends.tolist() == more_ends.tolist() == layout.ends.tolist()
    assert most == more == max(max(map(max, PACKS)), layout.filling)
    attend_varlen(q, q, q, layout, False, 8**-0.5, 0.0, causal=True)
    assert not asked[2][1]["enable_gqa"]


def test_the_memory_efficient_kernel_is_given_a_key_for_each_query(monkeypatch):
    layout, (q, k, v) = stream()
    asked = []
    monkeypatch.setattr(attention, "kernel_of", lambda q: "efficient")

    def kernel(*given, scale):
        asked.append(given)
        return (given[0],)

    monkeypatch.setattr(torch.ops.aten, "_efficient_attention_forward", kernel)
    attend_varlen(q, k, v, layout, False, 8**-0.5, 0.0, causal=True)
    (_, keys, values, *_, mask_type, _lse) = asked[0]
    assert mask_type == 2  # from the last query and key
    assert keys.shape == values.shape == (1, len(q), 4, 8)
    for head in range(4):
        assert torch.equal(keys[0, :, head], k[:, head // 2])


def test_a_kernel_is_given_one_dtype_under_autocast(model_of, monkeypatch):
    """Where rotary positions are fp32, and values are not."""
    asked = []
    monkeypatch.setattr(attention, "kernel_of", lambda q: "flash")
    monkeypatch.setattr(attention, "varlen_attn", lambda *a, **b: asked.append(a) or a[0])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model_of("llama").base_model(**padded())
    assert {t.dtype for given in asked for t in given[:3]} == {torch.bfloat16}


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("heads", "groups"), [(4, 4), (4, 2)])
@pytest.mark.parametrize("scale", [8**-0.5, 0.3])
def test_causal_attention_on_a_gpu_equals_the_padded_one(dtype, heads, groups, scale):
    layout, tensors = stream(heads, groups)
    layout = layout.to("cuda")
    given = [t.to("cuda", dtype).requires_grad_() for t in tensors]
    exact = [t.double().requires_grad_() for t in tensors]
    found = attend_varlen(*given, layout, False, scale, 0.0, causal=True)
    weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(1))
    (found * weights.to(found)).sum().backward()
    out = torch.zeros_like(exact[0])
    for start, stop in layout.spans:
        Q, K, V = (t[start:stop].transpose(0, 1) for t in exact)
        part = F.scaled_dot_product_attention(
            Q, K, V, is_causal=True, scale=scale, enable_gqa=True
        ).transpose(0, 1)
        out = out.index_copy(0, torch.arange(start, stop), part)
    real = layout.spans[-1][1]
    (out[:real] * weights[:real]).sum().backward()
    close = {"atol": 1e-5, "rtol": 1e-4} if dtype == FP32 else {"atol": 3e-2, "rtol": 3e-2}
    torch.testing.assert_close(found[:real].double().cpu(), out[:real].detach(), **close)
    for mine, theirs in zip(given, exact, strict=True):
        torch.testing.assert_close(mine.grad[:real].double().cpu(), theirs.grad[:real], **close)
