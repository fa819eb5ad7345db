"""Expectations: texts with what a trained model has to answer. Those of a recipe are checked when
its run ends, those of a file by predict.py, for somebody's continuous check."""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from configs.expect import parse_expectation
from configs.schema import Config, Expect
from data.clean import CleanArgs
from job.folder import Folder, saved_config
from job.predicting.predictor import (
    CHUNK,
    Prediction,
    Predictor,
    Text,
    open_predictor,
    text_fault,
)
from job.reporting.predictions import read_lines
from job.rows import clean_args, text_columns
from report.expect import Expected, count_line, expectation_lines, expectation_table
from report.format import format_number

UNMET = 3  # exit status


@dataclass(frozen=True)
class Labels:
    """What a run can answer, and what it takes."""

    kind: str
    names: tuple[str, ...]
    pairs: bool
    clean: CleanArgs


def own_labels(predictor: Predictor) -> Labels:
    """Those of an opened run."""
    return Labels(predictor.decision.kind, predictor.label_names, predictor.pairs, predictor.clean)


def as_list(label: Any) -> list[str]:
    """The classes that a label names: one, or several."""
    return [str(name) for name in (label if isinstance(label, list) else [label])]


def text_of(one: Expect) -> Text:
    """The text, or both of a pair."""
    return one.text if one.text_pair is None else (one.text, one.text_pair)


def expectation_faults(expected: dict[str, Expect], labels: Labels) -> list[str]:
    """What no answer could meet, before any is asked for: a label that there is not, a text that
    is none. `expected` by the place of each."""
    checked = ((place, label_fault(one, labels)) for place, one in expected.items())
    return [f"{place}: {fault}" for place, fault in checked if fault]


def label_fault(one: Expect, labels: Labels) -> str | None:
    """What is wrong with an expectation for a run with these labels."""
    if fault := text_fault(text_of(one), labels.pairs, labels.clean):
        return fault
    if labels.kind == "regression":
        if not isinstance(one.label, int | float):
            return f"the labels are numbers; got {one.label or one.not_label!r} as one"
        if one.min_probability is not None:
            return "min_probability is of a class; the labels are numbers"
        return "within is missing: how far the number may be off" if one.within is None else None
    if one.within is not None:
        return "within is for numbers; the labels are classes"
    wanted = as_list(one.not_label if one.label is None else one.label)
    if labels.kind == "single" and one.label is not None and len(wanted) != 1:
        return f"label: got {one.label!r}, and a text has one class"
    for name in wanted:
        if name not in labels.names:
            return f"there is no label {name!r}; the labels are {', '.join(labels.names)}"
    return None


def recipe_expectations(config: Config) -> dict[str, Expect]:
    """Those of a recipe, by the place of each."""
    return {f"expect: table {n}": one for n, one in enumerate(config.expect, start=1)}


def recipe_faults(config: Config, kind: str, names: tuple[str, ...]) -> list[str]:
    """What no answer to the [[expect]] of a recipe could meet."""
    labels = Labels(kind, names, len(text_columns(config)) == 2, clean_args(config))
    return expectation_faults(recipe_expectations(config), labels)


def read_expectations(path: Path) -> dict[str, Expect]:
    """Those of a file of JSON lines, by the place of each. Raises ValueError, naming the line, for
    what is none, and where there are none."""
    if not path.is_file():
        raise ValueError(f"--expect: there is no file {path}")
    lines = read_lines(path)
    expected = {name.removeprefix(f"{path.parent}/"): (name, values) for _, name, values in lines}
    if not expected:
        raise ValueError(f'--expect: {path} is empty; expected lines {{"text": …, "label": …}}')
    return {place: parse_expectation(values, name) for place, (name, values) in expected.items()}


# Answers


def judge_expectations(predictor: Predictor, expected: dict[str, Expect]) -> list[Expected]:
    """Each beside what the model answers. A text that gets no answer meets nothing."""
    texts, rows = [text_of(one) for one in expected.values()], []
    answers: list[Prediction | str] = []
    for start in range(0, len(texts), CHUNK):
        answers += predictor.answer_chunk(texts[start : start + CHUNK])
    for (place, one), text, answer in zip(expected.items(), texts, answers, strict=True):
        shown, words = text if isinstance(text, str) else " | ".join(text), in_words(one, predictor)
        if isinstance(answer, str):
            rows.append(Expected(place, shown, words, f"no answer: {answer}", None, False))
            continue
        share = share_of(one, answer)
        met = is_met(one, answer, predictor)
        got = f"unsure ({answer.label}?)" if answer.unsure else answer.label
        rows.append(Expected(place, shown, words, got, share, met))
    return rows


def in_words(one: Expect, predictor: Predictor) -> str:
    """What is expected, as a person reads it."""
    if predictor.decision.kind == "regression":
        assert isinstance(one.label, int | float)
        return f"{format_number(one.label)} ± {format_number(one.within)}"
    if one.not_label is not None:
        return f"not {' or '.join(as_list(one.not_label))}"
    least = "" if one.min_probability is None else f" from {100 * one.min_probability:g} %"
    return joined(as_list(one.label), predictor) + least


def joined(names: Sequence[str], predictor: Predictor) -> str:
    """Classes as a prediction words them, in the labels' order."""
    return ", ".join(name for name in predictor.label_names if name in names) or "none"


def share_of(one: Expect, answer: Prediction) -> float | None:
    """What the model gives to what is expected; of "not …" to the likeliest."""
    if "value" in answer.probabilities and one.within is not None:
        return None
    if one.not_label is not None:
        return max(answer.probabilities[name] for name in as_list(one.not_label))
    return min((answer.probabilities[name] for name in as_list(one.label)), default=None)


def is_met(one: Expect, answer: Prediction, predictor: Predictor) -> bool:
    """Whether an answer is the one that is expected. One that is unsure answers no class."""
    if predictor.decision.kind == "regression":
        assert isinstance(one.label, int | float)
        assert one.within is not None
        return abs(answer.probabilities["value"] - one.label) <= one.within
    single = predictor.decision.kind == "single"
    held = {answer.label} if single else set(answer.labels)  # names as they are: one may hold ", "
    if one.not_label is not None:
        return bool(answer.unsure) or held.isdisjoint(as_list(one.not_label))
    if answer.unsure or held != set(as_list(one.label)):
        return False
    share = share_of(one, answer)
    return one.min_probability is None or share is None or share >= one.min_probability


# Commands


def check_file(
    path: Path, opened: Callable[[], Predictor], as_json: bool, unsure: float | None = None,
    thresholds: Mapping[str | None, float] | None = None,
) -> int:  # fmt: skip
    """Print what of a file is not met, or an object for each expectation; the exit status. Answers
    are decided with `unsure` and `thresholds`, as Predictor.decide() takes them. Raises ValueError
    for what is no expectation, and for what no answer could meet."""
    expected = read_expectations(path)  # before a model is loaded for it
    predictor = opened().decide(unsure, thresholds)
    if faults := expectation_faults(expected, own_labels(predictor)):
        raise ValueError("\n".join(faults))
    rows = judge_expectations(predictor, expected)
    unmet = [row for row in rows if not row.met]
    if as_json:
        print("".join(json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in rows), end="")
    elif unmet:
        print(expectation_table(unmet))
    print(f"{path}: {count_line(rows)}", file=sys.stderr if as_json else sys.stdout)
    return UNMET if unmet else 0


def finished_expectations(
    config: Config, folder: Folder, result: dict[str, Any], allow_code: bool
) -> list[dict[str, Any]]:
    """What a finished run's model answers to the [[expect]] of the recipe: as the run found it, or
    asked now where they have been changed since. Nothing is written."""
    if config.expect == saved_config(folder).expect and "expectations" in result:
        rows = [Expected(**row) for row in result["expectations"]]
    else:
        predictor, expected = open_predictor(folder, None, allow_code, None)[0], (
            recipe_expectations(config)
        )  # fmt: skip
        if faults := expectation_faults(expected, own_labels(predictor)):
            raise ValueError("\n".join(faults))
        rows = judge_expectations(predictor, expected)
    if rows:
        print(expectation_lines(rows))
    return [asdict(row) for row in rows]
