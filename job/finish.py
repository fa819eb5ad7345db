"""What a run leaves when its training is done: the test, predictions, the model, the run card."""

import time
from dataclasses import asdict
from typing import Any

from configs.read import trajectory
from engine.decision import Decision
from engine.estimate import peak_memory
from engine.plan import Progress
from engine.stop import StopRequest
from engine.tracker import Tracker
from files.publish import publish, remove
from files.write import save_text
from job.fit import load_best
from job.folder import Folder
from job.predicting.explained import try_explain
from job.predicting.predictor import Predictor
from job.predicting.samples import compare_samples, predictor_of
from job.predicting.texts import texts_of
from job.prepare import Job
from job.reporting.banner import estimated_memory, estimated_seconds
from job.reporting.card import Tested, ask_command, make_card
from job.reporting.page import PAGE, write_page
from job.testing.beside import compare_teacher
from job.testing.decide import fit_decision
from job.testing.decided import write_decision
from job.testing.expect import judge_expectations, recipe_expectations
from job.testing.fusion import try_fuse
from job.testing.testing import test_and_judge
from job.verify import list_files, seal
from models.build import source_state
from models.export import export_model
from models.fast.frozen import restore_exact
from models.ngrams.fusion import Fusion, save_fusion
from report.card import run_card
from report.expect import Expected, expectation_lines
from report.format import format_bytes, format_seconds
from report.samples import Answer


def save_model(job: Job, folder: Folder, fusion: Fusion | None, decision: Decision) -> None:
    """Publish `model/`. One left by an attempt that was killed before the end is replaced."""
    if "frozen" in job.speed.resolved:
        exact = {} if job.distilled is None else job.distilled.exact
        exact = exact or source_state(job.model_args, job.tokenizer, job.built.base)
        restore_exact(job.built.model, exact)
    remove(folder.model)
    with publish(folder.model) as temporary:
        if fusion is not None:
            save_fusion(fusion, job.model_args, temporary)
        write_decision(decision, job.data.label_names, temporary)
        export_model(
            job.built, job.model_args, job.tokenizer, temporary, texts_of(job),
            decision.temperature,
        )  # fmt: skip


def estimate_line(job: Job, peak: int | None, seconds: float | None) -> str:
    """What was estimated before the run beside what was measured."""
    needed = estimated_memory(job).total
    line = f"memory: {format_bytes(needed)} estimated, {format_bytes(peak)} measured"
    if seconds is None:
        return line
    estimated = format_seconds(estimated_seconds(job))
    return f"{line}; training to test: {estimated} estimated, {format_seconds(seconds)} measured"


def show_page(folder: Folder, result: dict[str, Any], tracker: Tracker) -> None:
    """Write report.html, and say where it is. Nothing that goes wrong with it is a reason to lose a
    run by: files of the run may have been damaged meanwhile, memory may be short."""
    try:
        page = write_page(folder, result)
    except OSError:
        raise  # a full disk, which result.json would meet too
    except Exception as error:
        tracker.say(f"WARNING: no {PAGE}: {str(error) or type(error).__name__}")
    else:
        tracker.say(f"look at it: {page}")


def check_expectations(job: Job, predictor: Predictor, tracker: Tracker) -> list[Expected]:
    """What the model answers to the texts of [[expect]], said as a table."""
    if not job.config.expect:
        return []
    expected = judge_expectations(predictor, recipe_expectations(job.config))
    tracker.say("\n" + expectation_lines(expected))
    return expected


def finish(
    job: Job, folder: Folder, progress: Progress, tracker: Tracker, command: str,
    start: float | None, stop: StopRequest,
) -> dict[str, Any]:  # fmt: skip
    """Test once with the best weights, publish the model, write the card; result.json last.

    `start` is when training began on the clock of time.perf_counter, None for a resumed run, whose
    time cannot be told. Raises Stopped where it was asked to end before the model is written.
    """
    weights = load_best(job, folder, progress)
    fusion, logits = try_fuse(job, tracker.say, stop)
    fitted = fit_decision(job, logits, stop)
    for line in fitted.lines:
        tracker.say(line)
    tested = Tested(peak=peak_memory(job.precision.device))
    if "test" in job.encoded:
        tested = test_and_judge(
            job, folder, progress, tracker, weights, stop, fusion, fitted.decision
        )
    seconds = None if start is None else time.perf_counter() - start
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
    save_text(folder.path / "README.md", run_card(card))
    metrics = tested.metrics
    figures = {f"test/{k}": v for k, v in metrics.items() if isinstance(v, int | float)}
    tracker.log_hyperparameters(trajectory(job.config), figures)
    result = {
        "weights": weights,
        "progress": vars(progress),
        "test": metrics,
        "compared": vars(tested.comparison) if tested.comparison else None,
        "verdicts": tested.verdicts,
        "distilled": [asdict(side) for side in sides],
        **({"fused": tested.parts} if tested.parts else {}),
        "slices": {name: [asdict(row) for row in rows] for name, rows in tested.slices.items()},
        "calibration": fitted.with_test(tested.decided),
        "samples": samples,
        "expectations": [asdict(row) for row in expected],
        "seconds": seconds,
        "peak": tested.peak,
        "files": list_files(folder),
    }
    show_page(folder, result, tracker)
    folder.write_json("result.json", seal(result))
    tracker.say(f"ask it: {ask_command(job, folder)}")
    return result
