"""The test of a trained model: its figures, a line a row, and what is plainly off."""

import heapq
import math
from typing import Any, TextIO

import numpy as np
from torch import Tensor

from engine.decision import Decision
from engine.estimate import peak_memory
from engine.losses import Batch
from engine.plan import Progress
from engine.stop import StopRequest
from engine.tracker import Tracker
from files.write import replace_text, to_json
from job.fit import split_batches
from job.folder import Folder
from job.job import Job
from job.predicting.naming import name_predictions
from job.reporting.card import Tested
from job.reporting.pictures import MOST_DRAWN, log_pictures
from job.reporting.predictions import MOST_SHARES
from job.rows import slice_columns
from job.testing.baseline import row_figures
from job.testing.decide import DecisionCounter
from job.testing.fusion import BOTH, test_fused
from job.testing.judge import judge
from job.testing.scorer import scorer_of
from job.testing.slices import slices_of_test
from models.ngrams.fusion import Fusion
from report.baseline import comparison_line
from report.card import Mistake
from report.evaluation import evaluation_line
from report.slices import slice_table, worse_lines
from report.verdict import no_numbers

REMEMBERED = 20  # mistakes; explained where that costs little


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
        drawn = len(job.data.label_names) if len(job.data.label_names) <= MOST_DRAWN else 0
        self.shares = np.zeros((len(self.rows), drawn), dtype=np.float32)  # for pictures
        self.sure = np.zeros(len(self.rows))
        self.no_numbers: list[str] = []  # addresses of rows with logits that are none
        self.columns = slice_columns(job.config)
        self.decided = DecisionCounter(decision)

    def __call__(self, batch: Batch, logits: Tensor) -> None:
        kind, names = self.job.data.kind, self.job.data.label_names
        logits, labels = logits.float().cpu(), batch["labels"].cpu().numpy()
        answered = self.decision.answers(logits).numpy()
        places = [self.place[row] for row in batch["rows"].tolist()]
        self.figures[places] = row_figures(kind, answered, labels)
        shares = self.decision.probabilities(logits)  # (B, C)
        self.decided.update(logits, labels, shares)
        self.shares[places] = shares[:, : self.shares.shape[1]].nan_to_num(0.0)
        sources = [self.rows[place] for place in places]
        no_numbers = (~logits.isfinite().all(dim=1)).tolist()
        self.no_numbers += [s["address"] for s, odd in zip(sources, no_numbers, strict=True) if odd]
        predictions = name_predictions(
            [source["text"] for source in sources], self.decision, logits, names, shares
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
            if self.columns:
                line["slices"] = dict(zip(self.columns, source["slices"], strict=True))
            self.file.write(to_json(line) + "\n")
            sure = prediction.probability
            if sure is None or math.isnan(sure):
                continue
            self.sure[self.place[row]] = sure
            if kind == "single" and prediction.label != label:
                mistake = Mistake(source["address"], text, label, prediction.label, sure)
                heapq.heappush(self.mistakes, (sure, row, mistake))
                if len(self.mistakes) > REMEMBERED:
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
    """All of them, in the labels' order; of more than MOST_SHARES classes so many, the likeliest
    first: a file of all would grow with rows times classes."""
    if len(probabilities) <= MOST_SHARES:
        return probabilities
    largest = heapq.nlargest(MOST_SHARES, probabilities.items(), key=lambda item: item[1])
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
        metrics = scorer_of(job, decision).evaluate(job.built.model, batches, writer, shared=True)
    return metrics, writer, {}


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
    tracker.say(f"{evaluation_line('test', progress.step, metrics, job.metric)}, with {weights}")
    peak = peak_memory(job.precision.device)
    comparison, verdicts = judge(job, folder, metrics, writer.figures)
    tracker.say(f"compared: {comparison_line(comparison)}")
    if writer.no_numbers:
        dtype = job.precision.dtype
        verdicts = [no_numbers(writer.no_numbers, len(writer.rows), dtype), *verdicts]
    slices = slices_of_test(job.config, job.data, writer.figures, writer.tokens)
    if slices:
        tracker.say("\n" + slice_table(slices))
        verdicts = [*verdicts, *worse_lines(slices)]
    for verdict in verdicts:
        tracker.say(f"WARNING: {verdict}")
    log_pictures(job, tracker.board, progress.step, writer.shares, writer.sure, writer.figures)
    decided = writer.decided.results()
    return Tested(metrics, writer.worst(), comparison, verdicts, peak, parts, slices, decided)
