"""The loss of a language model in chunks is the plain one, in value and in every gradient."""

import pytest
import torch
from torch.nn import functional as F

from engine.tokens import choose_learned, even_chunks, score_tokens, token_losses

N, D, V = 13, 8, 31
FORMS = {
    "plain": {},
    "bias": {"bias": True},
    "softcap": {"softcap": 3.0},
    "scale": {"scale": 0.25},
    "smoothing": {"smoothing": 0.1},
    "all": {"bias": True, "softcap": 2.0, "scale": 1.5, "smoothing": 0.2},
}
forms = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)


def make(dtype, bias=False, **form):
    """Arguments of token_losses; what it is given learns."""
    draw = torch.Generator().manual_seed(1)

    def leaf(*shape):
        return torch.randn(*shape, generator=draw, dtype=dtype).requires_grad_()

    hidden, weight = leaf(N, D), leaf(V, D)
    offsets = leaf(V) if bias else None
    targets = torch.randint(V, (N,), generator=draw)
    return (hidden, weight, offsets, targets), form


def plain(hidden, weight, bias, targets, softcap=None, scale=1.0, smoothing=0.0):
    """The same by torch alone, with all of the logits."""
    logits = scale * F.linear(hidden, weight, bias)
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return F.cross_entropy(logits, targets, reduction="sum", label_smoothing=smoothing)


def gradients(loss, arguments):
    leaves = [t for t in arguments[:3] if t is not None and t.requires_grad]
    return torch.autograd.grad(loss / 7, leaves)  # as the engine does: over the items of a window


@forms
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-10)])
@pytest.mark.parametrize("chunk", [1, 4, 13, None])
def test_value_and_gradients_are_those_of_the_plain_loss(form, dtype, tolerance, chunk):
    arguments, options = make(dtype, **form)
    ours, theirs = token_losses(*arguments, chunk=chunk, **options), plain(*arguments, **options)
    assert ours.dtype == dtype
    assert ours.item() == pytest.approx(theirs.item(), rel=tolerance)
    for got, wanted in zip(gradients(ours, arguments), gradients(theirs, arguments), strict=True):
        assert (got - wanted).abs().max() <= tolerance * wanted.abs().max()


@forms
def test_gradcheck(form):
    arguments, options = make(torch.float64, **form)
    hidden, weight, bias, targets = arguments

    def loss(*leaves):
        offsets = leaves[2] if bias is not None else None
        return token_losses(leaves[0], leaves[1], offsets, targets, chunk=5, **options)

    assert torch.autograd.gradcheck(loss, [t for t in (hidden, weight, bias) if t is not None])


def test_a_frozen_head_gets_no_gradient_and_hidden_the_same():
    arguments, _ = make(torch.float64)
    hidden, weight, _, targets = arguments
    (both, _) = gradients(token_losses(*arguments), arguments)
    loss = token_losses(hidden, weight.detach(), None, targets)
    (held,) = [t for t in loss.grad_fn.saved_tensors if t is not None]
    assert held.shape == hidden.shape  # nothing as large as the weight waits for backward
    (alone,) = torch.autograd.grad(loss / 7, [hidden])
    assert torch.equal(both, alone)


def test_a_frozen_trunk_gives_the_head_its_gradient_all_the_same():
    arguments, _ = make(torch.float64)
    hidden, weight, _, targets = arguments
    (_, both) = gradients(token_losses(*arguments), arguments)
    (alone,) = torch.autograd.grad(
        token_losses(hidden.detach(), weight, None, targets) / 7, [weight]
    )
    assert torch.equal(both, alone)


def test_a_second_backward_gives_the_same():
    arguments, _ = make(torch.float32)
    loss = token_losses(*arguments)
    first = torch.autograd.grad(loss, [arguments[0]], retain_graph=True)
    assert torch.equal(first[0], torch.autograd.grad(loss, [arguments[0]])[0])


def test_a_window_without_a_learned_token_has_loss_and_gradients_zero():
    (hidden, weight, _, _), _ = make(torch.float32)
    loss = token_losses(hidden[:0], weight, None, torch.zeros(0, dtype=torch.int64))
    loss.backward()
    assert loss.item() == 0
    assert not weight.grad.any()
    assert not hidden.grad.any()


@pytest.mark.parametrize("exact", [True, False], ids=["fp32 weight", "bf16 weight"])
def test_autocast_multiplies_in_bf16_and_sums_in_fp32(exact):
    (hidden, weight, _, targets), _ = make(torch.float32)
    if not exact:  # frozen, and kept as its products want it
        weight = weight.detach().to(torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = token_losses(hidden, weight, None, targets, chunk=5)
        theirs = F.cross_entropy(F.linear(hidden, weight).float(), targets, reduction="sum")
    assert ours.dtype == torch.float32
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-6)  # the same bf16 logits
    (got,), (wanted,) = (torch.autograd.grad(loss, [hidden]) for loss in (ours, theirs))
    assert got.dtype == torch.float32
    assert (got - wanted).abs().max() <= 2**-6 * wanted.abs().max()  # bf16 rounds to 2^-8


def test_a_learned_token_near_certainty_keeps_its_small_gradient_in_bf16():
    # the probability less one has to be taken before it is rounded
    hidden = torch.full((1, 4), 1.0, requires_grad=True)
    weight = torch.zeros(8, 4)
    weight[3] = 1.8
    targets = torch.tensor([3])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (got,) = torch.autograd.grad(token_losses(hidden, weight, None, targets), [hidden])
    (wanted,) = torch.autograd.grad(plain(hidden, weight, None, targets), [hidden])
    assert torch.allclose(got, wanted, rtol=0.1)


def test_memory_does_not_hold_the_logits(monkeypatch):
    shapes = []
    product = torch.mm

    def watch(left, right):
        out = product(left, right)
        shapes.append(out.shape)
        return out

    monkeypatch.setattr("engine.tokens.torch.mm", watch)
    arguments, _ = make(torch.float32)
    token_losses(*arguments, chunk=5).backward()
    assert max(shape[0] for shape in shapes if shape[1] == V) == 5


@forms
def test_scores_are_the_losses_and_what_is_right_row_by_row(form):
    arguments, options = make(torch.float64, **form)
    losses, right = score_tokens(*arguments, chunk=4, **options)
    for row in range(N):
        one = (arguments[0][row : row + 1], *arguments[1:3], arguments[3][row : row + 1])
        assert losses[row].item() == pytest.approx(plain(*one, **options).item(), abs=1e-12)
    logits = F.linear(*arguments[:3])
    assert right.tolist() == (logits.argmax(1) == arguments[3]).tolist()
    with torch.no_grad():  # no gradient is asked for: none is worked out
        assert token_losses(*arguments, **options).item() == pytest.approx(losses.sum().item())


def test_chunks_are_even_and_cover_all_rows():
    sizes = [part.stop - part.start for part in even_chunks(700, 49_152)]
    assert sum(sizes) == 700
    assert len(sizes) == 2
    assert max(sizes) - min(sizes) <= 1
    assert len(list(even_chunks(3, 2**30))) == 3  # a row at least
    assert list(even_chunks(0, 10)) == []


def test_learned_rows_are_those_whose_label_is_kept():
    hidden = torch.arange(24.0).view(2, 4, 3)
    labels = torch.tensor([[-100, 5, -100, 7], [-100, -100, 2, -100]])
    rows, targets = choose_learned(hidden, labels)
    assert targets.tolist() == [5, 7, 2]
    assert rows.tolist() == hidden[[0, 0, 1], [1, 3, 2]].tolist()
    given = choose_learned(hidden, labels, torch.tensor([1, 3, 6]))
    assert torch.equal(given[0], rows)
    assert torch.equal(given[1], targets)


def test_places_from_the_host_leave_no_question_for_the_device():
    meta = torch.device("meta")  # which has no answers to give
    hidden, labels = (
        torch.empty(2, 4, 3, device=meta),
        torch.empty(2, 4, dtype=torch.int64, device=meta),
    )
    rows, targets = choose_learned(hidden, labels, torch.empty(3, dtype=torch.int64, device=meta))
    assert rows.shape == (3, 3)
    assert targets.shape == (3,)
