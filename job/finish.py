"""What a run leaves when its training is done: the test, predictions, the model, the run card."""

import heapq
import json
import time
from contextlib import suppress
from dataclasses import asdict
from typing import Any, TextIO

import numpy as np
from torch import Tensor

from configs.read import trajectory
from engine.estimate import peak_memory
from engine.losses import Batch
from engine.metrics import MOST_CONFUSED, answers, probabilities
from engine.plan import Progress
from engine.stop import StopRequest
from engine.tracker import Tracker
from files.publish import publish, remove
from files.write import replace_text, save_text
from job.banner import estimated_memory, estimated_seconds
from job.baseline import row_figures
from job.beside import compare_teacher
from job.card import Tested, ask_command, make_card
from job.expect import judge_expectations, recipe_expectations
from job.fit import evaluation_line, load_best, split_batches
from job.folder import Folder
from job.fusion import BOTH, test_fused, try_fuse
from job.judge import judge
from job.pictures import MOST_DRAWN, log_pictures
from job.predictor import Predictor, make_predictor, name_prediction
from job.prepare import Job
from job.scorer import scorer_of
from job.slices import slice_columns, slices_of_test
from job.texts import texts_of
from job.verify import list_files, seal
from models.build import source_state
from models.export import export_model
from models.fast.frozen import restore_exact
from models.ngrams.fusion import Fusion, save_fusion
from report.baseline import comparison_line
from report.card import Mistake, run_card
from report.expect import Expected, expectation_lines
from report.format import format_bytes, format_seconds
from report.samples import Answer, samples_table
from report.slices import slice_table, worse_lines

NOT_ASKED = ("not asked", None)
MISTAKES = 10  # shown on the run card


class TestWriter:
    """Writes one JSON line a test row and remembers the most confident mistakes."""

    __test__ = False  # not a test class

    def __init__(self, job: Job, file: TextIO):
        self.job, self.file = job, file
        self.rows = job.data.splits["test"]
        self.place = {row: i for i, row in enumerate(self.rows["row"])}
        encoded = job.encoded["test"].dataset
        known = "full_length" if "full_length" in encoded.column_names else "length"  # of a bag
        self.tokens = dict(zip(encoded["row"], encoded[known], strict=True))
        self.mistakes: list[tuple[float, int, Mistake]] = []  # a heap, the least confident first
        self.figures = np.zeros(len(self.rows))  # of each row, for the comparison with baselines
        drawn = len(job.data.label_names) if len(job.data.label_names) <= MOST_DRAWN else 0
        self.shares = np.zeros((len(self.rows), drawn), dtype=np.float32)  # for pictures
        self.sure = np.zeros(len(self.rows))
        self.columns = slice_columns(job.config)

    def __call__(self, batch: Batch, logits: Tensor) -> None:
        kind, names = self.job.data.kind, self.job.data.label_names
        scores = probabilities(kind, logits, self.job.target)  # (B, C)
        answered = answers(kind, logits, self.job.target).cpu().numpy()
        places = [self.place[row] for row in batch["rows"].tolist()]
        self.figures[places] = row_figures(kind, answered, batch["labels"].cpu().numpy())
        self.shares[places] = scores[:, : self.shares.shape[1]].cpu().numpy()
        self.sure[places] = scores.max(dim=-1).values.cpu().numpy()
        for row, values in zip(batch["rows"].tolist(), scores.tolist(), strict=True):
            source = self.rows[self.place[row]]
            text = source["text"]
            prediction = name_prediction(text, kind, values, names)
            label = self.name_label(source["label"])
            line = {"row": source["address"], "text": text}
            if "text_pair" in source:
                line["text_pair"] = source["text_pair"]
            line |= {"label": label, "predicted": prediction.label}
            line["probabilities"] = likeliest(prediction.probabilities)
            line["tokens"] = self.tokens[row]
            if self.columns:
                line["slices"] = dict(zip(self.columns, source["slices"], strict=True))
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
    job: Job, folder: Folder, stop: StopRequest, fusion: Fusion | None
) -> tuple[dict[str, Any], TestWriter, dict[str, dict[str, Any]]]:
    """Metrics of the test split, written row by row as they come; what the writer noted; and where
    a bag answers beside the encoder, the metrics of each alone and of both."""
    with replace_text(folder.predictions) as file:
        writer = TestWriter(job, file)
        if fusion is not None:
            parts = test_fused(job, fusion, stop, writer)
            return parts[BOTH], writer, parts
        batches = stop.guard(split_batches(job, "test"))
        metrics = scorer_of(job).evaluate(job.built.model, batches, writer)
    return metrics, writer, {}


def predictor_of(job: Job, fusion: Fusion | None = None) -> Predictor:
    """A predictor for the model as it now is, and for the bag beside it."""
    return make_predictor(
        job.config, job.built.model, job.tokenizer, job.data.kind,
        job.data.label_names, job.precision, job.target, fusion,
    )  # fmt: skip


def predict_samples(job: Job, fusion: Fusion | None = None) -> list[Answer]:
    """What the model says now of the [samples] texts."""
    predictor = predictor_of(job, fusion)
    return [(p.label, p.probability) for p in predictor(job.config.samples.texts)]


def store_samples(job: Job, folder: Folder) -> None:
    """Keep what the model says before training."""
    answers = dict(zip(job.config.samples.texts, predict_samples(job), strict=True))
    folder.write_json("samples.json", answers)


def compare_samples(
    job: Job, folder: Folder, fusion: Fusion | None
) -> tuple[str, dict[str, Answer]]:
    """The table of answers before and after, and those after by text. A text added since the start
    has no answer before."""
    texts, stored = job.config.samples.texts, {}
    with suppress(ValueError):  # damaged or gone: no reason to lose a run by
        stored = folder.read_json("samples.json")
    answers = [stored.get(text) for text in texts]
    before = [
        (answer[0], answer[1]) if isinstance(answer, list) and len(answer) == 2 else NOT_ASKED
        for answer in answers
    ]
    after = predict_samples(job, fusion)
    return samples_table(texts, before, after), dict(zip(texts, after, strict=True))


def save_model(job: Job, folder: Folder, fusion: Fusion | None) -> None:
    """Publish `model/`. One left by an attempt that was killed before the end is replaced."""
    if "frozen" in job.speed.resolved:
        exact = {} if job.distilled is None else job.distilled.exact
        exact = exact or source_state(job.model_args, job.tokenizer, job.built.base)
        restore_exact(job.built.model, exact)
    remove(folder.model)
    with publish(folder.model) as temporary:
        if fusion is not None:
            save_fusion(fusion, job.model_args, temporary)
        export_model(job.built, job.model_args, job.tokenizer, temporary, texts_of(job))


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
) -> Tested:
    """Test once, say the figures, what stands beside them and what is plainly off."""
    metrics, writer, parts = run_test(job, folder, stop, fusion)
    tracker.log_evaluation(progress.step, "test", metrics)
    tracker.log_confusion(progress.step, "test", metrics, job.data.label_names)
    for name in parts:
        tracker.say(evaluation_line(f"test, {name},", progress.step, parts[name]))
    tracker.say(f"{evaluation_line('test', progress.step, metrics, job.metric)}, with {weights}")
    peak = peak_memory(job.precision.device)
    comparison, verdicts = judge(job, folder, metrics, writer.figures)
    tracker.say(f"compared: {comparison_line(comparison)}")
    slices = slices_of_test(job.config, job.data, writer.figures, writer.tokens)
    if slices:
        tracker.say("\n" + slice_table(slices))
        verdicts = [*verdicts, *worse_lines(slices)]
    for verdict in verdicts:
        tracker.say(f"WARNING: {verdict}")
    log_pictures(job, tracker.board, progress.step, writer.shares, writer.sure, writer.figures)
    return Tested(metrics, writer.worst(), comparison, verdicts, peak, parts, slices)


def finish(
    job: Job, folder: Folder, progress: Progress, tracker: Tracker, command: str,
    start: float | None, stop: StopRequest,
) -> dict[str, Any]:  # fmt: skip
    """Test once with the best weights, publish the model, write the card; result.json last.

    `start` is when training began on the clock of time.perf_counter, None for a resumed run, whose
    time cannot be told. Raises Stopped where it was asked to end before the model is written.
    """
    weights = load_best(job, folder, progress)
    fusion = try_fuse(job, tracker.say, stop)
    tested = Tested(peak=peak_memory(job.precision.device))
    if "test" in job.encoded:
        tested = test_and_judge(job, folder, progress, tracker, weights, stop, fusion)
    seconds = None if start is None else time.perf_counter() - start
    stop.check()
    save_model(job, folder, fusion)
    sides = compare_teacher(job, folder, tested, tracker, stop)
    samples: dict[str, Answer] = {}
    if job.config.samples.texts:
        table, samples = compare_samples(job, folder, fusion)
        tracker.log_text(progress.step, "samples", table)
        tracker.say("\n" + table)
    expected: list[Expected] = []
    if job.config.expect:
        expected = judge_expectations(predictor_of(job, fusion), recipe_expectations(job.config))
        tracker.say("\n" + expectation_lines(expected))
    tracker.say(estimate_line(job, tested.peak, seconds))
    card = make_card(job, folder, command, tested, weights, seconds, sides, fusion, expected)
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
        "samples": samples,
        "expectations": [asdict(row) for row in expected],
        "seconds": seconds,
        "peak": tested.peak,
        "files": list_files(folder),
    }
    folder.write_json("result.json", seal(result))
    tracker.say(f"ask it: {ask_command(job, folder)}")
    return result
