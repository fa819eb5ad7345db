"""A finished run is judged: its test figure beside baselines, and what is plainly off with it."""

from collections import Counter
from typing import Any

import numpy as np

from data.labels.settle import Kind, label_array
from data.prepare import Data, learnt_rows
from engine.intervals import Interval, paired_interval
from engine.tracker import LOG, read_log
from job.folder import Folder
from job.job import Job
from job.testing.baseline import (
    FEW_STRENGTHS,
    INSTALL,
    MOST_ROWS,
    BagOfWords,
    Rows,
    figure,
    fit_bag_of_words,
    is_installed,
    row_figures,
    rows_of,
)
from models.args import ModelArgs
from models.ngrams.bag import SOURCE
from report.baseline import CONSTANTS, Comparison
from report.compare import LESS_IS_BETTER
from report.format import format_number
from report.verdict import ClassCount, Evaluation, Evidence, Settings, verdict_lines

MOST_CLASSES = 300  # of a bag of words beside a run: its time and memory go with terms * classes
USUAL_LR = {True: 1e-3, False: 5e-5}  # whether new weights alone train: adapters, a head


def constant_answer(data: Data) -> tuple[np.ndarray, str]:
    """What fits most training rows without reading them, shaped as one label, and its name."""
    labels, names = label_array(data.splits["train"], data.kind), data.label_names
    if data.kind == "regression":
        mean = float(labels.mean())
        return np.array(mean), format_number(mean)
    if data.kind == "multi":
        common = Counter(map(tuple, labels.tolist())).most_common(1)[0][0]
        held = [name for name, on in zip(names, common, strict=True) if on]
        return np.array(common), ", ".join(held) or "none of them"
    commonest = int(np.bincount(labels, minlength=len(names)).argmax())
    return np.array(commonest), names[commonest]


def ahead_of(kind: Kind, own: np.ndarray, other: np.ndarray) -> Interval:
    """How far the own figure is ahead, from two row_figures() (N,): in accuracy, or in rmse."""
    if kind == "regression":
        return paired_interval(other, own, root=True)
    return paired_interval(own, other)


def compare(data: Data, figures: np.ndarray, baseline: bool) -> tuple[Comparison, Interval]:
    """The test figure beside its baselines, and how far it is ahead of the constant answer.

    `figures` are the model's row_figures() (N,) in the order of the test rows. With `baseline` a
    bag of words is fitted on the training rows.
    """
    kind, test = data.kind, rows_of(data, "test")
    answer, name = constant_answer(data)
    constant = row_figures(kind, np.broadcast_to(answer, test.labels.shape), test.labels)
    note, words, ahead = "", None, None
    if baseline and not is_installed():
        note = INSTALL
    elif baseline:
        bag, note = fit_beside(data, test)
        if bag is not None:
            words = row_figures(kind, bag.answers, test.labels)
            ahead = ahead_of(kind, figures, words)
    comparison = Comparison(
        metric="rmse" if kind == "regression" else "accuracy",
        value=figure(kind, figures),
        constant=figure(kind, constant),
        constant_answer=name,
        kind=kind,
        bag_of_words=None if words is None else figure(kind, words),
        ahead=ahead,
        note=note,
    )
    return comparison, ahead_of(kind, figures, constant)


def fit_beside(data: Data, test: Rows) -> tuple[BagOfWords | None, str]:
    """A bag of words in seconds, and what the reader has to know of it. What goes wrong with it is
    said, and costs the finished run nothing."""
    if data.kind != "regression" and len(data.label_names) > MOST_CLASSES:
        return None, f"none beside {len(data.label_names):,} classes, which takes minutes"
    rows = {split: rows_of(data, split, MOST_ROWS) for split in data.splits if split != "test"}
    try:
        bag = fit_bag_of_words(data.kind, {**rows, "test": test}, FEW_STRENGTHS, quick=True)
    except (ValueError, MemoryError, ImportError, RuntimeError) as error:
        return None, f"it could not be fitted ({error})"
    if bag is None:
        return None, "no terms in the texts, or one class alone"
    total = len(learnt_rows(data))
    notes = [f"{MOST_ROWS:,} training rows"] if total > MOST_ROWS else []
    return bag, ", ".join([*notes, *(["of letters"] if bag.letters else [])])


def judge(
    job: Job, folder: Folder, metrics: dict[str, Any], figures: np.ndarray
) -> tuple[Comparison, list[str]]:
    """The comparison of a tested run, and its verdicts."""
    comparison, above = compare(job.data, figures, job.config.eval.baseline)
    return comparison, verdict_lines(gather(job, folder, metrics, comparison, above))


def gather(
    job: Job, folder: Folder, metrics: dict[str, Any], comparison: Comparison, above: Interval
) -> Evidence:
    """What the run shows, as plain values. The history is read from metrics.jsonl, so that a
    resumed run is judged as a whole."""
    train = job.config.train
    lines = list(read_log(folder.path / LOG))
    sign = -1 if job.metric in LESS_IS_BETTER else 1
    encoded = job.encoded["train"]
    return Evidence(
        settings=Settings(
            lr=train.lr,
            usual_lr=USUAL_LR[trains_new_weights(job.model_args)],
            epochs=train.epochs,
            max_steps=job.plan.total_steps if ended_by_steps(job) else None,
            class_weights=train.class_weights is not None,
            stops_early=job.config.eval.patience is not None,
            max_length=job.config.data.max_length,
            long=job.config.data.long,
            most_length=job.tokenizer.model_max_length,
        ),
        losses=[line["train/loss"] for line in lines if line.get("train/loss") is not None],
        evaluations=[
            Evaluation(line["step"], line["eval/loss"], sign * line[f"eval/{job.metric}"])
            for line in lines
            if line.get("eval/loss") is not None and line.get(f"eval/{job.metric}") is not None
        ],
        steps_per_epoch=job.plan.steps_per_epoch,
        test_rows=metrics["n"],
        constant=f"the {CONSTANTS[job.data.kind]} ({comparison.constant_answer})",
        above_constant=above,
        r2=metrics.get("r2"),
        classes=class_counts(job.data.label_names, metrics),
        tokens=encoded.tokens + encoded.cut_tokens,
        cut_tokens=encoded.cut_tokens,
    )


def ended_by_steps(job: Job) -> bool:
    """Whether train.max_steps ends the run before its epochs are through."""
    return job.plan.total_steps < job.config.train.epochs * job.plan.steps_per_epoch


def trains_new_weights(args: ModelArgs) -> bool:
    """Whether all that learns begins from scratch, at rates that would spoil pretrained weights:
    adapters, a head, a bag of n-grams."""
    return args.method is not None or args.trains == "head" or args.source == SOURCE


def class_counts(names: tuple[str, ...], metrics: dict[str, Any]) -> list[ClassCount]:
    """Test rows of each class, those that are given it, and those that both holds for."""
    return [
        ClassCount(name, row["n"], row["predicted"], round(row["recall"] * row["n"]))
        for name, row in zip(names, metrics.get("classes", []), strict=False)
    ]
