"""Which rows of a pool to label next: those that a run is least sure of, far from each other.

Never a near duplicate of what is labelled already, nor of another one chosen. The same run, pool
and count give the same rows.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, islice
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
from engine.decision import Decision
from job.checking.copies import has_datasketch
from job.checking.examined import INSTALL
from job.checking.written import write_lines
from job.predicting.inputs import Item, file_source
from job.predicting.predictor import Prediction, Predictor, Text
from job.rows import clean_args, data_args, refuse_stream, text_columns
from report.check import Chosen

CROWD = 8  # times the rows wanted: of so many of the least sure ones, those far apart are taken
MOST = 10_000  # of them, whose vectors have 160 MB; where more rows are wanted, the least sure


@dataclass(frozen=True)
class Pool:
    """The rows that can be chosen: where each stands, its cleaned texts, the answer and how far
    ahead that is; and how many rows cannot, by reason."""

    addresses: list[str]
    texts: list[Texts]
    labels: list[str]
    margins: list[float]
    left_out: Counter[str]


def choose_next(
    config: Config,
    pool: Path,
    columns: Sequence[str],
    count: int,
    open_predictor: Callable[[], Predictor],
) -> tuple[list[Chosen], Counter[str]]:
    """`count` rows of the table `pool` for a person to label, the least sure first, and how many
    could not be chosen, by reason. The text is in the `columns`, or in those of the run.

    Raises ValueError where the pool cannot be read, has no row to choose, or datasketch is missing.
    """
    if not has_datasketch():
        raise ValueError(f"--next needs datasketch, to choose no row twice: {INSTALL}")
    source = file_source(pool, config, columns, None, False)
    labelled = list(_labelled(config))
    rows = _answered(source.items(), open_predictor(), config)
    order = np.argsort(rows.margins, kind="stable").tolist()
    alone = _without_copies(labelled, [rows.texts[i] for i in order], rows.left_out)
    order = [order[place] for place in alone]
    if not order:
        raise ValueError(f"--next: {pool} has no row to choose: {describe(rows.left_out)}")
    crowd = order[: max(count, min(CROWD * count, MOST))]
    if len(crowd) > count:
        far = choose_spread(word_vectors([" ".join(rows.texts[i]) for i in crowd]), count)
        crowd = [crowd[place] for place in sorted(far)]
    columns = text_columns(config)
    return [
        Chosen(
            rows.addresses[i], dict(zip(columns, rows.texts[i], strict=True)),
            rows.labels[i], rows.margins[i],
        )
        for i in crowd
    ], rows.left_out  # fmt: skip


def margin(prediction: Prediction, decision: Decision) -> float:
    """How sure an answer is, 0 to 1: the likeliest class ahead of the next; where thresholds
    decide, the label nearest to its own, in parts of the way from there to 0 or 1 (which of two
    classes and one half is the same). Numbers are all alike: 0."""
    values = list(prediction.probabilities.values())
    if decision.kind == "regression":
        return 0.0
    if decision.kind == "multi" or decision.thresholds:
        judged = values if decision.kind == "multi" else values[1:]  # of two classes the second
        limits = map(decision.threshold, range(len(judged)))
        return min(
            (value - limit) / (1 - limit) if value > limit else (limit - value) / limit
            for value, limit in zip(judged, limits, strict=True)
        )
    first, *others = sorted(values, reverse=True)
    return first - others[0] if others else 1.0


def describe(left_out: Counter[str]) -> str:
    """What was left out of a pool, in words."""
    counts = [f"{n:,} {reason}" for reason, n in left_out.items() if n]
    return ", ".join(counts) or "it is empty"


def write_chosen(path: Path, chosen: Sequence[Chosen]) -> Path | None:
    """One JSON object a line: the row, its text, what the run answers. Where what was there, which
    may be labelled, is kept."""
    return write_lines(path, [json_text(one.as_dict()) for one in chosen])


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
    refuse_stream(config)
    rows: Any = all_rows(load_data(data_args(config)))
    names = [name for name in ("text", "text_pair") if name in rows.column_names]
    for chunk in rows.select_columns(names).iter(batch_size=CHUNK):
        yield from zip(*(chunk[name] for name in names), strict=True)


def _answered(items: Iterable[Item], predictor: Predictor, config: Config) -> Pool:
    """The items that the predictor takes, answered CHUNK at a time: of an answer its label and
    margin are kept alone."""
    rows = Pool([], [], [], [], Counter())
    remaining = iter(items)
    while part := list(islice(remaining, CHUNK)):
        usable = [one for one in part if one.error is None and predictor.fault(one.text) is None]
        rows.left_out["unreadable or empty"] += len(part) - len(usable)
        for item, answer in zip(usable, predictor(map(_text, usable)), strict=True):
            rows.addresses.append(item.address)
            rows.texts.append(_texts(item, config))
            rows.labels.append(answer.label)
            rows.margins.append(margin(answer, predictor.decision))
    return rows


def _without_copies(
    labelled: Sequence[Texts], pool: Sequence[Texts], left_out: Counter[str]
) -> list[int]:
    """Places in `pool` of the rows that are near no labelled one, and of those that are near each
    other the first alone."""
    signatures = sign_texts(chain(labelled, pool))
    start = len(labelled)

    def read(rows: list[int]) -> list[Texts]:
        return [labelled[row] if row < start else pool[row - start] for row in rows]

    gone: set[int] = set()
    for one in join_pairs(near_pairs(signatures, read)):
        others = [row for row in one.rows if row >= start]
        known = one.rows[0] < start
        left_out["near labelled rows"] += len(others) if known else 0
        left_out["near other rows of it"] += 0 if known else len(others) - 1
        gone |= set(others if known else others[1:])
    return [row - start for row in range(start, start + len(pool)) if row not in gone]
