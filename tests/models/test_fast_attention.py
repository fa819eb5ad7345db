"""Attention over spans equals softmax(Q K^T) V, forward and backward, dropout included."""

import pytest
import torch
from torch.nn import functional as F

from models.fast.cpu import kernels as plain
from models.fast.cpu.attention import attend, row_ids, spans_of
from models.fast.cpu.kernels import PlainKernels, Texts, blocks
from models.fast.cpu.masks import PLACES, keep_bits, make_draw

CLOSE = {"atol": 1e-5, "rtol": 1e-5}
RAGGED = [(0, 7), (7, 8), (10, 43), (43, 45), (48, 81)]  # gaps at 8, 9 and 45 to 47
TOKENS, HEADS, SIZE = 83, 3, 8


def inputs(tokens=TOKENS, heads=HEADS, size=SIZE, scale=1.0, seed=0):
    """q, k, v and the gradient of the output, (tokens, heads, size) each."""
    draw = torch.Generator().manual_seed(seed)
    return [scale * torch.randn(tokens, heads, size, generator=draw) for _ in range(4)]


def reference(q, k, v, spans, scale, masks=None):
    """The same in plain autograd; masks (H, N, longest span) multiply the probabilities."""
    out = torch.zeros_like(q)
    for start, stop in spans:
        Q, K, V = (t[start:stop].transpose(0, 1) for t in (q, k, v))  # (H, T, D)
        p = torch.softmax(scale * Q @ K.mT, -1)
        if masks is not None:
            p = p * masks[:, start:stop, : stop - start]
        out = out.index_copy(0, torch.arange(start, stop), (p @ V).transpose(0, 1))
    return out


def run(function, tensors, dtype=torch.float32):
    """Output, dq, dk, dv of function(q, k, v), as fp64."""
    q, k, v = (t.to(dtype, copy=True).requires_grad_() for t in tensors[:3])
    out = function(q, k, v)
    out.backward(tensors[3].to(dtype))
    return [t.detach().double() for t in (out, q.grad, k.grad, v.grad)]


def check(found, expected):
    for name, a, b in zip(("out", "dq", "dk", "dv"), found, expected, strict=True):
        torch.testing.assert_close(a, b, **CLOSE, msg=lambda said, name=name: f"{name}: {said}")


@pytest.mark.parametrize("spans", [RAGGED, [(0, TOKENS)], [(5, 6)]])
def test_output_and_gradients_equal_fp64_autograd(kernels, spans):
    tensors = inputs()
    found = run(lambda q, k, v: attend(q, k, v, spans, 0.35, 0.0, kernels), tensors)
    expected = run(lambda q, k, v: reference(q, k, v, spans, 0.35), tensors, torch.float64)
    check(found, expected)


def test_tokens_outside_every_span_get_zeros(kernels):
    outside = [8, 9, 45, 46, 47, 81, 82]
    found = run(lambda q, k, v: attend(q, k, v, RAGGED, 0.35, 0.1, kernels), inputs())
    assert all(not t[outside].any() for t in found)


@pytest.mark.parametrize("tokens", [1, 15, 16, 17, 32, 127, 128, 129, 300])
@pytest.mark.parametrize("size", [1, 10, 32])
def test_every_length_and_head_size_is_exact(kernels, tokens, size):
    tensors = inputs(tokens, 2, size)
    spans = [(0, tokens)]
    found = run(lambda q, k, v: attend(q, k, v, spans, 0.35, 0.0, kernels), tensors)
    expected = run(lambda q, k, v: reference(q, k, v, spans, 0.35), tensors, torch.float64)
    check(found, expected)


def test_tokens_outside_every_span_are_not_read(kernels):
    tensors = inputs()
    function = lambda q, k, v: attend(q, k, v, RAGGED, 0.35, 0.0, kernels)  # noqa: E731
    before = run(function, tensors)
    for tensor in tensors:
        tensor[[8, 9, 45, 46, 47, 81, 82]] = float("nan")
    assert all(torch.equal(a, b) for a, b in zip(before, run(function, tensors), strict=True))


def test_no_span_at_all_gives_zeros(kernels):
    found = run(lambda q, k, v: attend(q, k, v, [], 0.35, 0.1, kernels), inputs())
    assert all(not t.any() for t in found)


@pytest.mark.parametrize("scratch", [1, 2 * 33**2])
@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_blocks_of_heads_change_no_value(monkeypatch, scratch, dropout):
    def function(q, k, v):
        torch.manual_seed(0)
        return attend(q, k, v, RAGGED, 0.35, dropout, PlainKernels())

    whole = run(function, inputs())
    monkeypatch.setattr(plain, "SCRATCH", scratch)
    assert len(blocks(Texts(RAGGED, RAGGED), HEADS)) > len(RAGGED)
    check(run(function, inputs()), whole)


def test_blocks_cover_each_head_of_each_text_once(monkeypatch):
    monkeypatch.setattr(plain, "SCRATCH", 2 * 33**2)
    seen = torch.zeros(TOKENS, 5)
    for asked, tokens, heads in blocks(Texts(RAGGED, RAGGED), 5):
        assert asked == tokens
        seen[tokens, heads] += 1
    inside = torch.zeros(TOKENS)
    for start, stop in RAGGED:
        inside[start:stop] = 1
    assert torch.equal(seen, inside.unsqueeze(1).expand_as(seen))


@pytest.mark.parametrize("tokens", [64, 128, 256])
@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_bf16_errs_no_more_than_scaled_dot_product_attention(kernels, tokens, size, scale):
    tensors = [t.bfloat16() for t in inputs(tokens, 12, size, scale)]
    spans, factor = [(0, tokens)], size**-0.5

    def stock(q, k, v):
        batch = (t.transpose(0, 1).unsqueeze(0) for t in (q, k, v))
        return F.scaled_dot_product_attention(*batch).squeeze(0).transpose(0, 1)

    exact = run(lambda q, k, v: reference(q, k, v, spans, factor), tensors, torch.float64)
    ours = run(
        lambda q, k, v: attend(q, k, v, spans, factor, 0.0, kernels), tensors, torch.bfloat16
    )
    theirs = run(stock, tensors, torch.bfloat16)
    for name, a, b, e in zip(("out", "dq", "dk", "dv"), ours, theirs, exact, strict=True):
        mine, its = ((t - e).square().mean().sqrt().item() for t in (a, b))
        assert mine <= its, f"{name}: {mine:.3e} against {its:.3e}, {mine / its - 1:+.2%}"


def explicit_masks(dropout, spans, heads, seed):
    """The masks (H, N, longest) that `attend` draws after manual_seed(seed), scaled."""
    torch.manual_seed(seed)
    longest = max(stop - start for start, stop in spans)
    draw = make_draw(dropout, row_ids(spans, TOKENS, heads), longest)
    return (keep_bits(draw, longest) != 0) * draw.scale


@pytest.mark.parametrize("dropout", [0.1, 0.5])
def test_dropout_equals_autograd_through_an_explicit_mask(kernels, dropout):
    def function(q, k, v):
        torch.manual_seed(4)
        return attend(q, k, v, RAGGED, 0.35, dropout, kernels)

    masks = explicit_masks(dropout, RAGGED, HEADS, seed=4)
    expected = run(lambda q, k, v: reference(q, k, v, RAGGED, 0.35, masks), inputs(), torch.float64)
    check(run(function, inputs()), expected)


def test_dropout_keeps_the_expectation(kernels):
    q, k, v, _ = inputs()
    exact = reference(q.double(), k.double(), v.double(), RAGGED, 0.35)
    torch.manual_seed(0)
    draws = torch.stack([attend(q, k, v, RAGGED, 0.35, 0.2, kernels).double() for _ in range(400)])
    inside = [i for start, stop in RAGGED for i in range(start, stop)]
    z = (draws.mean(0) - exact)[inside] / (draws.std(0)[inside] / 20)
    assert z.abs().max() < 5  # of 2,000 values
    assert 0.85 < z.std() < 1.15


def test_dropout_drops_at_its_rate(kernels):
    """With equal scores and one-hot values the output shows the mask itself."""
    tokens = 64
    q, v = torch.zeros(tokens, HEADS, tokens), torch.eye(tokens).unsqueeze(1)
    shown = attend(q, q, v.expand_as(q).contiguous(), [(0, tokens)], 1.0, 0.1, kernels) * tokens
    n, dropped = shown.numel(), (shown == 0).sum().item()
    assert abs(dropped - 0.1 * n) < 4.5 * (n * 0.09) ** 0.5
    torch.testing.assert_close(shown[shown != 0], torch.full((n - dropped,), 65536 / 58982))


def test_dropout_of_a_text_is_the_same_in_every_layout(kernels):
    tensors = inputs()[:3]
    stream, padded = [(0, 5), (5, 12)], [(0, 5), (40, 47)]
    places = torch.tensor([*range(5), *range(40, 47)])
    spread = [torch.zeros_like(t).index_copy(0, places, t[:12]) for t in tensors]
    torch.manual_seed(0)
    a = attend(*tensors, stream, 0.35, 0.3, kernels)[:12]
    torch.manual_seed(0)
    b = attend(*spread, padded, 0.35, 0.3, kernels)[places]
    assert torch.equal(a, b)


def test_ids_of_queries_are_text_head_and_position():
    ids = row_ids([(1, 3), (5, 6)], 7, 2)
    assert ids[0, [1, 2, 5]].tolist() == [0, 1, PLACES]
    assert (ids[1] - ids[0]).unique().tolist() == [PLACES << 20]


@pytest.mark.parametrize(("needs", "products"), [("qkv", 5), ("qv", 4), ("q", 3), ("v", 3)])
def test_gradient_that_nobody_needs_costs_no_product(monkeypatch, needs, products):
    q, k, v, grad = inputs()
    for name, tensor in zip("qkv", (q, k, v), strict=True):
        tensor.requires_grad_(name in needs)
    out = attend(q, k, v, [(0, TOKENS)], 0.35, 0.1, PlainKernels())
    calls, bmm = [], torch.bmm
    monkeypatch.setattr(torch, "bmm", lambda *given: calls.append(1) or bmm(*given))
    out.backward(grad)
    assert len(calls) == products


@pytest.mark.parametrize("needs", ["qkv", "qv", "q", "k", "v"])
def test_gradients_are_the_same_whichever_are_asked_for(kernels, needs):
    def grads(wanted):
        q, k, v, grad = inputs()
        for name, tensor in zip("qkv", (q, k, v), strict=True):
            tensor.requires_grad_(name in wanted)
        torch.manual_seed(0)
        attend(q, k, v, RAGGED, 0.35, 0.1, kernels).backward(grad)
        return dict(zip("qkv", (q.grad, k.grad, v.grad), strict=True))

    every, some = grads("qkv"), grads(needs)
    for name, grad in some.items():
        assert torch.equal(grad, every[name]) if name in needs else grad is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_strides_of_a_larger_tensor_change_nothing(kernels, dtype):
    """q, k and v as views of one projection, with tokens that begin on odd places, and in an order
    that no kernel takes."""
    whole = torch.randn(TOKENS, 3, HEADS, SIZE).to(dtype)
    q, k, v = whole.unbind(1)
    odd = [t.permute(1, 2, 0).contiguous().permute(2, 0, 1) for t in (q, k, v)]
    off = []
    for more in (1, 2):  # tokens an odd and an even number of elements apart
        wide = torch.zeros(3, TOKENS, HEADS * SIZE + more, dtype=dtype)[:, :, 1 : HEADS * SIZE + 1]
        off.append([*wide.unflatten(2, (HEADS, SIZE)).copy_(torch.stack([q, k, v]))])
    plain_ones = [t.contiguous() for t in (q, k, v)]
    grad = torch.randn(TOKENS, HEADS, SIZE)
    expected = run(lambda *t: attend(*t, RAGGED, 0.35, 0.0, kernels), [*plain_ones, grad], dtype)
    for given in ([q, k, v], *off, odd):
        leaves = [t.detach().requires_grad_() for t in given]
        out = attend(*leaves, RAGGED, 0.35, 0.0, kernels)
        out.backward(grad.to(dtype))
        found = [t.detach().double() for t in (out, *(leaf.grad for leaf in leaves))]
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)


def test_nothing_of_the_size_of_the_scores_is_kept_for_the_backward(kernels):
    q, k, v, _ = inputs(512)
    out = attend(q.requires_grad_(), k, v, [(0, 512)], 0.35, 0.1, kernels)
    assert max(t.numel() for t in out.grad_fn.saved_tensors) == q.numel() < 512**2


def test_autocast_does_not_reach_inside(kernels):
    tensors = inputs()
    function = lambda q, k, v: attend(q, k, v, RAGGED, 0.35, 0.0, kernels)  # noqa: E731
    plain = run(function, tensors)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert all(torch.equal(a, b) for a, b in zip(plain, run(function, tensors), strict=True))


def test_spans_are_found_where_the_real_tokens_stand_together():
    def spans(*rows, asking=3):
        return spans_of(torch.tensor(rows), asking)

    whole = [(0, 2), (4, 6), (6, 9)]
    assert spans([1, 1, 0], [0, 1, 1], [1, 1, 1]) == (whole, whole)
    assert spans([0, 1, 0]) == ([(1, 2)], [(1, 2)])
    assert spans([1, 1, 1], [1, 0, 1]) is None
    assert spans_of(torch.tensor([[True, True, False]]), 3) == ([(0, 2)], [(0, 2)])


def test_spans_of_the_last_columns_as_queries():
    mask = torch.tensor([[0, 1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 0], [1, 0, 0, 0]])
    keys, queries = spans_of(mask, 2)
    assert keys == [(1, 4), (4, 8), (8, 11), (12, 12)]  # the last row asks nothing
    assert queries == [(0, 2), (2, 4), (4, 5), (6, 6)]


CAUSAL = [
    ([(0, 7), (7, 8), (10, 43), (43, 45), (48, 83)], None),
    ([(0, 83)], None),
    ([(0, 300)], None),
    ([(0, 40), (40, 83)], [(0, 3), (3, 43)]),  # the first ones of each have no queries
]


@pytest.mark.parametrize(("spans", "queries"), CAUSAL)
@pytest.mark.parametrize(("heads", "groups"), [(3, 3), (6, 2), (4, 1)])
@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_causal_attention_with_shared_keys_equals_fp64_autograd(
    kernels, spans, queries, heads, groups, rate
):
    asked = spans if queries is None else queries
    keys, rows = spans[-1][1], asked[-1][1]
    q, _, _, grad = inputs(rows, heads, seed=1)
    tensors = [q, *inputs(keys, groups)[:2], grad]
    torch.manual_seed(4)
    draw = make_draw(rate, row_ids(asked, rows, heads), max(b - a for a, b in spans))
    masks = keep_bits(draw, max(b - a for a, b in spans)).bool() * draw.scale if rate else None

    def expected_of(q, k, v):
        k, v = (t.repeat_interleave(heads // groups, 1) for t in (k, v))
        out = torch.zeros_like(q)
        for (start, stop), (first, last) in zip(spans, asked, strict=True):
            Q, K, V = (t.transpose(0, 1) for t in (q[first:last], k[start:stop], v[start:stop]))
            scores = 0.35 * Q @ K.mT
            later = torch.ones(scores.shape[1:]).triu(scores.shape[2] - scores.shape[1] + 1)
            p = torch.softmax(scores.masked_fill(later.bool(), -torch.inf), -1)
            if masks is not None:
                p = p * masks[:, first:last, : stop - start]
            out = out.index_copy(0, torch.arange(first, last), (p @ V).transpose(0, 1))
        return out

    def found_of(q, k, v):
        torch.manual_seed(4)
        return attend(q, k, v, spans, 0.35, rate, kernels, queries, causal=True)

    check(run(found_of, tensors), run(expected_of, tensors, torch.float64))


@pytest.mark.parametrize("size", [32, 64, 80, 96, 128])
def test_head_sizes_of_decoders_are_exact(kernels, size):
    q, _, _, grad = inputs(70, 4, size, seed=1)
    tensors = [q, *inputs(70, 2, size)[:2], grad]
    scale = size**-0.5

    def expected_of(q, k, v):
        q, k, v = (t.transpose(0, 1) for t in (q, k, v))
        whole = {"is_causal": True, "scale": scale, "enable_gqa": True}
        return F.scaled_dot_product_attention(q, k, v, **whole).transpose(0, 1)

    found = run(
        lambda q, k, v: attend(q, k, v, [(0, 70)], scale, 0.0, kernels, causal=True), tensors
    )
    check(found, run(expected_of, tensors, torch.float64))


def test_what_comes_later_is_not_read(kernels):
    tensors = inputs()
    function = lambda q, k, v: attend(q, k, v, [(0, 83)], 0.35, 0.0, kernels, causal=True)  # noqa: E731
    before = run(function, tensors)[0]
    for tensor in tensors[1:3]:
        tensor[50:] *= 1000
    assert torch.equal(before[:50], run(function, tensors)[0][:50])


@pytest.mark.parametrize(("dtype", "error"), [(torch.float16, 2**-10), (torch.float64, 1e-5)])
def test_other_dtypes_are_worked_out_in_fp32(kernels, dtype, error):
    tensors = [t.to(dtype) for t in inputs()]
    expected = run(lambda q, k, v: reference(q, k, v, RAGGED, 0.35), tensors, torch.float64)
    found = run(lambda q, k, v: attend(q, k, v, RAGGED, 0.35, 0.0, kernels), tensors, dtype)
    for a, b in zip(found, expected, strict=True):
        assert ((a - b).norm() / b.norm()).item() < error
