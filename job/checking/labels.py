"""Labels that are probably wrong: confident learning over probabilities of unseen rows.

Northcutt, Jiang and Chuang 2021, "Confident Learning: Estimating Uncertainty in Dataset Labels"
(arXiv:1911.00068), as cleanlab works it out. The probabilities are those of a bag of words that has
not seen the row: logistic regression on TF-IDF, FOLDS times on all other folds. scikit-learn and
cleanlab (the extra `check`) are imported here, and only when they are there.
"""

import importlib.util
import math
import warnings
from typing import Any

import numpy as np

from data.checks.shingles import have_no_blanks
from job.checking.examined import INSTALL, Examined
from report.check import Check, Finding
from report.format import format_count, join_names

FOLDS = 5
LEAST = 2 * FOLDS  # rows of a class that is examined
MOST_ROWS = 100_000  # drawn where there are more, so that memory and minutes are bounded
STRENGTH = 10.0  # C of the logistic regression
MOST_BITS, LEAST_BITS, WEIGHT_BITS = 18, 12, 22  # of hashed terms, and of terms times classes


def examine_labels(examined: Examined) -> Check:
    """Rows whose label a model that has not seen them doubts, the most doubtful first."""
    name, kind = "labels", examined.data.kind
    if kind == "regression":
        return Check(name, "numbers; only labels of classes are examined", left_out=True)
    missing = [p for p in ("cleanlab", "sklearn") if importlib.util.find_spec(p) is None]
    if missing:
        return Check(name, f"needs {' and '.join(missing)}: {INSTALL}", left_out=True)
    rows, classes = choose_rows(examined)
    if len(classes) < 2 or len(rows) < LEAST:
        few = f"too few rows: two classes of {LEAST} or more are needed"
        return Check(name, few, left_out=True)
    labels = examined.labels[rows]
    labels = np.searchsorted(classes, labels) if kind == "single" else labels[:, classes]
    chances = unseen_probabilities(hash_terms(examined, rows, len(classes)), labels)  # (N, C)
    doubtful = rank_doubtful(labels, chances)
    names = [examined.data.label_names[i] for i in classes]
    findings = _findings(examined, rows[doubtful], labels[doubtful], chances[doubtful], names)
    headline = f"a bag of words that has not seen them doubts none of {format_count(len(rows))}"
    if findings:
        share = len(findings) / len(rows)
        headline = (
            f"{format_count(len(findings))} of {format_count(len(rows))} labels ({share:.1%}) are "
            "doubted by a bag of words that has not seen the row; the most doubtful first"
        )
    if left := sorted(set(examined.data.label_names) - set(names)):
        headline += f"; not examined: {join_names(left, 4)}, of fewer than {LEAST} rows"
    return Check(name, headline, findings, "read them; data.drop_rows leaves out the wrong ones")


def choose_rows(examined: Examined) -> tuple[np.ndarray, np.ndarray]:
    """The rows that are examined, and the classes, of LEAST rows each, that are told apart."""
    labels = examined.labels
    chosen = np.arange(len(labels))
    if len(chosen) > MOST_ROWS:
        chosen = np.sort(np.random.default_rng(0).permutation(len(chosen))[:MOST_ROWS])
    if labels.ndim == 2:
        held = labels[chosen].sum(axis=0)
        return chosen, np.flatnonzero((held >= LEAST) & (held <= len(chosen) - LEAST))
    there, counts = np.unique(labels[chosen], return_counts=True)
    classes = there[counts >= LEAST]
    return chosen[np.isin(labels[chosen], classes)], classes


def hash_terms(examined: Examined, rows: np.ndarray, classes: int) -> Any:
    """(N, terms) sparse TF-IDF of one- and two-word terms, of letters where there are no blanks.

    Terms are hashed, so memory does not grow with the vocabulary; the more classes, the fewer.
    """
    from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer

    sample = map(" ".join, examined.read(rows[:: max(1, len(rows) // 500)].tolist()))
    letters = have_no_blanks(sample)
    bits = min(MOST_BITS, max(LEAST_BITS, WEIGHT_BITS - math.ceil(math.log2(classes))))
    hashed = HashingVectorizer(
        analyzer="char" if letters else "word", ngram_range=(1, 2), n_features=2**bits,
        alternate_sign=False, norm=None, dtype=np.float32,
    )  # fmt: skip
    wanted = np.zeros(len(examined.table), dtype=bool)
    wanted[rows] = True
    texts = (text for text, used in zip(examined.joined(), wanted, strict=True) if used)
    return TfidfTransformer(sublinear_tf=True).fit_transform(hashed.transform(texts))


def unseen_probabilities(terms: Any, labels: np.ndarray) -> np.ndarray:
    """(N, C): for each row what a model says that has not seen it. `labels` are (N,) indices of
    classes that all have a row in each fold, or (N, C) of 0 and 1."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import KFold, StratifiedKFold
    from sklearn.multiclass import OneVsRestClassifier

    multi = labels.ndim == 2
    model: Any = LogisticRegression(C=STRENGTH, max_iter=200)
    model = OneVsRestClassifier(model) if multi else model
    folds = (KFold if multi else StratifiedKFold)(FOLDS, shuffle=True, random_state=0)
    chances = np.zeros((len(labels), labels.shape[1] if multi else labels.max() + 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a label that a fold lacks, a last digit not converged
        for seen, unseen in folds.split(terms, None if multi else labels):
            fitted = model.fit(terms[seen], labels[seen])
            chances[unseen] = fitted.predict_proba(terms[unseen])
    return chances


def rank_doubtful(labels: np.ndarray, chances: np.ndarray) -> np.ndarray:
    """Rows whose label is probably wrong, the most doubtful first, by confident learning."""
    from cleanlab.filter import find_label_issues

    multi = labels.ndim == 2
    own = [np.flatnonzero(row).tolist() for row in labels] if multi else labels
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ranked: np.ndarray = find_label_issues(
            own, chances, return_indices_ranked_by="self_confidence", n_jobs=1,
            multi_label=multi,
        )  # fmt: skip
    return ranked


def _findings(
    examined: Examined,
    rows: np.ndarray,
    labels: np.ndarray,
    chances: np.ndarray,
    names: list[str],
) -> list[Finding]:
    addresses, excerpts = examined.addresses(rows.tolist()), examined.excerpts(rows.tolist())
    told = zip(rows, addresses, excerpts, labels, chances, strict=True)
    findings = []
    for row, address, excerpt, label, chance in told:
        if labels.ndim == 2:
            own = [name for name, on in zip(names, label, strict=True) if on]
            likely = [name for name, value in zip(names, chance, strict=True) if value > 0.5]
            words = f"{', '.join(own) or 'none'}, rather {', '.join(likely) or 'none'}"
            details: dict[str, Any] = {"label": own, "suggested": likely}
        else:
            best = int(chance.argmax())
            words = f"{names[label]} ({chance[label]:.0%}), rather {names[best]}"
            details = {
                "label": names[label], "suggested": names[best],
                "probability": round(float(chance[label]), 4),
            }  # fmt: skip
        split = str(examined.split[row])
        details |= {"split": split, "texts": [excerpt]}
        message = f"{address} ({split}): {words}"
        findings.append(
            Finding(
                "label_error", "warning", message, [address], "data.drop_rows", [address], details
            )
        )
    return findings
