"""Which rows of a pool to label next: those that a run is least sure of, far from each other.

Never a near duplicate of what is labelled already, nor of another one chosen. The same run, pool
and count give the same rows.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from configs.schema import Config
from data.checks.near import Texts, join_pairs, near_pairs, sign_texts
from data.checks.spread import choose_spread, word_vectors
from data.clean import clean_text
from data.prepare import all_rows, load_data
from data.reading.columnar import CHUNK
from data.write import json_text
from files.write import replace_text
from job.checking.copies import has_datasketch
from job.checking.examined import INSTALL
from job.inputs import Item, file_source
from job.predictor import Prediction, Predictor, Text
from job.rows import clean_args, data_args, text_columns
from report.check import Chosen

CROWD = 8  # times the rows wanted: of so many of the least sure ones, those far apart are taken


@dataclass(frozen=True)
class Pool:
    """The rows that can be chosen, and how many cannot, by reason."""

    items: list[Item]
    left_out: Counter[str]


def choose_next(
    config: Config, pool: Path, count: int, open_predictor: Callable[[], Predictor]
) -> tuple[list[Chosen], Pool]:
    """`count` rows of the table `pool` for a person to label, the least sure first.

    Raises ValueError where the pool cannot be read, has no row to choose, or datasketch is missing.
    """
    if not has_datasketch():
        raise ValueError(f"--next needs datasketch, to choose no row twice: {INSTALL}")
    source = file_source(pool, config, (), None, False)
    labelled = list(_labelled(config))
    predictor = open_predictor()
    usable = _usable(source.items(), predictor)
    predictions = predictor([_text(item) for item in usable.items])
    margins = np.array([margin(one, predictor.decision.kind) for one in predictions])
    order = np.argsort(margins, kind="stable").tolist()
    texts = [_texts(usable.items[i], config) for i in order]
    alone = _without_copies(labelled, texts, usable.left_out)
    order = [order[place] for place in alone]
    if not order:
        raise ValueError(f"--next: {pool} has no row to choose: {describe(usable)}")
    crowd = order[: CROWD * count]
    words = [" ".join(_texts(usable.items[i], config)) for i in crowd]
    far = choose_spread(word_vectors(words), count)
    columns = text_columns(config)
    return [
        Chosen(
            usable.items[i].address,
            dict(zip(columns, _texts(usable.items[i], config), strict=True)),
            predictions[i].label, float(margins[i]),
        )
        for i in (crowd[place] for place in sorted(far))
    ], usable  # fmt: skip


def margin(prediction: Prediction, kind: str) -> float:
    """How sure an answer is, 0 to 1: the likeliest class ahead of the next; of several labels the
    one nearest to one half. Numbers are all alike: 0."""
    values = sorted(prediction.probabilities.values(), reverse=True)
    if kind == "regression":
        return 0.0
    if kind == "multi":
        return min(abs(2 * value - 1) for value in values)
    return values[0] - values[1] if len(values) > 1 else 1.0


def describe(pool: Pool) -> str:
    """What was left out of a pool, in words."""
    counts = [f"{n:,} {reason}" for reason, n in pool.left_out.items() if n]
    return ", ".join(counts) or "it is empty"


def write_chosen(path: Path, chosen: Sequence[Chosen]) -> None:
    """One JSON object a line: the row, its text, what the run answers."""
    with replace_text(path) as file:
        file.writelines(json_text(one.as_dict()) + "\n" for one in chosen)


def _text(item: Item) -> Text:
    assert item.text is not None
    return item.text


def _texts(item: Item, config: Config) -> Texts:
    """The one or two texts of an item, cleaned as the labelled ones are."""
    text = _text(item)
    parts = (text,) if isinstance(text, str) else text
    return tuple(clean_text(part, clean_args(config)) for part in parts)


def _labelled(config: Config) -> Iterable[Texts]:
    """The texts of all rows that the run has labels of."""
    rows: Any = all_rows(load_data(data_args(config)))
    names = [name for name in ("text", "text_pair") if name in rows.column_names]
    for chunk in rows.select_columns(names).iter(batch_size=CHUNK):
        yield from zip(*(chunk[name] for name in names), strict=True)


def _usable(items: Iterable[Item], predictor: Predictor) -> Pool:
    """The items that the predictor takes."""
    taken, left_out = [], Counter[str]()
    for item in items:
        if item.error is None and predictor.fault(item.text) is None:
            taken.append(item)
        else:
            left_out["unreadable or empty"] += 1
    return Pool(taken, left_out)


def _without_copies(
    labelled: Sequence[Texts], pool: Sequence[Texts], left_out: Counter[str]
) -> list[int]:
    """Places in `pool` of the rows that are near no labelled one, and of those that are near each
    other the first alone."""
    signatures = sign_texts(chain(labelled, pool))
    start = len(labelled)

    def read(row: int) -> Texts:
        return labelled[row] if row < start else pool[row - start]

    gone: set[int] = set()
    for rows in join_pairs(near_pairs(signatures, read)):
        others = [row for row in rows if row >= start]
        known = rows[0] < start
        left_out["near labelled rows"] += len(others) if known else 0
        left_out["near other rows of it"] += 0 if known else len(others) - 1
        gone |= set(others if known else others[1:])
    return [row - start for row in range(start, start + len(pool)) if row not in gone]
