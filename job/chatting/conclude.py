"""What a run on conversations leaves: figures of the test, the model, replies, the run card."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from engine.estimate import peak_memory
from engine.plan import Progress
from engine.stop import StopRequest
from engine.tracker import Tracker
from job.chatting.before import ask_samples, read_before, test_prompts
from job.chatting.card import make_card
from job.chatting.compared import Compared, compare_figures, write_head_to_head
from job.chatting.load import learns_texts, talker_of, write_form
from job.chatting.talker import Reply, Talker
from job.finish import publish_model
from job.fit import split_batches
from job.folder import Folder
from job.job import Job
from job.reporting.banner import estimate_line
from job.reporting.replies import HEAD_TO_HEAD
from job.tasks.task import Conclusion
from models.export import export_model
from report.card import run_card
from report.replies import Figures, figures_table, replies_table
from report.samples import Answer


def save_model(job: Job, folder: Folder) -> None:
    """Publish `model/`."""
    with publish_model(job, folder) as temporary:
        write_form(learns_texts(job), temporary)
        export_model(job.built, job.model_args, job.tokenizer, temporary)


def conclude(
    job: Job, folder: Folder, progress: Progress, tracker: Tracker, command: str,
    weights: str, begun: float | None, stop: StopRequest,
) -> Conclusion:  # fmt: skip
    """The answer to Task.conclude."""
    metrics: dict[str, Any] = {}
    if "test" in job.encoded:
        metrics = job.task.evaluate(job, stop.guard(split_batches(job, "test")))
        tracker.log_evaluation(progress.step, "test", metrics)
        line = job.task.line("test", progress.step, metrics, job.metric)
        tracker.say(f"{line}, with {weights}")
    peak = peak_memory(job.precision.device)
    seconds = None if begun is None else time.perf_counter() - begun
    stop.check()
    save_model(job, folder)
    first = read_before(folder)
    talker = talker_of(job)
    samples, shown = say_samples(job, talker, first.samples)
    figures, table = put_beside(job, folder, talker, first.replies)
    tracker.log_text(progress.step, "replies", "\n".join([shown, "", table]))
    tracker.say("\n".join(["", shown, "", table]).rstrip())
    tracker.say(estimate_line(job, peak, seconds))
    replies = "\n\n".join(filter(None, [table, shown]))
    card = make_card(job, folder, command, metrics, first.metrics, weights, seconds, peak, replies)
    fields = {"before": first.metrics, "samples": samples, "replies": figures}
    return Conclusion(run_card(card), metrics, seconds, peak, fields)


def say_samples(
    job: Job, talker: Talker, before: Mapping[str, Any]
) -> tuple[dict[str, Answer], str]:
    """What the model says now to the prompts of [samples], and that beside what it said before."""
    after = ask_samples(job, talker)
    first = [before[text][0] if text in before else "" for text in after]
    sides = {"before": first, "after": [reply for reply, _ in after.values()]}
    return after, replies_table(list(after), sides)


def put_beside(
    job: Job, folder: Folder, talker: Talker, before: Sequence[Reply]
) -> tuple[dict[str, Figures], str]:
    """Replies to test conversations now, in head_to_head.jsonl beside those before and the true
    ones; figures of each with n and interval, and the same as a table."""
    prompts, _ = test_prompts(job.data.splits.get("test", ()), job.config.generate.replies, talker)
    if not prompts:
        return {}, ""
    first: Sequence[Reply | None] = before if len(before) == len(prompts) else [None] * len(prompts)
    after = talker.answer([one.prompt for one in prompts])
    rows = [
        Compared(one.messages, old, new, one.reference)
        for one, old, new in zip(prompts, first, after, strict=True)
    ]
    write_head_to_head(folder.path / HEAD_TO_HEAD, rows)
    true_tokens = [len(job.tokenizer(one.reference, add_special_tokens=False)["input_ids"])
                   for one in prompts]  # fmt: skip
    figures = compare_figures(rows, true_tokens)
    return figures, "\n".join(figures_table(figures))
