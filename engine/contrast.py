"""What draws texts of one class together, and those of two apart: a loss on pairs of vectors.

    loss = (1 - weight) * labels + weight * pairs

    labels  the run's own loss of each row
    pairs   (cos(u, v) - same)^2 of the vectors u and v of a pair, same 1 for one class, else 0

SetFit's first stage (Tunstall et al. 2022, arXiv:2209.11055), whose loss is that of Reimers and
Gurevych 2019 (arXiv:1908.10084, section 3). Both parts are sums over rows: each row of a pair
counts what the pair does, so that divided by the rows the second is the mean over the pairs.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from engine.losses import Batch, at_least_fp32


def pair_loss(vectors: Tensor, labels: Tensor) -> Tensor:
    """Twice the sum over pairs of (cos - same)^2. vectors (B, D), labels (B,) int64, rows 2i and
    2i + 1 a pair."""
    assert len(labels) % 2 == 0
    vectors = at_least_fp32(vectors)
    same = (labels[0::2] == labels[1::2]).to(vectors)  # (B / 2,)
    cosine = F.cosine_similarity(vectors[0::2], vectors[1::2], dim=-1)
    return 2 * (cosine - same).square().sum()


def contrast_loss(
    label_loss: Callable[[nn.Module, Batch], Tensor],
    weight: float,
    read_vectors: Callable[[], Any],
) -> Callable[[nn.Module, Batch], Tensor]:
    """`compute_loss(model, batch)` of batches of pairs. `label_loss` runs the model; after it
    `read_vectors` gives the vectors (B, D) of that pass."""

    def compute_loss(model: nn.Module, batch: Batch) -> Tensor:
        labels = label_loss(model, batch)
        return (1 - weight) * labels + weight * pair_loss(read_vectors(), batch["labels"])

    return compute_loss


def describe_loss(weight: float, labels: str) -> str:
    """The loss in a sentence; `labels` is that of the labels."""
    return f"{weight:g} x (cosine - same class)^2 of pairs + {1 - weight:g} x ({labels})"
