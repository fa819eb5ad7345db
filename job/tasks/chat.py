"""Conversations: a language model learns what the assistant says, or any text."""

from __future__ import annotations

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
    from job.serving.queue import Desk
    from job.tasks.task import Conclusion, Sections
    from models.fast.speed import Speed
    from report.check import Check


class Chat:
    """The answers to Task. Each imports what it needs: to look a task up costs nothing."""

    def libraries(self) -> None:
        import job.chatting.prepare  # noqa: F401

    def prepare(self, config: Config, allow_code: bool, resolved_dtype: str | None) -> Job:
        from job.chatting.prepare import prepare_chat

        return prepare_chat(self, config, allow_code, resolved_dtype)

    def sections(self, job: Job) -> Sections:
        from job.tasks.task import Sections
        from report.plan import Truncation

        truncation = {
            name: Truncation(
                counts.read, counts.overlong, counts.whole_tokens, counts.unseen_tokens
            )
            for name, counts in job.counts.items()
        }
        lines = [f"{name}: {line}" for name, one in job.counts.items() for line in one.lines()]
        files = ("samples.json", "before.json", "head_to_head.jsonl")
        return Sections({}, truncation, lines, files)

    def beside(self, job: Job) -> tuple[int, float]:
        return 1, 0.0  # before the first step

    def environment(self, job: Job) -> dict[str, Any]:
        return {}

    def record(self, job: Job) -> dict[str, Any]:
        return {"rows": {name: encoded.key for name, encoded in job.encoded.items()}}

    def lengths(self, job: Job) -> Any:
        return {
            name: counts.as_dict()
            | {"cut_rows": counts.overlong, "cut_tokens": counts.unseen_tokens}
            for name, counts in job.counts.items()
        }

    def begin(self, job: Job, new: Folder | None) -> None:
        from job.chatting.before import store_before

        if new is not None:
            store_before(job, new)

    def train_batches(self, job: Job, epoch: int, numbers: Iterable[int]) -> Iterator[Batch]:
        from data.chat.batches import collate_chats
        from data.loaders import train_batches
        from job.chatting.loss import with_places

        if job.data.stream is not None:
            return with_places(self.streamed_batches(job, epoch, numbers))
        return with_places(
            train_batches(
                job.encoded["train"].dataset, job.order.epoch(epoch), numbers,
                job.config.train.micro_batch_size, job.padding, job.config.data.workers,
                join=collate_chats,
            )
        )  # fmt: skip

    def streamed_batches(self, job: Job, epoch: int, numbers: Iterable[int]) -> Iterator[Batch]:
        from copy import deepcopy

        from data.stream.chats import streamed_chats
        from job.chatting.rows import chat_encoding

        assert job.data.stream is not None
        return streamed_chats(
            job.data.stream, epoch, numbers, job.config.train.micro_batch_size,
            deepcopy(job.tokenizer), chat_encoding(job.config), job.padding,
        )  # fmt: skip

    def split_batches(self, job: Job, split: str) -> Iterator[Batch]:
        from data.chat.batches import collate_chats
        from data.loaders import eval_batches
        from engine.world import world

        return eval_batches(
            job.encoded[split].dataset, job.evaluation_rows, job.padding,
            job.config.data.workers, join=collate_chats, share=world().share,
        )  # fmt: skip

    def evaluate(self, job: Job, batches: Iterator[Batch]) -> dict[str, Any]:
        from job.chatting.loss import evaluate_chats

        return evaluate_chats(job.built.model, batches, job.precision, shared=True)

    def metric(self, job: Job) -> str:
        return "loss"

    def line(self, name: str, step: int, metrics: dict[str, Any], deciding: str) -> str:
        from report.evaluation import tokens_line

        return tokens_line(name, step, metrics)

    def log(self, job: Job, tracker: Tracker, step: int, metrics: dict[str, Any]) -> None:
        from job.chatting.before import log_samples

        log_samples(job, tracker, step)

    def show_row(self, row: dict[str, Any]) -> str:
        return " | ".join(f"{turn['role']}: {turn['content']}" for turn in row["messages"])

    def conclude(
        self, job: Job, folder: Folder, progress: Progress, tracker: Tracker, command: str,
        weights: str, begun: float | None, stop: StopRequest,
    ) -> Conclusion:  # fmt: skip
        from job.chatting.conclude import conclude

        return conclude(job, folder, progress, tracker, command, weights, begun, stop)

    def ask_command(self, job: Job, folder: Folder) -> str:
        from job.chatting.card import ask_command

        return ask_command(job, folder)

    def score(
        self, config: Config, base: Path | None, allow_code: bool, allow_drift: bool,
        allow_network: bool,
    ) -> dict[str, Any]:  # fmt: skip
        from job.chatting.score import score_finished_chat

        return score_finished_chat(config, base, allow_code, allow_drift, allow_network)

    def load(
        self, folder: Folder, device: str | None, allow_code: bool, base: str | Path | None,
        allow_network: bool,
    ) -> tuple[Any, Speed]:  # fmt: skip
        from job.chatting.load import open_talker

        return open_talker(folder, device, allow_code, base, allow_network)

    def answer(self, options: Namespace, config: Config, opened: Callable[[], Any]) -> int:
        from job.chatting.command import answer_chat

        return answer_chat(options, config, opened)

    def desk(self, options: Namespace, opened: Callable[[], Any], tokens: int) -> Desk:
        from pathlib import Path

        from job.serving.talks import TalkDesk
        from job.tasks.options import refuse_options

        names = ("unsure", "threshold")
        refuse_options(options, names, "this run is a language model, which answers with text")
        return TalkDesk(opened(), Path(options.run).resolve().name)

    def why_no_search(self) -> str | None:
        return (
            "tune.py compares trials row by row on the labels of validation rows, and "
            "conversations have none"
        )

    def examine(self, config: Config, guessed: Sequence[str]) -> Iterator[Check]:
        from job.chatting.examine import examine_chats

        return examine_chats(config)

    def row_lines(self, config: Config, count: int) -> list[str]:
        from job.chatting.examine import row_lines

        return row_lines(config, count)

    def ask_rows(self, source: Source, most: int) -> Own:
        from job.exporting.chats import ask_chats

        return ask_chats(source, most)

    def compare(
        self, source: Source, written: Written, own: Own, answers: dict[str, Any]
    ) -> Parity:  # fmt: skip
        from job.exporting.chats import compare_chats

        return compare_chats(own, answers)
