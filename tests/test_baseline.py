"""The bag of words and the constant answer: held against scikit-learn and plain arithmetic."""

import builtins
import sys
from types import SimpleNamespace as Namespace

import datasets
import numpy as np
import pytest
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge

from job.testing.baseline import Rows, fit_bag_of_words, right_rows, row_figures, rows_of, score
from job.testing.judge import compare, constant_answer
from report.baseline import comparison_line

GOOD, BAD = ["good", "great", "moving"], ["bad", "awful", "boring"]
NAMES = ("neg", "pos")


def make_texts(rows, seed=0, noise=0.2):
    """Texts of which most tell their class, and the classes (N,)."""
    random = np.random.default_rng(seed)
    labels = np.arange(rows) % 2
    told = np.where(random.random(rows) < noise, 1 - labels, labels)
    return [f"a {(BAD, GOOD)[t][i % 3]} film {i % 7}" for i, t in enumerate(told)], labels


@pytest.fixture
def rows():
    texts, labels = make_texts(200)
    parts = {"train": slice(0, 120), "validation": slice(120, 160), "test": slice(160, 200)}
    return {name: Rows(texts[part], labels[part]) for name, part in parts.items()}


def make_data(rows, kind="single"):
    splits = {
        name: datasets.Dataset.from_dict({"text": r.texts, "label": r.labels})
        for name, r in rows.items()
    }
    return Namespace(kind=kind, splits=splits, label_names=NAMES, left_out=None)


def by_hand(model, rows):
    vectors = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, dtype=np.float32)
    model.fit(vectors.fit_transform(rows["train"].texts), rows["train"].labels)
    return [model.predict(vectors.transform(rows[s].texts)) for s in ("validation", "test")]


def test_classes_are_answered_as_by_the_best_of_the_strengths(rows):
    bag = fit_bag_of_words("single", rows, (0.01, 1.0, 100.0))
    figures = {}
    for strength in (0.01, 1.0, 100.0):
        validation, test = by_hand(LogisticRegression(C=strength, max_iter=1000), rows)
        figures[strength] = (validation == rows["validation"].labels).mean()
        if strength == bag.strength:
            assert bag.answers.tolist() == test.tolist()
    assert bag.validation == max(figures.values()) == figures[bag.strength]


def test_numbers_are_answered_as_by_ridge_regression(rows):
    numbers = {n: Rows(r.texts, 100 + 7.5 * r.labels) for n, r in rows.items()}
    bag = fit_bag_of_words("regression", numbers, (1.0,))
    assert bag.answers == pytest.approx(by_hand(Ridge(alpha=1.0), numbers)[1])
    assert bag.validation == pytest.approx(
        score("regression", by_hand(Ridge(alpha=1.0), numbers)[0], numbers["validation"].labels)
    )


@pytest.mark.parametrize(("mean", "deviation"), [(1.7e9, 1.0), (0.0, 1e40), (-3.0, 1e-9)])
def test_numbers_of_any_size_are_answered_alike(rows, mean, deviation):
    plain = {n: Rows(r.texts, 1.0 * r.labels) for n, r in rows.items()}
    other = {n: Rows(r.texts, mean + deviation * r.labels) for n, r in rows.items()}
    answers = fit_bag_of_words("regression", other, (1.0,)).answers
    expected = fit_bag_of_words("regression", plain, (1.0,)).answers
    assert (answers - mean) / deviation == pytest.approx(expected, abs=1e-5)


def test_each_of_several_labels_has_a_model_of_its_own(rows):
    several = {
        n: Rows(r.texts, np.stack([r.labels, 1 - r.labels, 0 * r.labels], axis=1).astype(float))
        for n, r in rows.items()
    }
    bag = fit_bag_of_words("multi", several, (1.0,))
    _, first = by_hand(LogisticRegression(C=1.0, max_iter=1000), rows)
    assert bag.answers[:, 0].tolist() == first.tolist()
    assert bag.answers[:, 2].max() == 0  # a label that no row has


def test_without_validation_rows_the_strength_is_fixed(rows):
    del rows["validation"]
    bag = fit_bag_of_words("single", rows, (1.0, 100.0))
    assert (bag.strength, bag.validation) == (10.0, 0.0)


@pytest.mark.parametrize("texts", [["…", "!"] * 60, ["a", "b"] * 60])
def test_texts_without_terms_have_no_baseline(rows, texts):
    rows["train"] = Rows(texts, rows["train"].labels)
    assert fit_bag_of_words("single", rows) is None


def test_one_class_alone_has_no_baseline(rows):
    rows["train"] = Rows(rows["train"].texts, 0 * rows["train"].labels)
    assert fit_bag_of_words("single", rows) is None


def test_texts_without_blanks_are_taken_by_letters(rows):
    chinese = {
        n: Rows(
            ["这部电影非常好看我很喜欢" if y else "太差了完全不推荐给大家" for y in r.labels],
            r.labels,
        )
        for n, r in rows.items()
    }
    bag = fit_bag_of_words("single", chinese)
    assert bag.letters
    assert right_rows(bag.answers, chinese["test"].labels).mean() == 1.0


def test_many_rows_are_sampled_from_all_over_and_pairs_are_joined():
    columns = {"text": ["a"] * 100, "text_pair": [str(i) for i in range(100)], "label": range(100)}
    splits = {"train": datasets.Dataset.from_dict(columns)}
    rows = rows_of(Namespace(kind="single", splits=splits, left_out=None), "train", 20)
    assert len(rows.texts) == 20
    assert rows.labels.max() > 60
    assert rows.texts == [f"a {label}" for label in rows.labels]


@pytest.mark.parametrize("kind", ["single", "multi", "regression"])
def test_the_constant_answer_is_that_of_scikit_learn(kind):
    random = np.random.default_rng(3)
    labels = {
        "single": random.choice(2, 60, p=[0.3, 0.7]),
        "multi": random.choice(2, (60, 2), p=[0.2, 0.8]).astype(float),
        "regression": random.normal(50, 10, 60),
    }[kind]
    splits = {"train": datasets.Dataset.from_dict({"label": labels[:40]})}
    answer, name = constant_answer(Namespace(kind=kind, splits=splits, label_names=NAMES))
    figures = row_figures(kind, np.broadcast_to(answer, labels[40:].shape), labels[40:])
    x = np.zeros((40, 1))
    if kind == "regression":
        predicted = DummyRegressor().fit(x, labels[:40]).predict(x[:20])
        assert figures == pytest.approx((predicted - labels[40:]) ** 2)
    else:
        model = DummyClassifier(strategy="most_frequent").fit(x, labels[:40])
        assert figures.mean() == pytest.approx((model.predict(x[:20]) == labels[40:]).all(-1).mean()
                                               if kind == "multi" else
                                               model.score(x[:20], labels[40:]))  # fmt: skip
        assert name in ("pos", "neg, pos")


def test_the_line_says_all_figures_and_their_difference(rows):
    figures = np.ones(40)
    comparison, above = compare(make_data(rows), figures, baseline=True)
    assert above[0] == 0.5
    bag = fit_bag_of_words("single", rows, (1.0, 10.0, 100.0), quick=True)
    right = right_rows(bag.answers, rows["test"].labels).mean()
    assert comparison.ahead[0] == pytest.approx(1 - right)
    assert comparison_line(comparison).startswith(
        f"accuracy 1.000; commonest class (neg) 0.500; bag of words {right:.3f}; ahead by "
        f"{1 - right:.3f} ("
    )


def test_a_model_behind_the_bag_of_words_is_said_to_be(rows):
    comparison, _ = compare(make_data(rows), np.zeros(40), baseline=True)
    assert "; behind by 0." in comparison_line(comparison)


def test_of_a_regression_all_is_in_the_labels_own_unit(rows):
    numbers = {n: Rows(r.texts, 1000 + 200.0 * r.labels) for n, r in rows.items()}
    comparison, above = compare(make_data(numbers, "regression"), np.full(40, 400.0), True)
    assert comparison_line(comparison).startswith("rmse 20; always the mean (1100) 100; bag of")
    assert above[0] == pytest.approx(80)


def test_without_scikit_learn_the_way_to_it_is_said(rows, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    comparison, _ = compare(make_data(rows), np.ones(40), baseline=True)
    assert comparison_line(comparison).endswith("; bag of words: pip install scikit-learn")


def test_switched_off_nothing_is_imported_or_said(rows, monkeypatch):
    plain = builtins.__import__

    def refuse(name, *rest, **named):
        assert not name.startswith("sklearn")
        return plain(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", refuse)
    comparison, _ = compare(make_data(rows), np.ones(40), baseline=False)
    assert comparison_line(comparison) == "accuracy 1.000; commonest class (neg) 0.500"


def test_a_baseline_that_fails_costs_the_run_nothing(rows, monkeypatch):
    def fail(*arguments, **named):
        raise MemoryError("no room")

    monkeypatch.setattr("job.testing.judge.fit_bag_of_words", fail)
    comparison, _ = compare(make_data(rows), np.ones(40), baseline=True)
    assert comparison_line(comparison).endswith("; bag of words: it could not be fitted (no room)")


def test_a_quick_fit_of_many_classes_takes_fewer_terms(rows, monkeypatch):
    monkeypatch.setattr("job.testing.baseline.MOST_TERMS", 2000)
    texts = [f"word{i} other{i * 7 % 1500} third{i * 11 % 1500}" for i in range(1500)]
    many = {"train": Rows(texts, np.arange(1500) % 10), "test": rows["test"]}
    seen = []
    plain = TfidfVectorizer.fit_transform
    monkeypatch.setattr(
        TfidfVectorizer, "fit_transform",
        lambda self, texts: seen.append(self.max_features) or plain(self, texts),
    )  # fmt: skip
    assert fit_bag_of_words("single", many, quick=True) is not None
    assert fit_bag_of_words("single", many) is not None
    assert seen == [1000, None]
