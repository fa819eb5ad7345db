"""Labelled texts: one class a row, several, or a number; single texts or pairs."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from configs.schema import Config
    from engine.losses import Batch
    from engine.plan import Progress
    from engine.stop import StopRequest
    from engine.tracker import Tracker
    from job.exporting.format import Parity, Source, Written
    from job.exporting.questions import Own
    from job.folder import Folder
    from job.job import Job
    from job.predicting.predictor import Predictor
    from job.serving.queue import Desk
    from job.tasks.task import Conclusion, Sections
    from models.fast.speed import Speed
    from report.check import Check


class Classify:
    """The answers to Task. Each imports what it needs: to look a task up costs nothing."""

    def libraries(self) -> None:
        import job.training.labelled  # noqa: F401

    def prepare(self, config: Config, allow_code: bool, resolved_dtype: str | None) -> Job:
        from job.training.labelled import prepare_labelled

        return prepare_labelled(self, config, allow_code, resolved_dtype)

    def sections(self, job: Job) -> Sections:
        from data.prepare import label_counts
        from job.predicting.texts import length_lines
        from job.tasks.task import Sections
        from report.plan import Truncation

        kind, names = job.data.kind, job.data.label_names
        return Sections(
            balance={
                name: label_counts(rows, kind, names)
                for name, rows in job.data.splits.items()
                if name != "train" or job.data.stream is None
            },
            truncation={
                name: Truncation(e.rows, e.truncated_rows, e.tokens + e.cut_tokens, e.cut_tokens)
                for name, e in job.encoded.items()
            },
            length=length_lines(job),
            files=("test_predictions.jsonl", "explanations.jsonl"),
        )

    def beside(self, job: Job) -> tuple[int, float]:
        decide, seconds = job.config.decide, 0.0
        decides = decide.calibrate or decide.min_precision is not None
        # to weigh the bag, to fit the decision
        passes = job.bag_needs is not None or (decides and job.data.kind != "regression")
        if job.distilled is not None:
            seconds += job.distilled.seconds.get("train", 0.0)
        if job.cached is not None:
            seconds += sum(job.cached.seconds[name] for name in job.cached.missing)
        if job.bag_needs is not None:
            seconds += job.bag_needs.seconds
        return int(passes), seconds

    def environment(self, job: Job) -> dict[str, Any]:
        return {} if job.distilled is None else job.distilled.elsewhere(job.precision)

    def record(self, job: Job) -> dict[str, Any]:
        record: dict[str, Any] = {}
        if job.data.kind == "regression":
            record["target"] = vars(job.target)  # what the numbers in the weights mean
        if job.cached is not None:
            record["kept"] = job.cached.line
        if job.distilled is not None:
            record["teacher"] = job.distilled.identity
        return record

    def lengths(self, job: Job) -> Any:
        from job.predicting.texts import length_counts

        return length_counts(job)

    def begin(self, job: Job, new: Folder | None) -> None:
        from job.predicting.samples import store_samples
        from job.training.cached import open_cached

        if new is not None and job.config.samples.texts:
            store_samples(job, new)
        if job.cached is not None:
            print(open_cached(job.cached, job.encoded, job.padding, job.precision), flush=True)
        if job.distilled is not None:
            print(job.distilled.ask("train"), flush=True)

    def train_batches(self, job: Job, epoch: int, numbers: Iterable[int]) -> Iterator[Batch]:
        if job.data.stream is not None:
            return self.streamed_batches(job, epoch, numbers)
        from data.loaders import train_batches

        batches = train_batches(
            job.encoded["train"].dataset, job.order.epoch(epoch), numbers,
            job.config.train.micro_batch_size, job.padding, job.config.data.workers,
            job.kept("train"),
        )  # fmt: skip
        if job.distilled is not None:
            batches = map(partial(job.distilled.join, target=job.target), batches)
        return batches

    def streamed_batches(self, job: Job, epoch: int, numbers: Iterable[int]) -> Iterator[Batch]:
        from copy import deepcopy

        from data.stream.labelled import streamed_batches
        from job.predicting.predictor import length_args

        assert job.data.stream is not None
        return streamed_batches(
            job.data.stream, epoch, numbers, job.config.train.micro_batch_size,
            deepcopy(job.tokenizer), length_args(job.config), job.padding,
        )  # fmt: skip

    def split_batches(self, job: Job, split: str) -> Iterator[Batch]:
        from data.loaders import eval_batches
        from engine.world import world

        return eval_batches(
            job.encoded[split].dataset, job.evaluation_rows, job.padding,
            job.config.data.workers, job.kept(split), share=world().share,
        )  # fmt: skip

    def evaluate(self, job: Job, batches: Iterator[Batch]) -> dict[str, Any]:
        from job.testing.scorer import scorer_of

        return scorer_of(job).evaluate(job.built.model, batches, shared=True)

    def metric(self, job: Job) -> str:
        return "loss" if job.data.kind == "regression" else "accuracy"

    def line(self, name: str, step: int, metrics: dict[str, Any], deciding: str) -> str:
        from report.evaluation import evaluation_line

        return evaluation_line(name, step, metrics, deciding)

    def log(self, job: Job, tracker: Tracker, step: int, metrics: dict[str, Any]) -> None:
        tracker.log_confusion(step, "eval", metrics, job.data.label_names)

    def show_row(self, row: dict[str, Any]) -> str:
        return row["text"]

    def conclude(
        self, job: Job, folder: Folder, progress: Progress, tracker: Tracker, command: str,
        weights: str, begun: float | None, stop: StopRequest,
    ) -> Conclusion:  # fmt: skip
        from job.testing.conclude import conclude

        return conclude(job, folder, progress, tracker, command, weights, begun, stop)

    def ask_command(self, job: Job, folder: Folder) -> str:
        from job.reporting.card import ask_command

        return ask_command(job, folder)

    def score(
        self, config: Config, base: Path | None, allow_code: bool, allow_drift: bool,
        allow_network: bool,
    ) -> dict[str, Any]:  # fmt: skip
        from job.testing.score import score_finished

        return score_finished(
            config, base, allow_code=allow_code, allow_drift=allow_drift,
            allow_network=allow_network,
        )  # fmt: skip

    def load(
        self, folder: Folder, device: str | None, allow_code: bool, base: str | Path | None,
        allow_network: bool,
    ) -> tuple[Predictor, Speed]:  # fmt: skip
        from job.predicting.predictor import open_predictor

        return open_predictor(folder, device, allow_code, base, allow_network)

    def answer(self, options: Namespace, config: Config, opened: Callable[[], Predictor]) -> int:
        from job.predicting.command import answer_labelled

        return answer_labelled(options, config, opened)

    def desk(self, options: Namespace, opened: Callable[[], Predictor], tokens: int) -> Desk:
        from engine.decision import read_thresholds
        from job.serving.labels import LabelDesk

        thresholds = read_thresholds(options.threshold)
        return LabelDesk(opened().decide(options.unsure, thresholds), tokens)

    def why_no_search(self) -> str | None:
        return None

    def examine(self, config: Config, guessed: Sequence[str]) -> Iterator[Check]:
        from job.checking.examine import examine

        return examine(config, guessed)

    def row_lines(self, config: Config, count: int) -> list[str]:
        from job.predicting.texts import row_lines

        return row_lines(config, count)

    def ask_rows(self, source: Source, most: int) -> Own:
        from job.exporting.labelled import ask_labelled

        return ask_labelled(source, most)

    def compare(
        self, source: Source, written: Written, own: Own, answers: dict[str, Any]
    ) -> Parity:  # fmt: skip
        from job.exporting.labelled import compare_labelled

        return compare_labelled(source, written, own, answers)
