"""Places drawn at random: counted, so that number n is the same whatever was drawn before."""

from collections.abc import Sequence

import numpy as np

from job.tuning.space import RATE, Dimension, Place, Value

KEPT = 0.5  # how often a choice stays the recipe's own


def draw_place(space: Sequence[Dimension], seed: int, number: int, again: int = 0) -> Place:
    """The place of trial `number`; `again` counts how often one was drawn that could not be used.
    Rates are always drawn. Of the others each stays as the recipe has it half of the time: with few
    trials, what is near it is worth more than what is far in all directions."""
    key = np.array([seed, number << 32 | again], dtype=np.uint64)
    numbers = np.random.Philox(key=key).random_raw(2 * len(space)) / 2**64
    place: dict[str, Value] = {}
    for dimension, keep, unit in zip(space, numbers[::2], numbers[1::2], strict=True):
        if dimension.key != RATE and keep < KEPT and len(space) > 1:
            place[dimension.key] = None
        elif dimension.choices:
            place[dimension.key] = dimension.choices[int(unit * len(dimension.choices))]
        else:
            place[dimension.key] = float(unit)
    return place
