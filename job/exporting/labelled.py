"""Labelled test rows: what openloop answers to them, and how an export's answers differ."""

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data.encode import encode_texts
from data.prepare import Data
from engine.precision import choose_precision
from job.exporting.decided import outputs_of
from job.exporting.format import Parity, Source, Written
from job.exporting.questions import Own, largest
from job.predicting.naming import Prediction, Text, name_predictions
from job.predicting.predictor import CHUNK, Predictor, length_args, make_predictor, open_predictor
from job.rows import load_rows
from job.testing.score import check_same_rows
from report.format import clean_line, shorten

LONG = 5000  # tokens of the one text that is longer than any model takes
SHOWN = 5  # rows that are answered otherwise


@dataclass(frozen=True)
class Reference:
    """Cleaned texts, (N, C) logits of what was written in fp32, and the labels of the rows where
    they have one: None for the long text."""

    texts: list[Text]
    logits: Tensor
    labels: list[Any]


def load_test(source: Source, most: int) -> tuple[list[Text], list[Any], str]:
    """The first `most` test rows, or where none is for the test of the validation; their labels;
    which they are. Raises ValueError where they have changed since the training."""
    data: Data = load_rows(source.config)
    split = "test" if "test" in data.splits else "validation"
    check_same_rows(source.config, source.folder, data.fingerprint, [*data.splits, "test"])
    if split not in data.splits:
        raise ValueError(
            f"{source.folder.path} has neither test nor validation rows, and an export is not "
            "written without being checked on some"
        )
    rows = data.splits[split].select(range(min(most, len(data.splits[split]))))
    texts = list(zip(rows["text"], rows["text_pair"], strict=True)) if (
        "text_pair" in rows.column_names
    ) else list(rows["text"])  # fmt: skip
    return texts, list(rows["label"]), f"{split} rows"


def long_text(texts: list[Text], source: Source) -> Text:
    """A text of more than LONG tokens, of the rows' own words; of a pair the first is so long."""
    firsts = [text if isinstance(text, str) else text[0] for text in texts]
    joined = " ".join(firsts)
    single = length_args(source.config)
    (row,) = encode_texts(source.tokenizer, [joined], None, single)
    joined = " ".join([joined] * (LONG // max(1, row["full_length"]) + 1))
    return joined if isinstance(texts[0], str) else (joined, texts[0][1])


def ask_labelled(source: Source, most: int) -> Own:
    """The rows, cleaned as in training, and one long text; openloop's answers to them."""
    assert source.texts is not None
    texts, labels, rows = load_test(source, most)
    opened, _ = open_predictor(source.folder, "cpu", source.args.allow_code,
                               source.base, source.args.allow_network)  # fmt: skip
    texts.append(long_text(texts, source))
    first, second = opened.clean_parts(texts)
    texts = list(zip(first, second, strict=True)) if second else list(first)
    answer(opened, texts[: opened.micro_batch_size])  # the first batch takes longer
    start = time.perf_counter()
    whole = answer(opened, texts)
    seconds = time.perf_counter() - start
    logits = whole
    fusion = source.fusion if source.joined else None
    if opened.precision.dtype != "fp32" or source.fusion is not fusion:
        fp32 = choose_precision("cpu", "fp32")
        plain = make_predictor(
            source.config, source.model, source.tokenizer, source.decision,
            source.args.label_names, fp32, fusion,
        )  # fmt: skip
        logits = answer(plain, texts)
    questions = {
        "task": "classify", "texts": texts, "labels": list(source.args.label_names),
        "kind": source.args.kind, "likeliest": not source.decision.thresholds,
        "batch": 1 if source.texts.alone else opened.micro_batch_size,
        "threads": torch.get_num_threads(),
    }  # fmt: skip
    reference = Reference(texts, logits, [*labels, None])
    return Own(
        questions, f"{len(labels):,} {rows} and one text of {LONG:,} tokens",
        opened.precision.dtype, seconds, len(texts), "rows", reference,
        beside(source, opened, reference, whole),
    )  # fmt: skip


def answer(predictor: Predictor, texts: list[Text]) -> Tensor:
    """(N, C) logits of cleaned texts, fp32."""
    return torch.cat([predictor.logits(texts[i : i + CHUNK]) for i in range(0, len(texts), CHUNK)])


def beside(source: Source, opened: Predictor, reference: Reference, whole: Tensor) -> list[str]:
    """What the run answers otherwise than the model that was written: a bag, another precision."""
    texts, names, notes = reference.texts, source.args.label_names, []
    alone = name_predictions(texts, source.decision, reference.logits, names)
    both = name_predictions(texts, opened.decision, whole, names)
    if source.fusion is not None and not source.joined:
        of_both, of_one = (
            quality(right_ones(source, predictions, reference.labels), source, predictions,
                    reference.labels)
            for predictions in (both, alone)
        )  # fmt: skip
        notes.append(
            "The run answers with a bag of n-grams beside its encoder, and this is the encoder "
            f"alone: on these rows {of_both} with the bag, {of_one} without."
        )
    elif opened.precision.dtype != "fp32" and source.args.kind != "regression":
        equal = sum(a.label == b.label for a, b in zip(alone, both, strict=True))
        notes.append(
            f"The run itself answers in {opened.precision.dtype}, which rounds: it answers "
            f"{equal:,} of {len(texts):,} rows as fp32 does."
        )
    return notes


def right_ones(
    source: Source, predictions: list[Prediction], labels: list[Any]
) -> np.ndarray | None:
    """(N,) whether each row with a label is answered by it; None of numbers."""
    if source.args.kind == "regression":
        return None
    names = source.args.label_names
    truth = [
        names[label] if isinstance(label, int) else
        tuple(n for n, holds in zip(names, label, strict=True) if holds > 0.5)
        for label in labels if label is not None
    ]  # fmt: skip
    predicted = [p.labels if source.args.kind == "multi" else p.label for p in predictions]
    return np.array([a == b for a, b in zip(predicted, truth, strict=False)])


def quality(
    right: np.ndarray | None, source: Source, predictions: list[Prediction], labels: list[Any]
) -> str:
    """A figure of the rows with labels, in words."""
    if right is not None:
        return f"accuracy is {right.mean():.4f}"
    values = np.array([p.probabilities["value"] for p in predictions[: len(labels)]], dtype=float)
    known = [(v, label) for v, label in zip(values, labels, strict=True) if label is not None]
    return f"the mean absolute error is {np.mean([abs(v - label) for v, label in known]):.4g}"


def compare_labelled(source: Source, written: Written, own: Own, answers: dict[str, Any]) -> Parity:
    """Task.compare() of labelled rows."""
    reference: Reference = own.reference
    kind, names = source.args.kind, source.args.label_names
    outputs = torch.tensor(answers["outputs"], dtype=torch.float64)  # (N, C)
    wanted = outputs_of(reference.logits, source.decision, written.decision)
    if outputs.shape != wanted.shape:
        raise ValueError(f"got outputs {tuple(outputs.shape)}, expected {tuple(wanted.shape)}")
    shares = source.decision.probabilities(reference.logits)
    their_shares = written.decision.probabilities(outputs.float())
    if kind != "regression" and answers["shares"] is not None:
        their_shares = torch.tensor(answers["shares"], dtype=torch.float64)
    # of numbers both are differences in standard deviations of the labels
    unit = source.decision.target.deviation if kind == "regression" else 1.0
    scale = unit / written.decision.target.deviation if kind == "regression" else 1.0
    ours = name_predictions(reference.texts, source.decision, reference.logits, names)
    theirs = name_predictions(reference.texts, written.decision, outputs.float(), names)
    if answers["labels"] is not None:
        theirs = [
            Prediction(p.text, label if isinstance(label, str) else p.label, None, {},
                       () if isinstance(label, str) else tuple(label))
            for p, label in zip(theirs, answers["labels"], strict=True)
        ]  # fmt: skip
    alike = [(a.labels == b.labels) if kind == "multi" else (a.label == b.label)
             for a, b in zip(ours, theirs, strict=True)]  # fmt: skip
    return Parity(
        rows=len(reference.texts),
        equal=None if kind == "regression" else sum(alike),
        shares=largest((their_shares - shares) / unit),
        outputs=largest((outputs - wanted) / scale),
        differing=[] if kind == "regression" else [
            line_of(a, b) for a, b, same in zip(ours, theirs, alike, strict=True) if not same
        ][:SHOWN],
        right=right_ones(source, theirs, reference.labels),
        own_right=right_ones(source, ours, reference.labels),
        extra=answers.get("extra", {}),
    )  # fmt: skip


def line_of(ours: Prediction, theirs: Prediction) -> str:
    """A row that is answered otherwise."""
    text = ours.text if isinstance(ours.text, str) else " | ".join(ours.text)
    label = ", ".join(theirs.labels) if theirs.labels else theirs.label
    return f"{shorten(clean_line(text), 60)}: {label}, not {ours.label}"
