"""What a run leaves when its training is done: the test, predictions, the model, the run card."""

import heapq
import json
import time
from dataclasses import asdict
from typing import Any, TextIO

import numpy as np
from torch import Tensor

from configs.read import trajectory
from engine.decision import Decision
from engine.estimate import peak_memory
from engine.losses import Batch
from engine.metrics import MOST_CONFUSED
from engine.plan import Progress
from engine.stop import StopRequest
from engine.tracker import Tracker
from files.publish import publish, remove
from files.write import replace_text, save_text
from job.banner import estimated_memory, estimated_seconds
from job.baseline import row_figures
from job.beside import put_beside
from job.card import Tested, ask_command, make_card
from job.decide import DecisionCounter, fit_decision
from job.decided import write_decision
from job.explained import try_explain
from job.fit import evaluation_line, load_best, split_batches
from job.folder import Folder
from job.fusion import BOTH, test_fused, try_fuse
from job.judge import judge
from job.naming import name_predictions
from job.predictor import open_predictor
from job.prepare import Job
from job.samples import compare_samples, predictor_of
from job.scorer import scorer_of
from job.texts import texts_of
from job.verify import list_files, seal
from models.build import source_state
from models.export import export_model
from models.fast.frozen import restore_exact
from models.ngrams.fusion import Fusion, save_fusion
from report.baseline import comparison_line
from report.card import Mistake, run_card
from report.compare import JUDGED_BY
from report.distill import Side, side_lines
from report.format import format_bytes, format_seconds
from report.samples import Answer

MISTAKES = 20  # remembered; explained where that costs little


class TestWriter:
    """Writes one JSON line a test row and remembers the most confident mistakes."""

    __test__ = False  # not a test class

    def __init__(self, job: Job, file: TextIO, decision: Decision):
        self.job, self.file, self.decision = job, file, decision
        self.rows = job.data.splits["test"]
        self.place = {row: i for i, row in enumerate(self.rows["row"])}
        encoded = job.encoded["test"].dataset
        known = "full_length" if "full_length" in encoded.column_names else "length"  # of a bag
        self.tokens = dict(zip(encoded["row"], encoded[known], strict=True))
        self.mistakes: list[tuple[float, int, Mistake]] = []  # a heap, the least confident first
        self.figures = np.zeros(len(self.rows))  # of each row, for the comparison with baselines
        self.decided = DecisionCounter(decision)

    def __call__(self, batch: Batch, logits: Tensor) -> None:
        kind, names = self.job.data.kind, self.job.data.label_names
        logits, labels = logits.float().cpu(), batch["labels"].cpu().numpy()
        answered = self.decision.answers(logits).numpy()
        places = [self.place[row] for row in batch["rows"].tolist()]
        self.figures[places] = row_figures(kind, answered, labels)
        self.decided.update(logits, labels)
        sources = [self.rows[place] for place in places]
        predictions = name_predictions(
            [source["text"] for source in sources], self.decision, logits, names
        )
        for row, source, prediction in zip(
            batch["rows"].tolist(), sources, predictions, strict=True
        ):
            text = source["text"]
            label = self.name_label(source["label"])
            line = {"row": source["address"], "text": text}
            if "text_pair" in source:
                line["text_pair"] = source["text_pair"]
            line |= {"label": label, "predicted": prediction.label}
            if kind == "multi":
                line["predicted_labels"] = list(prediction.labels)
            if prediction.unsure is not None:
                line["unsure"] = prediction.unsure
            line["probabilities"] = likeliest(prediction.probabilities)
            line["tokens"] = self.tokens[row]
            self.file.write(json.dumps(line, ensure_ascii=False) + "\n")
            sure = prediction.probability
            if kind == "single" and prediction.label != label and sure is not None:
                mistake = Mistake(source["address"], text, label, prediction.label, sure)
                heapq.heappush(self.mistakes, (sure, row, mistake))
                if len(self.mistakes) > MISTAKES:
                    heapq.heappop(self.mistakes)

    def name_label(self, label: Any) -> Any:
        """The label as a person reads it."""
        if self.job.data.kind == "single":
            return self.job.data.label_names[label]
        if self.job.data.kind == "multi":
            pairs = zip(self.job.data.label_names, label, strict=True)
            return [name for name, value in pairs if value > 0.5]
        return label

    def worst(self) -> list[Mistake]:
        """The most confident mistakes, the worst first."""
        return [mistake for _, _, mistake in sorted(self.mistakes, reverse=True)]


def likeliest(probabilities: dict[str, float]) -> dict[str, float]:
    """All of them, in the labels' order; of more than MOST_CONFUSED classes so many, the likeliest
    first: a file of all would grow with rows times classes."""
    if len(probabilities) <= MOST_CONFUSED:
        return probabilities
    largest = heapq.nlargest(MOST_CONFUSED, probabilities.items(), key=lambda item: item[1])
    return dict(largest)


def run_test(
    job: Job, folder: Folder, stop: StopRequest, fusion: Fusion | None, decision: Decision
) -> tuple[dict[str, Any], TestWriter, dict[str, dict[str, Any]]]:
    """Metrics of the test split, written row by row as they come; what the writer noted; and where
    a bag answers beside the encoder, the metrics of each alone and of both."""
    with replace_text(folder.predictions) as file:
        writer = TestWriter(job, file, decision)
        if fusion is not None:
            parts = test_fused(job, fusion, decision, stop, writer)
            return parts[BOTH], writer, parts
        batches = stop.guard(split_batches(job, "test"))
        metrics = scorer_of(job, decision).evaluate(job.built.model, batches, writer)
    return metrics, writer, {}


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


def main_metric(metrics: dict[str, Any]) -> tuple[str, float]:
    """The figure a run is judged by."""
    name = next(name for name in JUDGED_BY if name in metrics)
    return name, metrics[name]


def estimate_line(job: Job, peak: int | None, seconds: float | None) -> str:
    """What was estimated before the run beside what was measured."""
    needed = estimated_memory(job).total
    line = f"memory: {format_bytes(needed)} estimated, {format_bytes(peak)} measured"
    if seconds is None:
        return line
    estimated = format_seconds(estimated_seconds(job))
    return f"{line}; training to test: {estimated} estimated, {format_seconds(seconds)} measured"


def test_and_judge(
    job: Job,
    folder: Folder,
    progress: Progress,
    tracker: Tracker,
    weights: str,
    stop: StopRequest,
    fusion: Fusion | None,
    decision: Decision,
) -> Tested:
    """Test once, say the figures, what stands beside them and what is plainly off."""
    metrics, writer, parts = run_test(job, folder, stop, fusion, decision)
    tracker.log_evaluation(progress.step, "test", metrics)
    tracker.log_confusion(progress.step, "test", metrics, job.data.label_names)
    for name in parts:
        tracker.say(evaluation_line(f"test, {name},", progress.step, parts[name]))
    tracker.say(f"{evaluation_line('test', progress.step, metrics)}, with {weights}")
    peak = peak_memory(job.precision.device)
    comparison, verdicts = judge(job, folder, metrics, writer.figures)
    tracker.say(f"compared: {comparison_line(comparison)}")
    for verdict in verdicts:
        tracker.say(f"WARNING: {verdict}")
    decided = writer.decided.results()
    return Tested(metrics, writer.worst(), comparison, verdicts, peak, parts, decided)


def compare_teacher(
    job: Job, folder: Folder, tested: Tested, tracker: Tracker, stop: StopRequest
) -> list[Side]:
    """Teacher and student side by side, where there is a teacher and a test split; both as they are
    opened from disk. Raises Stopped where it was asked to end meanwhile."""
    if job.distilled is None or not tested.metrics:
        return []
    metric, value = main_metric(tested.metrics)
    job.optimizer.zero_grad()
    job.optimizer.state.clear()  # the teacher may need the room
    try:  # a teacher that has gone meanwhile takes nothing from what the student has learnt
        tracker.say(job.distilled.ask("test", stop))
        student, _ = open_predictor(folder, None, job.distilled.allow_code, None)
        sides = put_beside(job.distilled, metric, value, student, folder.model, stop)
    except (OSError, ValueError, RuntimeError, MemoryError) as error:  # a full GPU is the third
        reason = str(error) or type(error).__name__
        tracker.say(f"WARNING: the student stands alone, its teacher cannot be asked: {reason}")
        return []
    tracker.say(side_lines(sides))
    return sides


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
    tracker.say(estimate_line(job, tested.peak, seconds))
    card = make_card(job, folder, command, tested, weights, seconds, sides, fusion, fitted)
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
        "calibration": fitted.with_test(tested.decided),
        "samples": samples,
        "seconds": seconds,
        "peak": tested.peak,
        "files": list_files(folder),
    }
    folder.write_json("result.json", seal(result))
    tracker.say(f"ask it: {ask_command(job, folder)}")
    return result
