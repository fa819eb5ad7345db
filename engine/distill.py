"""What a student minimises: distances from its teacher's answers, the labels, and its states.

    loss = weight * soft + (1 - weight) * hard + hidden * apart

    soft    T^2 * KL(teacher || student), both answers divided by the temperature T
    hard    the run's own loss, of the labels
    apart   1 - cosine of the mean state of each layer and that of the teacher's layer for it

Each is a sum over rows. T^2 keeps the gradient of `soft` as large as it is at T = 1 (Hinton,
Vinyals and Dean 2015, arXiv:1503.02531, section 2). Layers are compared by one vector a text, as
Sun et al. 2019 do (arXiv:1908.09355): the mean of its tokens, so that a teacher may cut texts into
other tokens, and its states are computed once.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from engine.losses import Batch, LossFn, at_least_fp32, logits_of

ReadHidden = Callable[[dict[str, Any]], Tensor]  # a batch's inputs -> (B, L, D), after a forward


def soft_loss(kind: str, student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """How far a student's logits (B, C) are from its teacher's (B, C), summed over the rows.

    For one class a row T^2 * KL(teacher || student). For several the same of each class alone, yes
    against no, and the mean over the classes. For a number, (B, 1) in the student's deviations, the
    squared difference, which knows no temperature.
    """
    student = at_least_fp32(student)
    teacher = teacher.to(student)
    if kind == "regression":
        return F.mse_loss(student, teacher, reduction="sum")
    student, teacher = student / temperature, teacher / temperature
    if kind == "single":
        own, wanted = student.log_softmax(-1), teacher.log_softmax(-1)  # (B, C)
        return temperature**2 * F.kl_div(own, wanted, reduction="sum", log_target=True)
    yes = teacher.sigmoid() * (F.logsigmoid(teacher) - F.logsigmoid(student))  # (B, C)
    no = (-teacher).sigmoid() * (F.logsigmoid(-teacher) - F.logsigmoid(-student))
    return temperature**2 * (yes + no).mean(-1).sum()


def states_apart(student: Tensor, teacher: Tensor) -> Tensor:
    """1 - cosine of each layer's vector (B, L, D) and its teacher's, the mean over the layers,
    summed over the rows."""
    student = at_least_fp32(student)
    cosine = F.cosine_similarity(student, teacher.to(student), dim=-1)  # (B, L)
    return (1 - cosine).mean(-1).sum()


def distill_loss(
    kind: str,
    loss_fn: LossFn,
    temperature: float,
    weight: float,
    hidden: float,
    read_hidden: ReadHidden | None,
) -> Callable[[nn.Module, Batch], Tensor]:
    """`compute_loss(model, batch)` of a batch that carries its teacher's answers: batch["teacher"]
    has logits (B, C), and hidden (B, L, D) where `read_hidden` reads the model's."""

    def compute_loss(model: nn.Module, batch: Batch) -> Tensor:
        teacher = batch["teacher"]
        logits = logits_of(model(**batch["inputs"]))  # (B, C)
        loss = weight * soft_loss(kind, logits, teacher["logits"], temperature)
        if weight < 1:
            loss = loss + (1 - weight) * loss_fn(logits, batch["labels"])
        if read_hidden is not None:
            loss = loss + hidden * states_apart(read_hidden(batch["inputs"]), teacher["hidden"])
        return loss

    return compute_loss


def describe_loss(kind: str, temperature: float, weight: float, hidden: float, hard: str) -> str:
    """The loss in a sentence; `hard` is that of the labels."""
    how = "squared distance" if kind == "regression" else f"KL at temperature {temperature:g}"
    parts = [f"{weight:g} x {how} from the teacher's answers"] if weight else []
    parts += [f"{1 - weight:g} x {hard}"] if weight < 1 else []
    parts += [f"{hidden:g} x (1 - cosine) of the layers' mean states"] if hidden else []
    return " + ".join(parts) + f"; evaluations: {hard}"
