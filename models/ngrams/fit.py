"""The weights of a bag of n-grams at their optimum: all rows at once, nothing drawn.

    minimise  1/N * (sum of the losses of X W + b  +  |W|^2 / (2 strength))

With one row of X a text, of length 1. The path begins with weights that are held back much; each
strength starts from the weights of the one before, and the best on held-out rows stays.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from models.ngrams.bag import NgramBag

STRENGTHS = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)  # the larger, the less the weights are held back
MOST_STEPS = 40  # of a strength
HISTORY = 6  # steps that L-BFGS remembers, each as large as the weights


@dataclass(frozen=True)
class Terms:
    """Texts as a sparse matrix: buckets and counts (n,), one text's behind the other's, and how
    many each text has, lengths (N,), all int64."""

    buckets: Tensor
    counts: Tensor
    lengths: Tensor


def join_terms(parts: Sequence[Terms]) -> Terms:
    """The texts of all parts, one part's behind the other's."""
    return Terms(
        torch.cat([part.buckets for part in parts]),
        torch.cat([part.counts for part in parts]),
        torch.cat([part.lengths for part in parts]),
    )


def fit_bag(
    bag: NgramBag,
    train: Terms,
    train_loss: Callable[[Tensor], Tensor],
    held_out: Terms,
    held_out_loss: Callable[[Tensor], Tensor],
    check: Callable[[], None] = lambda: None,
) -> float:
    """Put the best weights into a bag whose idf is there; the strength that gave them.

    Both losses take logits (N, C) of their rows and give a sum. `check` is called now and then, to
    end it all by an error of its own. Raises ValueError where the loss of held-out rows is no
    number.
    """
    best, least, kept = STRENGTHS[0], float("inf"), list[Tensor]()
    products = Products(bag, train)
    weight = torch.zeros(len(products.met), bag.weight.shape[1], requires_grad=True)
    bias = torch.zeros_like(bag.bias, requires_grad=True)
    for strength in STRENGTHS:
        minimise(weight, bias, products, train_loss, strength, check)
        with torch.no_grad():
            bag.weight[products.met], bag.bias[:] = weight, bias
            logits = bag.answer(held_out.buckets, held_out.counts, held_out.lengths)
            loss = float(held_out_loss(logits))
        if not math.isfinite(loss):
            raise ValueError(f"the loss of held-out rows is {loss} at strength {strength:g}")
        if loss >= least:
            break  # it only gets worse from here on
        best, least = strength, loss
        kept = [weight.detach().clone(), bias.detach().clone()]
    with torch.no_grad():
        bag.weight[products.met], bag.bias[:] = kept
    return best


class Products:
    """X W and X^T G over the buckets that are `met` (M,), in whose places W has its rows. Each sum
    goes in an order of its own: the same bits by any number of threads."""

    def __init__(self, bag: NgramBag, terms: Terms) -> None:
        self.weights = bag.term_weights(terms.buckets, terms.counts, terms.lengths)  # (n,)
        self.starts = terms.lengths.cumsum(0) - terms.lengths  # (N,)
        self.met, self.places = terms.buckets.unique(return_inverse=True)  # (M,), (n,)
        order = self.places.argsort(stable=True)
        self.rows = torch.repeat_interleave(terms.lengths)[order]  # (n,)
        self.sorted_weights = self.weights[order]
        filled = torch.bincount(self.places, minlength=len(self.met))
        self.met_starts = filled.cumsum(0) - filled  # (M,)

    def times(self, weight: Tensor) -> Tensor:
        """(M, C) -> (N, C)."""
        return F.embedding_bag(
            self.places, weight, self.starts, mode="sum", per_sample_weights=self.weights
        )

    def transposed_times(self, gradient: Tensor) -> Tensor:
        """(N, C) -> (M, C)."""
        return F.embedding_bag(
            self.rows, gradient, self.met_starts, mode="sum",
            per_sample_weights=self.sorted_weights,
        )  # fmt: skip


def minimise(
    weight: Tensor, bias: Tensor, products: Products, loss_of: Callable[[Tensor], Tensor],
    strength: float, check: Callable[[], None],
) -> None:  # fmt: skip
    """Move weight (M, C) and bias (C,) to the optimum of one strength, by L-BFGS."""
    count = len(products.starts)

    def objective() -> Tensor:
        check()
        held = weight.detach()
        logits = (products.times(held) + bias.detach()).requires_grad_()
        with torch.enable_grad():
            loss = loss_of(logits)
        (gradient,) = torch.autograd.grad(loss, logits)
        weight.grad = (products.transposed_times(gradient) + held / strength) / count
        bias.grad = gradient.sum(0) / count
        return (loss.detach() + held.square().sum() / (2 * strength)) / count

    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=MOST_STEPS, history_size=HISTORY, tolerance_grad=1e-7,
        tolerance_change=1e-9, line_search_fn="strong_wolfe",
    )  # fmt: skip
    optimizer.step(objective)
