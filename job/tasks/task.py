"""The questions that every task answers; a file of this folder is one task.

What is not asked here is the same for all of them: steps, checkpoints, resume, the log. Whoever
needs to know what a run is about asks its task, and nobody asks which task that is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from argparse import Namespace

    from configs.schema import Config
    from engine.losses import Batch
    from engine.plan import Progress
    from engine.stop import StopRequest
    from engine.tracker import Tracker
    from job.exporting.format import Parity, Source, Written
    from job.exporting.questions import Own
    from job.folder import Folder
    from job.job import Job
    from job.serving.queue import Desk
    from report.check import Check
    from report.plan import Truncation

Say = Callable[[str], None]


@dataclass(frozen=True)
class Sections:
    """What the plan says of a task's rows: by split its labels and what max_length cuts, how much
    of a text is read, and what a run writes that others do not."""

    balance: dict[str, dict[str, int]]
    truncation: dict[str, Truncation]
    length: list[str]
    files: tuple[str, ...]


@dataclass(frozen=True)
class Conclusion:
    """What a trained model showed: the run card, the figures, and the fields of result.json.
    `seconds` from the first step to the test."""

    card: str
    metrics: dict[str, Any]
    seconds: float | None
    peak: int | None
    fields: dict[str, Any] = field(default_factory=dict)


class Task(Protocol):
    """One row of TASKS."""

    def libraries(self) -> None:
        """Import what `prepare` needs, which takes seconds."""

    def prepare(self, config: Config, allow_code: bool, resolved_dtype: str | None) -> Job:
        """Everything before step 1. Raises ValueError with all that is wrong. `resolved_dtype` is
        what "auto" meant when the run was started."""

    def sections(self, job: Job) -> Sections:
        """What the plan says of the rows."""

    def beside(self, job: Job) -> tuple[int, float]:
        """Passes over the validation rows, and other seconds, that a run takes beside its steps and
        evaluations, estimated."""

    def environment(self, job: Job) -> dict[str, Any]:
        """What "the same bits" depends on besides device, versions and fast paths."""

    def record(self, job: Job) -> dict[str, Any]:
        """What a checkpoint notes besides model, data and settings; another value is drift."""

    def lengths(self, job: Job) -> Any:
        """What data.json says of the rows' lengths."""

    def begin(self, job: Job, new: Folder | None) -> None:
        """What is worked out before the first step; of a `new` run, into its folder, also what is
        shown before."""

    def train_batches(self, job: Job, epoch: int, numbers: Iterable[int]) -> Iterator[Batch]:
        """The micro-batches of these numbers of an epoch, in memory of the host."""

    def split_batches(self, job: Job, split: str) -> Iterator[Batch]:
        """This process's share of the batches that hold all rows of a split once."""

    def evaluate(self, job: Job, batches: Iterator[Batch]) -> dict[str, Any]:
        """The figures of the model over a split, "loss" and "n" among them; `batches` are this
        process's share."""

    def metric(self, job: Job) -> str:
        """The figure by which eval.metric = "auto" picks the best checkpoint."""

    def line(self, name: str, step: int, metrics: dict[str, Any], deciding: str) -> str:
        """One console line of an evaluation's figures, the deciding one among them."""

    def log(self, job: Job, tracker: Tracker, step: int, metrics: dict[str, Any]) -> None:
        """What TensorBoard shows of an evaluation besides its numbers."""

    def show_row(self, row: dict[str, Any]) -> str:
        """The beginning of a training row, to know it again."""

    def conclude(
        self, job: Job, folder: Folder, progress: Progress, tracker: Tracker, command: str,
        weights: str, begun: float | None, stop: StopRequest,
    ) -> Conclusion:  # fmt: skip
        """Test once, publish the model, show it. `weights` says which it holds, `begun` when
        training did, None for a resumed run. Raises Stopped where it was asked to end before the
        model is written."""

    def ask_command(self, job: Job, folder: Folder) -> str:
        """The command that asks the finished model."""

    def score(
        self, config: Config, base: Path | None, allow_code: bool, allow_drift: bool,
        allow_network: bool,
    ) -> dict[str, Any]:  # fmt: skip
        """The figures of a finished run's model on its test rows again, under "test"."""

    def load(
        self, folder: Folder, device: str | None, allow_code: bool, base: str | Path | None,
        allow_network: bool,
    ) -> tuple[Any, Any]:  # fmt: skip
        """What answers for a finished run, and the fast paths that run."""

    def answer(
        self, options: Namespace, config: Config, opened: Callable[[], Any]
    ) -> int:  # fmt: skip
        """predict.py with a finished run, which `opened` opens as `load` does; the exit status."""

    def desk(self, options: Namespace, opened: Callable[[], Any], tokens: int) -> Desk:
        """serve.py with a finished run: what answers its requests, at most so many tokens in one
        batch. Raises ValueError for options that are none of this run's."""

    def why_no_search(self) -> str | None:
        """Why tune.py searches no recipes of this task; None where it does."""

    def examine(self, config: Config, guessed: Sequence[str]) -> Iterator[Check]:
        """check.py: the checks of a recipe's rows as they are made; first what was `guessed`."""

    def row_lines(self, config: Config, count: int) -> list[str]:
        """So many training rows as the model reads them, what it learns of them in MARKS."""

    def ask_rows(self, source: Source, most: int) -> Own:
        """export.py: the first `most` test rows and what openloop answers to them. Raises
        ValueError where the rows are gone or others than those of the training."""

    def compare(
        self, source: Source, written: Written, own: Own, answers: dict[str, Any]
    ) -> Parity:  # fmt: skip
        """How an export's answers to them differ. Raises ValueError where they are no answers."""
