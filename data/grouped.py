"""Cuts that keep groups whole: all rows of a film, a patient, an author stand on one side.

A model that has seen a film's other reviews knows its actors, and is measured too well on the rest.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from data.splits import seeded_order

MOST_CLASSES = 100  # whose shares are held; rarer ones are counted together
MOST_MOVES = 1000  # of single groups after the first choice


def cut_groups(
    groups: Sequence[str], classes: np.ndarray | None, sizes: Mapping[str, int], seed: int
) -> dict[str, np.ndarray]:
    """Cut the hold-outs `sizes` (name -> rows) from the rows of `groups` (rows,), whole groups at a
    time; what is left is "train". Indices come sorted.

    With `classes` (rows,) each hold-out comes as near to the classes' proportions as whole groups
    allow, and no class loses its last group of training rows. Raises ValueError where no group fits
    into a hold-out.
    """
    names: dict[str, int] = {}
    member = np.array([names.setdefault(group, len(names)) for group in groups])
    counts = _count_classes(member, len(names), classes)  # (G, C) rows of a class in a group
    side = np.full(len(names), -1)  # of each group; -1 is train
    for i, (name, size) in enumerate(sizes.items()):
        free = np.flatnonzero(side < 0)
        order = free[np.argsort(seeded_order(len(names), seed, i)[free], kind="stable")]
        if size >= counts[free].sum():
            raise ValueError(
                f"data.{name}: {size} rows asked for, and {counts[free].sum()} are left to cut "
                "them from"
            )
        chosen = _choose(counts[order], size)
        if not chosen.any():
            smallest = counts[order].sum(axis=1).min()
            raise ValueError(
                f"data.group: no group fits into the {size} rows of data.{name}: the smallest of "
                f"{len(order)} has {smallest}; ask for more rows, or name a column with smaller "
                "groups"
            )
        side[order[chosen]] = i
    rows = side[member]
    parts = {name: np.flatnonzero(rows == i) for i, name in enumerate(sizes)}
    return {**parts, "train": np.flatnonzero(rows < 0)}


def _count_classes(member: np.ndarray, groups: int, classes: np.ndarray | None) -> np.ndarray:
    """(G, C) rows of each class in each group; rare classes share a column."""
    if classes is None:
        return np.bincount(member, minlength=groups)[:, None]
    _, column, rows = np.unique(classes, return_inverse=True, return_counts=True)
    place = np.empty(len(rows), dtype=np.int64)
    place[np.argsort(-rows, kind="stable")] = np.minimum(np.arange(len(rows)), MOST_CLASSES)
    counts = np.zeros((groups, place.max() + 1), dtype=np.int64)
    np.add.at(counts, (member, place[column]), 1)
    return counts


def _choose(counts: np.ndarray, size: int) -> np.ndarray:
    """(G,) whether each group, of `counts` (G, C), goes into a hold-out of about `size` rows.

    Groups are taken in their order while they fit. Then single ones are put in, taken out or
    exchanged as long as that brings the classes nearer to their shares.
    """
    whole = counts.sum(axis=0)
    target = whole * (size / whole.sum())  # (C,)
    chosen = np.zeros(len(counts), dtype=bool)
    taken = np.zeros_like(whole)
    for g, rows in enumerate(counts):
        if (taken + rows <= target).all() and _leaves_all(whole - taken, rows):
            chosen[g] = True
            taken = taken + rows
    for _ in range(MOST_MOVES):
        move = _best_move(counts, chosen, taken, target)
        if move is None:
            break
        chosen[move] = ~chosen[move]
        taken = counts[chosen].sum(axis=0)
    return chosen


def _leaves_all(rest: np.ndarray, rows: np.ndarray) -> np.ndarray | bool:
    """Whether each class that `rest` (C,) has keeps a row without `rows` (C,) or (G, C)."""
    left: np.ndarray = ((rest - rows > 0) | (rest == 0)).all(axis=-1)
    return left


def _best_move(
    counts: np.ndarray, chosen: np.ndarray, taken: np.ndarray, target: np.ndarray
) -> list[int] | None:
    """The group, or the two, whose change of side brings `taken` nearest to `target`; None where
    nothing does."""
    inside, outside = np.flatnonzero(chosen), np.flatnonzero(~chosen)
    rest = counts.sum(axis=0) - taken
    outside = outside[_leaves_all(rest, counts[outside])]
    best, move = float(np.abs(taken - target).sum()), None
    for groups, sign in ((outside, 1), (inside, -1)):
        if len(groups) and not (sign < 0 and len(inside) == 1):
            distances = np.abs(taken + sign * counts[groups] - target).sum(axis=1)
            if distances.min() < best - 1e-9:
                best, move = distances.min(), [int(groups[distances.argmin()])]
    if move is None and len(inside) and len(outside):
        for g in inside[:MOST_CLASSES]:  # an exchange; any will do
            distances = np.abs(taken - counts[g] + counts[outside] - target).sum(axis=1)
            if distances.min() < best - 1e-9:
                return [int(g), int(outside[distances.argmin()])]
    return move


def describe_groups(
    column: str,
    pieces: Mapping[str, tuple[str, np.ndarray]],
    groups: Mapping[str, Sequence[str]],
) -> list[str]:
    """What to say of the groups of `column` (`groups`: those of the rows of each split of the
    source) in the `pieces` that a run uses."""
    held = {name: {groups[origin][i] for i in places} for name, (origin, places) in pieces.items()}
    named = {name: sum(1 for g in held[name] if not g.startswith("\0")) for name in held}
    alone = sum(1 for one in held.values() for g in one if g.startswith("\0"))
    counts = ", ".join(f"{n:,} in {name}" for name, n in named.items())
    lines = [f"groups of {column!r}: {counts}"]
    if alone:
        lines[0] += f"; rows without one, each a group of its own: {alone:,}"
    for left, right in (("train", "test"), ("train", "validation"), ("validation", "test")):
        shared = held.get(left, set()) & held.get(right, set())
        if shared:
            lines.append(
                f"WARNING: groups of {column!r} that are in {left} and in {right}, as the source "
                f"has them: {len(shared):,}"
            )
    return lines
