"""What a model is expected to answer: of a recipe with --strict, of a file with predict.py."""

import json

import pytest

import predict
import train
from configs.expect import parse_expectation
from engine.decision import Decision
from job.predicting.predictor import CleanArgs, Prediction
from job.testing.expect import (
    Labels,
    as_list,
    expectation_faults,
    finished_expectations,
    judge_expectations,
)
from report.expect import Expected, count_line, expectation_table
from tests.conftest import result_of

TEXTS = ("a good superb film", "a bad awful film")
NEVER = {"text": TEXTS[0], "not_label": ["neg", "pos"]}
SETTINGS = {
    "eval": {"baseline": False},
    "speed": {"native": "off"},
    "train": {"epochs": 3, "lr": 3e-2, "accumulate": 1},
    "samples": None,
}


class Answering:
    """A predictor whose answers are there already."""

    def __init__(self, kind, names, answers, pairs=False):
        self.decision, self.label_names, self.pairs = Decision(kind), names, pairs
        self.answers = answers

    def answer_chunk(self, texts):
        return [self.answers[text] for text in texts]


def judged(kind, names, expected, answers):
    """What is said of expectations, given as tables, by place."""
    parsed = {f"line {n}": parse_expectation(one, "x") for n, one in enumerate(expected)}
    return judge_expectations(Answering(kind, names, answers), parsed)


def single(label, share):
    return Prediction(
        "a", label, share, {label: share, "pos" if label == "neg" else "neg": 1 - share}
    )


@pytest.mark.parametrize(
    ("expected", "met", "share"),
    [
        ({"label": "pos"}, True, 0.8),
        ({"label": ["pos"]}, True, 0.8),
        ({"label": "neg"}, False, 0.2),
        ({"label": "pos", "min_probability": 0.8}, True, 0.8),
        ({"label": "pos", "min_probability": 0.81}, False, 0.8),
        ({"not_label": "neg"}, True, 0.2),
        ({"not_label": ["neg", "pos"]}, False, 0.8),
    ],
)
def test_one_class_is_met_by_that_answer(expected, met, share):
    (row,) = judged(
        "single", ("neg", "pos"), [{"text": "a", **expected}], {"a": single("pos", 0.8)}
    )
    assert (row.met, row.got) == (met, "pos")
    assert row.probability == pytest.approx(share)


@pytest.mark.parametrize(
    ("expected", "met"),
    [
        ({"label": ["long", "bad"]}, True),  # whatever their order
        ({"label": "bad"}, False),
        ({"label": ["bad", "long", "dull"]}, False),
        ({"label": []}, False),
        ({"label": ["bad", "long"], "min_probability": 0.6}, True),
        ({"label": ["bad", "long"], "min_probability": 0.7}, False),
        ({"not_label": "dull"}, True),
        ({"not_label": ["dull", "long"]}, False),
        ({"not_label": "lon"}, True),  # a part of a name is another name
        ({"not_label": "bad, long"}, True),  # and so is what looks like two
        ({"label": "bad, long"}, False),
        ({"label": ["long", "bad", "long"]}, True),
    ],
)
def test_several_classes_are_met_by_all_of_them_and_no_other(expected, met):
    names = ("bad", "lon", "long", "dull", "bad, long")
    shares = {"bad": 0.9, "lon": 0.1, "long": 0.6, "dull": 0.2, "bad, long": 0.3}
    answer = Prediction("a", "bad, long", None, shares, ("bad", "long"))
    (row,) = judged("multi", names, [{"text": "a", **expected}], {"a": answer})
    assert row.met == met


def test_none_of_several_classes_can_be_expected():
    answer = Prediction("a", "none", None, {"x": 0.1, "y": 0.2})
    (row,) = judged("multi", ("x", "y"), [{"text": "a", "label": []}], {"a": answer})
    assert (row.met, row.expected, row.got) == (True, "none", "none")


@pytest.mark.parametrize(
    ("names", "kind", "labels", "label", "expected", "met"),
    [
        (("a", "a, b"), "single", (), "a, b", {"not_label": "a"}, True),
        (("a", "a, b"), "single", (), "a, b", {"label": "a, b"}, True),
        (("a", "a, b"), "single", (), "a, b", {"label": "a"}, False),
        (("a", "b", "a, b"), "multi", ("a, b",), "a, b", {"label": ["a", "b"]}, False),
        (("a", "b", "a, b"), "multi", ("a, b",), "a, b", {"not_label": ["a", "b"]}, True),
        (("none", "x"), "multi", ("none",), "none", {"label": []}, False),
        (("none", "x"), "multi", (), "none", {"label": "none"}, False),
        (("none", "x"), "multi", (), "none", {"not_label": "none"}, True),
        (("none", "x"), "multi", ("none",), "none", {"label": "none"}, True),
    ],
)
def test_classes_are_compared_by_their_whole_names(names, kind, labels, label, expected, met):
    answer = Prediction("a", label, None, dict.fromkeys(names, 0.5), labels)
    (row,) = judged(kind, names, [{"text": "a", **expected}], {"a": answer})
    assert row.met == met


@pytest.mark.parametrize(
    ("expected", "met"),
    [({"label": "pos"}, False), ({"label": "neg"}, False), ({"not_label": "pos"}, True)],
)
def test_an_unsure_answer_is_none(expected, met):
    answer = Prediction("a", "pos", 0.8, {"neg": 0.2, "pos": 0.8}, unsure=True)
    (row,) = judged("single", ("neg", "pos"), [{"text": "a", **expected}], {"a": answer})
    assert (row.met, row.got) == (met, "unsure (pos?)")


@pytest.mark.parametrize(
    ("table", "part"),
    [
        ({"label": [], "min_probability": 0.5}, "label = []"),
        ({"label": 4, "within": 1, "min_probability": 0.5}, "beside within"),
        ({"not_label": "a", "min_probability": 0.5}, "beside not_label"),
    ],
)
def test_a_probability_that_nothing_could_have_is_refused(table, part):
    with pytest.raises(ValueError, match="min_probability") as refused:
        parse_expectation({"text": "a", **table}, "x")
    assert part in str(refused.value)


@pytest.mark.parametrize(("within", "met"), [(0.5, True), (0.4, False), (0, False)])
def test_a_number_is_met_within_what_is_said(within, met):
    answer = Prediction("a", "3.5", None, {"value": 3.5})
    expected = [{"text": "a", "label": 4, "within": within}]
    (row,) = judged("regression", (), expected, {"a": answer})
    assert (row.met, row.probability) == (met, None)


def test_a_text_without_an_answer_meets_nothing():
    expected = [{"text": "a", "not_label": "neg"}]
    (row,) = judged("single", ("neg", "pos"), expected, {"a": "no token is left"})
    assert not row.met
    assert "no token is left" in row.got


@pytest.mark.parametrize(
    ("kind", "table", "part"),
    [
        ("single", {"label": "good"}, "the labels are neg, pos"),
        ("single", {"label": ["neg", "pos"]}, "a text has one class"),
        ("single", {"not_label": ["good"]}, "there is no label 'good'"),
        ("single", {"label": 4, "within": 1}, "within is for numbers"),
        ("multi", {"label": ["neg", "x"]}, "there is no label 'x'"),
        ("regression", {"label": "neg"}, "the labels are numbers"),
        ("regression", {"label": 3}, "within is missing"),
        ("regression", {"label": 3, "min_probability": 0.5}, "min_probability is of a class"),
        ("single", {"label": "pos", "text_pair": "b"}, "trained on single texts"),
        ("single", {"label": "pos", "text": "<br />"}, "nothing is left"),
    ],
)
def test_what_no_answer_could_meet_is_a_fault(kind, table, part):
    one = parse_expectation({"text": "a", **table}, "x")
    labels = Labels(kind, () if kind == "regression" else ("neg", "pos"), False, CleanArgs())
    (fault,) = expectation_faults({"here": one}, labels)
    assert fault.startswith("here: ")
    assert part in fault


def test_a_class_may_be_called_by_a_number():
    assert as_list(4) == ["4"]
    labels = Labels("single", ("3", "4"), False, CleanArgs())
    assert not expectation_faults({"x": parse_expectation({"text": "a", "label": 4}, "x")}, labels)


def test_the_table_says_what_is_not_met_and_how_many():
    rows = [
        Expected("x", "a text " * 40, "pos", "neg", 0.25, False),
        Expected("y", "\x1b[2Jsteered", "a" * 60, "4.5", None, True),
    ]
    table = expectation_table(rows)
    assert "NOT MET" in table
    assert "25.0 %" in table
    assert "\x1b" not in table
    assert all(len(line) <= 100 for line in table.splitlines())
    assert count_line(rows) == "expectations: 1 of 2 is not met"
    assert count_line(rows[1:]) == "expectations: it is met"
    assert count_line(rows[:1] * 3) == "expectations: 3 of 3 are not met"


# Commands


def words(*expected):
    """--override of [[expect]], as TOML."""
    tables = ", ".join(
        "{" + ", ".join(f"{k} = {json.dumps(v)}" for k, v in one.items()) + "}" for one in expected
    )
    return f"expect=[{tables}]"


@pytest.fixture
def right_and_wrong(start):
    """Something that a run of the recipe answers, and something that it does not: what it learns
    hangs on the vocabulary, and that is another one in each session."""
    from openloop import load_run

    answers = [answer.label for answer in load_run(start("first")[0])(list(TEXTS))]
    others = {"neg": "pos", "pos": "neg"}
    return (
        {"text": TEXTS[0], "label": answers[0]},
        {"text": TEXTS[1], "label": others[answers[1]]},
    )


@pytest.mark.timeout(300)  # several runs and predictions
def test_strict_ends_with_three_where_one_is_not_met_and_the_run_is_kept(
    start, tmp_path, right_and_wrong
):
    right, wrong = right_and_wrong
    run, said = start("strict", words(right, wrong), "--strict", code=3)
    kept = result_of(run)["expectations"]
    assert [row["met"] for row in kept] == [True, False]
    assert [row["text"] for row in kept] == [right["text"], wrong["text"]]
    assert "1 of 2 is not met" in said
    card = (run / "README.md").read_text(encoding="utf-8")
    assert "NOT MET" in card.split("## What it has to answer")[1].split("## ")[0]
    again = ["--strict", "--resume"]
    _, said = start("strict", words(right, wrong), *again, code=3)  # finished, nothing to do
    assert "nothing to do" in said
    assert "NOT MET" in said
    before = {p: p.stat().st_mtime_ns for p in run.rglob("*") if p.is_file()}
    _, said = start("strict", words(right), *again)  # others than the run ended with: asked now
    assert "expectations: it is met" in said
    start("strict", words(wrong), *again, code=3)
    start("strict", words({"text": "a", "label": "good"}), *again, code=2)
    start("strict", words(right, wrong), "--resume")  # without --strict the status is 0
    assert {p: p.stat().st_mtime_ns for p in run.rglob("*") if p.is_file()} == before

    checks = tmp_path / "checks.jsonl"
    lines = [right, wrong, {**right, "min_probability": 0.01}]
    checks.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    check_the_file(run, checks, right)


def check_the_file(run, checks, right):
    """predict.py --expect beside load_run on the same texts."""
    import contextlib
    import io

    from openloop import load_run

    def ask(*more):
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = predict.main(["--run", str(run), "--expect", str(checks), *more])
        return code, out.getvalue(), err.getvalue()

    code, out, _ = ask()
    assert code == 3
    assert out.count("NOT MET") == 1
    assert "1 of 3 is not met" in out
    assert right["text"] not in out  # only what is not met is shown
    code, out, err = ask("--json")
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["met"] for row in rows] == [True, False, True]
    assert [row["place"] for row in rows] == [f"checks.jsonl, line {n}" for n in (1, 2, 3)]
    assert "1 of 3" in err
    answers = load_run(run)([row["text"] for row in rows])
    assert [row["got"] for row in rows] == [answer.label for answer in answers]
    for row, answer in zip(rows, answers, strict=True):
        assert row["probability"] == pytest.approx(answer.probabilities[row["expected"].split()[0]])

    checks.write_text(json.dumps(right) + "\n", encoding="utf-8")
    code, out, _ = ask()
    assert (code, out) == (0, f"{checks}: expectations: it is met\n")
    for content, part in (
        ("", "is empty"),
        ('{"text": "a", "lable": "pos"}\n', "line 1: unknown key 'lable'"),
        ('{"text": "a", "label": "pos"}\n{"text": 3, "label": "pos"}\n', "line 2: text: got 3"),
        ('{"text": "a", "label": "good"}\n', "line 1: there is no label 'good'"),
        ("[1]\n", "is no object"),
    ):
        checks.write_text(content, encoding="utf-8")
        code, _, err = ask()
        assert code == 2, content
        assert part in err


def test_strict_without_expectations_is_refused(recipe, capsys):
    assert train.main(["--config", str(recipe()), "--strict"]) == 2
    assert "the recipe has none" in capsys.readouterr().err


@pytest.mark.parametrize("word", ["--eval-only", "--dry-run"])
def test_strict_goes_with_training(recipe, word):
    with pytest.raises(SystemExit) as ended:
        train.main(["--config", str(recipe()), "--strict", word])
    assert ended.value.code == 2


def test_a_label_that_there_is_not_stops_before_step_1(start):
    _, said = start("early", words({"text": "a", "label": "good"}), code=2)
    assert "expect: table 1: there is no label 'good'; the labels are neg, pos" in said


def test_expectations_of_seeds_count_together(start):
    _, said = start("seeds", words(NEVER), "--strict", "--seeds", "0,1", code=3)
    assert said.count("1 of 1 is not met") >= 1


def test_a_run_from_before_expectations_is_asked(run):
    """As a result.json without the key shows it."""
    from job.folder import Folder, saved_config

    folder = Folder(run)
    config = saved_config(folder)
    assert finished_expectations(config, folder, {}, False) == []


def test_pairs_are_expected_with_both_texts(pair_run, tmp_path, capsys):
    from openloop import load_run

    answer = load_run(pair_run)([("film 1", "story 1")])[0]
    checks = tmp_path / "checks.jsonl"
    one = {"text": "film 1", "text_pair": "story 1", "label": answer.label}
    checks.write_text(json.dumps(one) + "\n", encoding="utf-8")
    ask = ["--run", str(pair_run), "--expect", str(checks)]
    assert predict.main(ask) == 0
    (one["label"],) = set(answer.probabilities) - {answer.label}
    checks.write_text(json.dumps(one) + "\n", encoding="utf-8")
    assert predict.main(ask) == 3
    assert "film 1 | story 1" in capsys.readouterr().out
    del one["text_pair"]
    checks.write_text(json.dumps(one) + "\n", encoding="utf-8")
    assert predict.main(ask) == 2
    assert "trained on pairs of texts" in capsys.readouterr().err


def test_expect_is_an_input_of_its_own(capsys):
    for more in ("a text", "--output y.csv", "--top-k 1", "--explain", "--strict"):
        words_given = ["--expect", "x", *(["a text"] if more == "a text" else more.split())]
        with pytest.raises(SystemExit) as ended:
            predict.main(["--run", "r", *words_given])
        assert ended.value.code == 2
