"""Area under the ROC curve and average precision from counts: integers in bins of the score, so
that memory does not grow with the rows, parts can be added up, and no order of rows matters.

A score is the logit of a class's probability, log(p / (1 - p)): probabilities near 0 and 1, which
fp32 would round to one number, stay apart. Bins are even in asinh(4096 * logit). Up to 16 classes
have 65,536 of them, 1e-7 wide around a logit of 0, where a model is that has hardly learnt, and
0.04 % of the logit from 0.001 on; 100 classes have 8,192, eight times as wide.

The figures are those of scikit-learn on the numbers of the bins: rows in one bin count as equal.
So they are exact where no bin holds rows of both sides, but for average precision, which also wants
rows of a class in bins of their own. Else the area is off by at most half the share of pairs, one
row of each side, that a bin holds together. On 2,000 rows whose logits spread by 0.0001 or more
both are off by less than 0.002 (tests).
"""

import math
from typing import Any

import torch
from torch import Tensor

MOST_BINS = 65_536
MOST_COUNTS = 1 << 20  # bins of all classes together: 16 MiB, with those of the others
LIMIT = 88.0  # logits beyond are in the last bin: probabilities that fp32 cannot tell from 0 or 1
STRETCH = 4096.0
MOST_CURVES = 100  # classes


class CurveCounter:
    """For each of C classes, rows of it and all others by the bin of their score."""

    def __init__(self, num_labels: int, device: torch.device):
        self.num_labels = num_labels
        self.bins = min(MOST_BINS, 1 << (MOST_COUNTS // num_labels).bit_length() - 1)
        # of the others, then of the class: (2 * C * bins,)
        self.counts = torch.zeros(2 * num_labels * self.bins, dtype=torch.int64, device=device)

    def update(self, scores: Tensor, held: Tensor) -> None:
        """Count a batch: scores (B, C), logits of probabilities, and whether a class holds (B, C).
        No host sync."""
        columns = torch.arange(self.num_labels, device=scores.device)
        places = (held.long() * self.num_labels + columns) * self.bins  # (B, C)
        places += bins_of(scores, self.bins)
        self.counts.index_add_(0, places.flatten(), torch.ones_like(places).flatten())

    def by_class(self) -> list[dict[str, float]]:
        """ "auroc" and "average_precision" of each class against the rest; nothing for a class that
        all rows have, or none: neither is defined there."""
        rest, own = self.counts.cpu().view(2, self.num_labels, self.bins)
        return [curve_figures(*counts) for counts in zip(own, rest, strict=True)]


def bins_of(scores: Tensor, bins: int) -> Tensor:
    """The bin of each logit, int64 of the same shape. What is no number counts as 0."""
    scores = scores.nan_to_num(nan=0.0, posinf=LIMIT, neginf=-LIMIT)
    place = (scores * STRETCH).asinh() / math.asinh(LIMIT * STRETCH)  # -1 to 1
    return ((place + 1) * (bins / 2)).long().clamp(0, bins - 1)


def logits_of_classes(logits: Tensor) -> Tensor:
    """log(p / (1 - p)) of each class's probability, (B, C) float64, from the logits of a softmax:
    each less the logarithm of the sum of the others' exponentials.

    float64, so that no way of cutting rows into batches moves a score to another bin; float32
    where a device has no other.
    """
    logits = widest(logits)
    log_p = logits.log_softmax(dim=-1)  # (B, C)
    scores = log_p - (-log_p.expm1()).log()
    best, place = logits.max(dim=-1, keepdim=True)  # whose 1 - p can round to 0
    others = logits.scatter(-1, place, -torch.inf).logsumexp(dim=-1, keepdim=True)  # (B, 1)
    return scores.scatter(-1, place, best - others)


def widest(logits: Tensor) -> Tensor:
    """float64, on MPS, which has none, float32."""
    return logits.float() if logits.device.type == "mps" else logits.double()


def curve_figures(own: Tensor, rest: Tensor) -> dict[str, float]:
    """Both figures of one class, from its rows and all others by bin, (bins,) int64 each; nothing
    where one of them has no rows.

    The area is the share of pairs whose own row has the higher score, equals counting half (Mann
    and Whitney 1947). Average precision is the sum over the bins, the highest first, of the recall
    gained there times the precision so far, as scikit-learn has it.
    """
    positives, negatives = int(own.sum()), int(rest.sum())
    if not positives or not negatives:
        return {}
    below = rest.cumsum(0) - rest
    twice = int((own * (2 * below + rest)).sum())
    hits, taken = own.flip(0).cumsum(0).double(), (own + rest).flip(0).cumsum(0).clamp(min=1)
    gained = (own.flip(0) * hits / taken).sum().item()
    return {
        "auroc": twice / (2 * positives * negatives),
        "average_precision": gained / positives,
    }


def macro_curves(by_class: list[dict[str, float]]) -> dict[str, Any]:
    """The mean over the classes for which there are figures; nothing where there is none."""
    known = [figures for figures in by_class if figures]
    if not known:
        return {}
    return {
        name: sum(figures[name] for figures in known) / len(known)
        for name in ("auroc", "average_precision")
    }
