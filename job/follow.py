"""Any process of a run but rank 0: it does what it is told (orders.py)."""

from contextlib import suppress

from engine.checkpoint import help_save
from engine.loop import NonFiniteError
from engine.losses import count_items
from engine.memory import explained
from engine.plan import Progress
from engine.stop import Stopped, StopRequest, stop_on_signals
from engine.world import leave
from job.fit import epoch_batches, meet_after, split_batches, validate, with_rows
from job.job import Job
from job.orders import spread_state, spread_weights, take
from job.parallel.placed import ready, through
from job.training.needs import memory_advice


def follow(job: Job) -> None:
    """Until rank 0 is through. Raises SystemExit(143, 130 or 129) where the run is stopped."""
    with stop_on_signals() as stop:
        while True:
            what, subject = take()
            if what == "pass":
                with suppress(Stopped), ready(job.placed):  # rank 0 has it too, and goes on
                    job.task.evaluate(job, stop.guard(split_batches(job, subject)))
            elif what == "train":
                try:
                    with explained(memory_advice(job.config)):
                        train_along(job, stop)
                except NonFiniteError as error:
                    raise with_rows(job, error) from error
            elif what == "weights":
                spread_weights(job)
            else:
                stop.signal = subject
                break
    if job.in_parts and not stop.requested:
        leave()  # what is left to do, rank 0 does alone
    if stop.requested:
        raise SystemExit(stop.exit_code)


def train_along(job: Job, stop: StopRequest) -> None:
    """The steps of the run, and the evaluations between them, as rank 0 does them."""
    job.task.begin(job, None)
    progress = Progress()
    spread_state(job, progress)

    def run_evaluation(progress: Progress) -> None:
        if "validation" in job.encoded:
            validate(job, progress, stop)

    def save(progress: Progress) -> None:
        meet_after(progress)
        help_save(job.built.model, job.optimizer)

    job.fit(
        job.built.model, lambda epoch, start: epoch_batches(job, epoch, start),
        through(job.placed, job.compute_loss), count_items, job.optimizer, job.scaler,
        job.schedule, job.precision, job.plan, progress,
        lambda *_: None, run_evaluation, save, stop,
    )  # fmt: skip
