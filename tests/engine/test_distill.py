"""A student's loss: equal to what is worked out by hand, and to torch's own KL in float64."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from engine.distill import describe_loss, distill_loss, soft_loss, states_apart
from engine.losses import binary_cross_entropy, cross_entropy, squared_error


def test_the_soft_loss_of_one_row_is_that_worked_out_by_hand():
    teacher, student = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 0.0]])
    # at T = 2 the teacher says 1 / (1 + 1/e) = 0.7311 and 0.2689, the student a half each
    high = 1 / (1 + math.exp(-1))
    expected = 4 * (high * math.log(high / 0.5) + (1 - high) * math.log((1 - high) / 0.5))
    assert soft_loss("single", student, teacher, 2.0).item() == pytest.approx(expected)
    assert expected == pytest.approx(0.44378, abs=1e-4)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_the_soft_loss_is_torchs_kl_of_the_shares(temperature):
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 5, 3, dtype=torch.float64)  # (B, C) each
    shares = (teacher / temperature).softmax(-1)
    own = (student / temperature).log_softmax(-1)
    expected = temperature**2 * F.kl_div(own, shares, reduction="sum")
    got = soft_loss("single", student, teacher, temperature)
    assert got.item() == pytest.approx(expected.item(), rel=1e-12)


def test_several_labels_are_each_a_choice_of_two():
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 5, 3, dtype=torch.float64)  # (B, C) each
    pairs = [torch.stack([logits, torch.zeros_like(logits)], -1) for logits in (student, teacher)]
    # sigmoid(x / T) is the softmax of (x, 0) / T
    expected = soft_loss("single", pairs[0].flatten(0, 1), pairs[1].flatten(0, 1), 2.0) / 3
    assert soft_loss("multi", student, teacher, 2.0).item() == pytest.approx(expected.item())


def test_large_logits_of_several_labels_stay_finite():
    student = torch.tensor([[200.0, -200.0]], requires_grad=True)
    loss = soft_loss("multi", student, -student.detach(), 1.0)
    loss.backward()
    assert loss.item() == pytest.approx(200.0)
    assert torch.isfinite(student.grad).all()


def test_a_number_is_as_far_off_as_its_square_says():
    student, teacher = torch.tensor([[1.0], [2.0]]), torch.tensor([[1.5], [0.0]])
    assert soft_loss("regression", student, teacher, 7.0).item() == pytest.approx(4.25)


@pytest.mark.parametrize("kind", ["single", "multi", "regression"])
def test_a_student_that_answers_as_its_teacher_has_no_loss_and_no_gradient(kind):
    logits = torch.randn(4, 1 if kind == "regression" else 3, requires_grad=True)
    loss = soft_loss(kind, logits, logits.detach().clone(), 2.0)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert torch.allclose(logits.grad, torch.zeros_like(logits), atol=1e-6)


def test_the_temperature_leaves_the_size_of_the_gradient_alone():
    def gradient(temperature):
        student = torch.tensor([[0.1, -0.1]], requires_grad=True)
        soft_loss("single", student, torch.tensor([[0.2, -0.1]]), temperature).backward()
        return student.grad.norm().item()

    assert gradient(50.0) == pytest.approx(gradient(1.0), rel=0.05)


def test_states_are_apart_by_their_direction_alone():
    student = torch.tensor([[[1.0, 0.0], [3.0, 0.0]], [[0.0, 2.0], [1.0, 0.0]]])  # (B, L, D)
    teacher = torch.tensor([[[5.0, 0.0], [0.0, 1.0]], [[0.0, -1.0], [1.0, 0.0]]])
    # the rows: (0 + 1) / 2 and (2 + 0) / 2
    assert states_apart(student, teacher).item() == pytest.approx(1.5)


class Passes(nn.Module):
    def forward(self, logits):
        return logits


HARD = {
    "single": (cross_entropy, torch.tensor([0, 2])),
    "multi": (binary_cross_entropy, torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]])),
    "regression": (squared_error, torch.tensor([0.5, -1.0], dtype=torch.float64)),
}


@pytest.mark.parametrize("kind", HARD)
def test_the_parts_are_weighed_and_summed(kind):
    loss_fn, labels = HARD[kind]
    logits, wanted = torch.randn(2, 2, 1 if kind == "regression" else 3)
    hidden, theirs = torch.randn(2, 2, 3, 4)  # (B, L, D) each
    batch = {
        "inputs": {"logits": logits}, "labels": labels,
        "teacher": {"logits": wanted, "hidden": theirs},
    }  # fmt: skip
    compute = distill_loss(kind, loss_fn, 3.0, 0.3, 0.2, lambda inputs: hidden)
    expected = 0.3 * soft_loss(kind, logits, wanted, 3.0) + 0.7 * loss_fn(logits, labels)
    expected += 0.2 * states_apart(hidden, theirs)
    assert compute(Passes(), batch).item() == pytest.approx(expected.item(), rel=1e-6)


def test_with_all_weight_on_the_teacher_no_label_is_read():
    batch = {
        "inputs": {"logits": torch.zeros(2, 2)}, "labels": None,
        "teacher": {"logits": torch.zeros(2, 2)},
    }  # fmt: skip
    assert distill_loss("single", cross_entropy, 2.0, 1.0, 0.0, None)(Passes(), batch) == 0


def test_the_sentence_names_the_parts_that_count():
    assert describe_loss("single", 2.0, 1.0, 0.0, "cross-entropy") == (
        "1 x KL at temperature 2 from the teacher's answers; evaluations: cross-entropy"
    )
    assert "1 - cosine" in describe_loss("regression", 2.0, 0.5, 1.0, "squared error")
