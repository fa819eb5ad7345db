"""Regression targets: a model learns and answers in standard deviations, people see their own unit.

A head starts near 0 and moves by small steps, so labels far from 0, or far apart, would never be
reached. The mean and deviation stand beside the model and not in its weights: a last layer in bf16
keeps three digits, too few for a price or a year.
"""

import math
from dataclasses import dataclass

import numpy as np
from torch import Tensor


@dataclass(frozen=True)
class Target:
    """Mean and standard deviation of the labels a model was trained on; the identity by default."""

    mean: float = 0.0
    deviation: float = 1.0

    def standardise(self, labels: Tensor) -> Tensor:
        """Labels in the user's unit -> deviations from the mean; same shape, float64."""
        return (labels.double() - self.mean) / self.deviation

    def restore(self, logits: Tensor) -> Tensor:
        """A model's deviations from the mean -> the user's unit; same shape, float64."""
        return logits.double() * self.deviation + self.mean


IDENTITY = Target()


def measure_target(labels: np.ndarray) -> Target:
    """Mean and population standard deviation of labels (N,) float64, N > 0.

    Labels all alike have the deviation 1: there is nothing to scale by. Raises ValueError where the
    labels lie further apart than a float64 can tell.
    """
    origin = float(labels[0])  # from a label on, nothing cancels: all alike gives exactly 0
    with np.errstate(over="ignore"):
        apart = labels - origin
    reach = float(np.abs(apart).max())
    if reach == 0:
        return Target(origin, 1.0)
    if not math.isfinite(reach):
        raise ValueError(
            f"data.label: the training labels reach from {labels.min():.4g} to "
            f"{labels.max():.4g}, too far apart to take their mean; expected numbers below 1e300: "
            "correct those rows, or give the labels in another unit"
        )
    unit = apart / reach  # in [-1, 1]: no square of it is too large or too small
    mean = float(unit.mean())
    deviation = math.sqrt(float(np.square(unit - mean).mean()))
    return Target(origin + reach * mean, reach * deviation or 1.0)
