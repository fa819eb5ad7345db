"""What a run on conversations leaves: figures of the test, the model, replies, the run card."""

import time
from typing import Any

from engine.estimate import peak_memory
from engine.plan import Progress
from engine.stop import StopRequest
from engine.tracker import Tracker
from job.chatting.before import ask_samples, ask_tests, read_before
from job.chatting.card import make_card
from job.chatting.load import learns_texts, talker_of, write_form
from job.finish import publish_model
from job.fit import split_batches
from job.folder import Folder
from job.job import Job
from job.reporting.banner import estimate_line
from job.tasks.task import Conclusion
from models.export import export_model
from report.card import run_card


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
    first, _replies_before, _samples_before = read_before(folder)
    talker = talker_of(job)
    samples, replies = ask_samples(job, talker), ask_tests(job, talker)
    tracker.say(estimate_line(job, peak, seconds))
    card = make_card(job, folder, command, metrics, first, weights, seconds, peak)
    fields = {"before": first, "samples": samples, "replies": [vars(reply) for reply in replies]}
    return Conclusion(run_card(card), metrics, seconds, peak, fields)
