"""What a run on labelled texts leaves: the test, predictions, the model, the run card."""

import time
from dataclasses import asdict

from engine.decision import Decision
from engine.estimate import peak_memory
from engine.plan import Progress
from engine.stop import StopRequest
from engine.tracker import Tracker
from job.finish import publish_model
from job.folder import Folder
from job.job import Job
from job.predicting.explained import try_explain
from job.predicting.predictor import Predictor
from job.predicting.samples import compare_samples, predictor_of
from job.predicting.texts import texts_of
from job.reporting.banner import estimate_line
from job.reporting.card import Tested, make_card
from job.tasks.task import Conclusion
from job.testing.beside import compare_teacher
from job.testing.decide import fit_decision
from job.testing.decided import write_decision
from job.testing.expect import judge_expectations, recipe_expectations
from job.testing.fusion import try_fuse
from job.testing.testing import test_and_judge
from models.export import export_model
from models.ngrams.fusion import Fusion, save_fusion
from report.card import run_card
from report.expect import Expected, expectation_lines
from report.samples import Answer


def save_model(job: Job, folder: Folder, fusion: Fusion | None, decision: Decision) -> None:
    """Publish `model/`, with the bag and the decision beside the weights."""
    with publish_model(job, folder) as temporary:
        if fusion is not None:
            save_fusion(fusion, job.model_args, temporary)
        write_decision(decision, job.data.label_names, temporary)
        export_model(
            job.built, job.model_args, job.tokenizer, temporary, texts_of(job),
            decision.temperature,
        )  # fmt: skip


def check_expectations(job: Job, predictor: Predictor, tracker: Tracker) -> list[Expected]:
    """What the model answers to the texts of [[expect]], said as a table."""
    if not job.config.expect:
        return []
    expected = judge_expectations(predictor, recipe_expectations(job.config))
    tracker.say("\n" + expectation_lines(expected))
    return expected


def conclude(
    job: Job, folder: Folder, progress: Progress, tracker: Tracker, command: str,
    weights: str, begun: float | None, stop: StopRequest,
) -> Conclusion:  # fmt: skip
    """The answer to Task.conclude."""
    fusion, logits = try_fuse(job, tracker.say, stop)
    fitted = fit_decision(job, logits, stop)
    for line in fitted.lines:
        tracker.say(line)
    tested = Tested(peak=peak_memory(job.precision.device))
    if "test" in job.encoded:
        tested = test_and_judge(
            job, folder, progress, tracker, weights, stop, fusion, fitted.decision
        )
    seconds = None if begun is None else time.perf_counter() - begun
    stop.check()
    save_model(job, folder, fusion, fitted.decision)
    sides = compare_teacher(job, folder, tested, tracker, stop)
    samples: dict[str, Answer] = {}
    predictor = predictor_of(job, fitted.decision, fusion)
    if tested.mistakes:
        tracker.say(try_explain(job, folder, predictor, tested.mistakes, progress, stop))
    if job.config.samples.texts:
        table, samples = compare_samples(job, folder, predictor)
        tracker.log_text(progress.step, "samples", table)
        tracker.say("\n" + table)
    expected = check_expectations(job, predictor, tracker)
    tracker.say(estimate_line(job, tested.peak, seconds))
    card = make_card(
        job, folder, command, tested, weights, seconds, sides, fusion, fitted, expected
    )
    fields = {
        "compared": vars(tested.comparison) if tested.comparison else None,
        "verdicts": tested.verdicts,
        "distilled": [asdict(side) for side in sides],
        **({"fused": tested.parts} if tested.parts else {}),
        "slices": {name: [asdict(row) for row in rows] for name, rows in tested.slices.items()},
        "calibration": fitted.with_test(tested.decided),
        "samples": samples,
        "expectations": [asdict(row) for row in expected],
    }
    return Conclusion(run_card(card), tested.metrics, seconds, tested.peak, fields)
