"""The rows of a run, as they are examined: those that it would train, choose and test on."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np

from configs.schema import Config
from data.chat.prepare import ChatArgs
from data.labels.settle import label_array
from data.prepare import Data, DataArgs, all_rows, learnt_rows, load_data
from data.reading.columnar import CHUNK
from data.refused import RefusedError
from job.rows import data_args
from report.check import EXCERPT, Check, Finding
from report.format import split_warnings

Args = TypeVar("Args", DataArgs, ChatArgs)

INSTALL = "pip install datasketch cleanlab (the extra check)"


@dataclass(frozen=True)
class Examined:
    """All rows, those of train first: `table` has text, text_pair, label, row, address; `split`
    (N,) the name of each row's split; `labels` as label_array() gives them."""

    args: DataArgs
    data: Data
    table: Any  # a datasets.Dataset
    split: np.ndarray
    labels: np.ndarray

    def texts(self) -> Iterator[tuple[str, ...]]:
        """The one text of each row, or the two of a pair."""
        return _texts_of(self.table)

    def joined(self) -> Iterator[str]:
        """The text of each row, of a pair both."""
        return (" ".join(texts) for texts in self.texts())

    def read(self, rows: list[int]) -> list[tuple[str, ...]]:
        """The texts of some rows, in their order."""
        return list(_texts_of(self.table.select(rows)))

    def addresses(self, rows: list[int]) -> list[str]:
        """Where the rows stand in the source."""
        return list(self.table.select_columns(["address"]).select(rows)[:]["address"])

    def excerpts(self, rows: list[int]) -> list[str]:
        """How the rows begin."""
        return [" | ".join(texts)[:EXCERPT] for texts in _texts_of(self.table.select(rows))]

    def is_cut(self, split: str) -> bool:
        """Whether a split was cut from the training rows rather than given by the source."""
        return split not in self.data.report.read


def _texts_of(table: Any) -> Iterator[tuple[str, ...]]:
    names = [name for name in ("text", "text_pair") if name in table.column_names]
    for part in table.select_columns(names).iter(batch_size=CHUNK):
        yield from zip(*(part[name] for name in names), strict=True)


def open_examined(config: Config) -> tuple[Examined, list[Finding]]:
    """The rows of a run, and why it would be refused, where it would.

    What a run is refused for is read leniently here, so that the rest can be examined. Raises
    ValueError for a source that cannot be read.
    """
    args, findings = data_args(config), []
    while True:
        try:
            data = load_data(args)
            break
        except RefusedError as error:
            findings.append(as_finding(error))
            args = read_on(args, error)
    names = list(data.splits)
    parts = [learnt_rows(data) if name == "train" else data.splits[name] for name in names]
    return Examined(
        args,
        data,
        all_rows(data),
        np.repeat(np.array(names), [len(part) for part in parts]),
        np.concatenate([label_array(part, data.kind) for part in parts]),
    ), findings


def read_on(args: Args, error: RefusedError) -> Args:
    """The arguments with which a source is read in spite of what it was refused for."""
    if error.kind == "overlap":
        return replace(args, on_overlap="warn")
    return replace(args, on_bad_row="skip")


def as_finding(error: RefusedError) -> Finding:
    first, _, rest = str(error).partition("\n")
    named = [line.strip() for line in rest.splitlines() if line.startswith("  ")]
    what = " ".join([first, "; ".join(named)]).strip()
    settings = {"overlap": 'data.on_overlap = "drop"', "bad_row": 'data.on_bad_row = "skip"'}
    return Finding(
        error.kind, "error", what, error.rows,
        settings.get(error.kind, rest.rpartition("\nset ")[2]),
        drop=error.rows if error.kind == "bad_row" else (),
        details={"advice": rest},
    )  # fmt: skip


def examine_plan(examined: Examined, refused: list[Finding]) -> list[Check]:
    """What the plan of a run says of the rows, and what it would be refused for."""
    _, lines = split_warnings(examined.data.report.lines())
    checks = [Check("" if i else "plan", line) for i, line in enumerate(lines)]
    spoilt = [
        Finding("cleaning", "warning", line, (), line.partition("; ")[2].partition(" keeps")[0])
        for line in examined.data.report.spoilt
    ]
    if findings := [*refused, *spoilt]:
        settings = dict.fromkeys(finding.setting for finding in findings)
        what = "a run would be refused" if refused else "cleaning loses rows"
        checks.append(Check("rows", what, findings, "set " + ", or ".join(settings)))
    return checks
