"""A bag of words on the rows of a run: what a fine-tuned model has to beat.

TF-IDF of one- and two-word terms with sublinear counts, and a linear model on them: logistic
regression for classes (one a class for several labels), ridge regression for numbers. How much the
weights are held back is chosen on the validation rows. scikit-learn is imported here alone, and
only when a baseline is asked for.
"""

import importlib.util
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from data.checks.shingles import have_no_blanks
from data.labels.settle import Kind, label_array
from data.prepare import Data, learnt_rows
from engine.targets import IDENTITY, Target, measure_target

STRENGTHS = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)  # C: the larger, the less the weights are held back
FEW_STRENGTHS = (1.0, 10.0, 100.0)  # beside a run, where seconds count
UNCHOSEN = 10.0  # where there are no validation rows
MOST_ROWS = 10_000  # training rows beside a run
MOST_TERMS = 30_000  # of a quick fit
INSTALL = "pip install scikit-learn"


@dataclass(frozen=True)
class Rows:
    """Texts of a split, and their labels: (N,) class indices, (N, C) of 0 and 1, (N,) numbers."""

    texts: Sequence[str]
    labels: np.ndarray


@dataclass(frozen=True)
class BagOfWords:
    """What the baseline answers on the test rows, shaped as their labels, and how it came about."""

    answers: np.ndarray
    strength: float
    validation: float  # its figure there: accuracy or minus rmse; 0 where there are no such rows
    letters: bool  # terms of letters, where the texts have no blanks between words


def is_installed() -> bool:
    """Whether scikit-learn is there."""
    return importlib.util.find_spec("sklearn") is not None


def rows_of(data: Data, split: str, most: int | None = None) -> Rows:
    """The rows of a split, or so many drawn from all over; of a pair both texts, one behind the
    other. Training rows are all that anything in the run learns from."""
    rows = learnt_rows(data) if split == "train" else data.splits[split]
    if most is not None and len(rows) > most:
        chosen = np.random.default_rng(0).permutation(len(rows))[:most]
        rows = rows.select(np.sort(chosen))
    texts = list(rows["text"])
    if "text_pair" in rows.column_names:
        texts = [f"{one} {other}" for one, other in zip(texts, rows["text_pair"], strict=True)]
    return Rows(texts, label_array(rows, data.kind))


def fit_bag_of_words(
    kind: Kind,
    splits: Mapping[str, Rows],
    strengths: Sequence[float] = STRENGTHS,
    quick: bool = False,
) -> BagOfWords | None:
    """Fit on "train", choose on "validation" where there is one, answer "test".

    None where nothing can be learned: no term in any text, or one class alone. `quick` takes the
    most frequent terms alone, the fewer the more classes there are.
    """
    train, held_out = splits["train"], splits.get("validation")
    if kind != "regression" and len(np.unique(train.labels, axis=0)) < 2:
        return None
    vectors = _vectorizer(train.texts, _most_terms(kind, train.labels) if quick else None)
    try:
        terms = vectors.fit_transform(train.texts)  # (N, terms) sparse
    except ValueError:  # an empty vocabulary
        return None
    labels, target = train.labels, IDENTITY
    if kind == "regression":  # in deviations: scikit-learn rounds numbers to the terms' fp32
        target = measure_target(labels)
        labels = target.standardise(torch.from_numpy(labels)).numpy()
    if held_out is None:
        strengths = (UNCHOSEN,)
    else:
        held_out_terms = vectors.transform(held_out.texts)
    best: tuple[float, float, Any] | None = None
    for strength in strengths:
        model, reached = _fit(kind, strength, terms, labels), 0.0
        if held_out is not None:
            reached = score(kind, _answer(kind, model, held_out_terms, target), held_out.labels)
        if best is None or reached > best[0]:  # of equals the smaller strength
            best = (reached, strength, model)
    assert best is not None
    reached, strength, model = best
    answers = _answer(kind, model, vectors.transform(splits["test"].texts), target)
    return BagOfWords(answers, strength, reached, vectors.analyzer == "char")


def row_figures(kind: Kind, answers: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(N,): 1 where a row is right and else 0; of a regression its squared error."""
    if kind == "regression":
        return np.square(answers - labels)
    return right_rows(answers, labels)


def figure(kind: Kind, figures: np.ndarray) -> float:
    """Accuracy, or rmse, of row_figures()."""
    mean = float(figures.mean())
    return mean**0.5 if kind == "regression" else mean


def score(kind: Kind, answers: np.ndarray, labels: np.ndarray) -> float:
    """The larger, the better: the share of rows that are right, or minus the rmse."""
    reached = figure(kind, row_figures(kind, answers, labels))
    return -reached if kind == "regression" else reached


def right_rows(answers: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(N,) of 0 and 1: whether a row's class, or all its labels, are met."""
    equal = answers == labels
    return (equal if equal.ndim == 1 else equal.all(axis=1)).astype(float)


def _most_terms(kind: Kind, labels: np.ndarray) -> int:
    """Terms that keep a quick fit to seconds: its time goes with terms times classes."""
    if kind == "regression":
        return MOST_TERMS
    classes = labels.shape[1] if kind == "multi" else len(np.unique(labels))
    return max(1000, min(MOST_TERMS, 5 * MOST_TERMS // classes))


def _vectorizer(texts: Sequence[str], most_terms: int | None) -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer

    sample = texts[:: max(1, len(texts) // 1000)]
    letters = have_no_blanks(sample)
    return TfidfVectorizer(
        analyzer="char" if letters else "word", ngram_range=(1, 2), sublinear_tf=True,
        max_features=most_terms, dtype=np.float32,
    )  # fmt: skip


def _answer(kind: Kind, model: Any, terms: Any, target: Target) -> np.ndarray:
    """What a model answers for `terms` (N, terms), shaped as the labels; numbers in their unit."""
    answers = np.asarray(model.predict(terms))
    if kind != "regression":
        return answers
    return target.restore(torch.from_numpy(answers)).numpy()


def _fit(kind: Kind, strength: float, terms: Any, labels: np.ndarray) -> Any:
    """A linear model of this strength on `terms` (N, terms)."""
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.multiclass import OneVsRestClassifier

    model: Any
    if kind == "regression":
        model = Ridge(alpha=1 / strength)
    else:
        model = LogisticRegression(C=strength, max_iter=1000)
        if kind == "multi":
            model = OneVsRestClassifier(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a label that no row has, a last digit not converged
        return model.fit(terms, labels)
