"""The loss on pairs: as worked out by hand, as torch's autograd has it in float64, and exact under
accumulation."""

import math

import pytest
import torch
from torch import nn

from engine.contrast import contrast_loss, describe_loss, pair_loss
from engine.losses import count_items, cross_entropy, loss_from_logits


def test_the_loss_of_two_pairs_is_that_worked_out_by_hand():
    vectors = torch.tensor([[3.0, 0.0], [3.0, 3.0], [0.0, 2.0], [1.0, 1.0]])
    labels = torch.tensor([1, 1, 0, 1])
    # both at 45 degrees, cos 1/sqrt(2): one pair should be at 1, the other at 0
    near, far = (1 / math.sqrt(2) - 1) ** 2, 0.5
    assert pair_loss(vectors, labels).item() == pytest.approx(2 * (near + far))
    assert pair_loss(vectors, labels).item() / 4 == pytest.approx((near + far) / 2)  # of the pairs


def test_the_loss_and_its_gradient_are_those_of_the_equation_in_float64():
    torch.manual_seed(0)
    vectors = torch.randn(6, 5, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 0, 1, 2, 2, 0])
    terms = []
    for i in (0, 2, 4):
        u, v = vectors[i], vectors[i + 1]
        cosine = (u * v).sum() / ((u * u).sum() * (v * v).sum()).sqrt()
        terms.append(2 * (cosine - float(labels[i] == labels[i + 1])) ** 2)
    (expected,) = torch.autograd.grad(sum(terms), vectors)
    loss = pair_loss(vectors, labels)
    (got,) = torch.autograd.grad(loss, vectors)
    assert loss.item() == pytest.approx(sum(terms).item(), rel=1e-12)
    assert torch.allclose(got, expected, rtol=1e-10, atol=1e-14)


def test_vectors_of_half_precision_are_compared_in_full():
    vectors = torch.randn(4, 384, generator=torch.Generator().manual_seed(0)).bfloat16()
    labels = torch.tensor([0, 0, 0, 1])
    loss = pair_loss(vectors, labels)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(pair_loss(vectors.double(), labels).item(), rel=1e-5)


class Model(nn.Module):
    """A layer that makes vectors (B, 4), and one that answers from them."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Linear(7, 4)
        self.out = nn.Linear(4, 3)

    def forward(self, x):
        self.vectors = self.embed(x)
        return self.out(self.vectors)


def make_batch(first, last):
    torch.manual_seed(1)
    x, labels = torch.randn(12, 7), torch.arange(12) // 3 % 3
    return {"inputs": {"x": x[first:last]}, "labels": labels[first:last]}


def gradients(weight, batches):
    model = Model().double()
    for batch in batches:
        batch["inputs"]["x"] = batch["inputs"]["x"].double()
    compute = contrast_loss(loss_from_logits(cross_entropy), weight, lambda: model.vectors)
    items = sum(map(count_items, batches))
    for batch in batches:
        (compute(model, batch) / items).backward()
    return [p.grad for p in model.parameters()]


@pytest.mark.parametrize("weight", [0.3, 0.99])
def test_micro_batches_of_pairs_add_up_to_the_gradient_of_all_pairs_at_once(weight):
    whole = gradients(weight, [make_batch(0, 12)])
    parts = gradients(weight, [make_batch(0, 4), make_batch(4, 10), make_batch(10, 12)])
    for one, other in zip(whole, parts, strict=True):
        assert one.abs().max() > 0
        assert torch.allclose(one, other, rtol=1e-12, atol=1e-15)


def test_the_weight_shares_the_loss_between_pairs_and_labels():
    model, batch = Model(), make_batch(0, 12)
    vectors = model.embed(batch["inputs"]["x"])
    labels = loss_from_logits(cross_entropy)(model, batch).item()
    pairs = pair_loss(vectors, batch["labels"]).item()
    label_loss = loss_from_logits(cross_entropy)
    got = contrast_loss(label_loss, 0.25, lambda: model.vectors)(model, batch)
    assert got.item() == pytest.approx(0.75 * labels + 0.25 * pairs, rel=1e-6)
    assert "0.25 x (cosine - same class)^2 of pairs + 0.75 x (labels)" in describe_loss(
        0.25, "labels"
    )
