"""What is plainly off with a run is said in one line with the setting to change; a healthy run has
none."""

import json
import re
from dataclasses import replace
from types import SimpleNamespace as Namespace

import pytest

import train
from job.testing.judge import ended_by_steps
from report.verdict import ClassCount, Evaluation, Evidence, Settings, verdict_lines

SETTINGS = Settings(
    lr=1e-3,
    usual_lr=1e-3,
    epochs=3,
    max_steps=None,
    class_weights=False,
    stops_early=False,
    max_length=256,
    most_length=512,
)


def looks(*losses, figures=None):
    figures = figures or [0.8] * len(losses)
    return [
        Evaluation(20 * (i + 1), *pair) for i, pair in enumerate(zip(losses, figures, strict=True))
    ]


HEALTHY = Evidence(
    settings=SETTINGS,
    losses=[0.7 - 0.5 * i / 60 + 0.05 * (-1) ** i for i in range(60)],
    evaluations=[Evaluation(20 * i, 0.6 - 0.1 * i, 0.6 + 0.1 * i) for i in (1, 2, 3)],
    steps_per_epoch=20,
    test_rows=400,
    constant="the commonest class (pos)",
    above_constant=(0.4, 0.35, 0.45),
    r2=None,
    classes=[ClassCount("neg", 200, 190, 175), ClassCount("pos", 200, 210, 185)],
    tokens=100_000,
    cut_tokens=20_000,
)
FLAT = [0.69 + 0.02 * (-1) ** i for i in range(60)]
STILL = looks(0.69, 0.69, 0.691)
NOTHING = (0.0, -0.05, 0.05)
ONE = [ClassCount("neg", 380, 400, 380), ClassCount("pos", 20, 0, 0)]
BEHIND = (-0.02, -0.04, 0.0)  # in accuracy
WEIGHED = replace(SETTINGS, class_weights=True)


def test_a_healthy_run_has_no_verdict():
    assert verdict_lines(HEALTHY) == []


UNHEALTHY = {
    "never moved, rate too low": (
        {
            "losses": FLAT,
            "above_constant": NOTHING,
            "evaluations": STILL,
            "settings": replace(SETTINGS, lr=1e-12),
        },
        r"never moved.*raise train\.lr \(1e-12\) to 0\.001",
    ),
    "never moved, rate too high": (
        {
            "losses": FLAT,
            "above_constant": NOTHING,
            "evaluations": STILL,
            "settings": replace(SETTINGS, lr=0.5),
        },
        r"never moved.*lower train\.lr \(0\.5\) to 0\.001",
    ),
    "never moved, rate as usual": (
        {"losses": FLAT, "above_constant": NOTHING, "evaluations": STILL},
        r"never moved.*data\.label",
    ),
    "diverged": (
        {"losses": [0.7 + i for i in range(60)], "settings": replace(SETTINGS, lr=0.1)},
        r"diverged.*lower train\.lr \(0\.1\) to 0\.001",
    ),
    "diverged at the usual rate": (
        {"losses": [0.7 + i for i in range(60)]},
        r"diverged.*lower train\.lr \(0\.001\) to 0\.0001",
    ),
    "fell, and came back": (
        {"losses": [*[0.7 - i / 60 for i in range(30)], *[0.7] * 30]},
        r"diverged, from 0\.\d+, to which it had fallen, to 0\.7.*train\.lr \(0\.001\) to 0\.0001",
    ),
    "one class for every row": (
        {"classes": ONE, "above_constant": (0.0, 0.0, 0.0)},
        r"every test row is given 'neg'.*class_weights = \"balanced\"",
    ),
    "one class is never predicted": (
        {"classes": [*HEALTHY.classes, ClassCount("rare", 20, 0, 0)]},
        r"^never predicted: rare \(20 test rows\).*class_weights = \"balanced\"",
    ),
    "one class is never predicted, though balanced": (
        {"classes": ONE, "settings": replace(SETTINGS, class_weights=True)},
        r"^never predicted: pos \(20 test rows\).*raise train\.epochs \(3\) to 9",
    ),
    "one class for every row, of classes that are alike": (
        {
            "classes": [ClassCount("neg", 200, 400, 200), ClassCount("pos", 200, 0, 0)],
            "above_constant": (0.0, 0.0, 0.0),
        },
        r"every test row is given 'neg': raise train\.epochs \(3\) to 9",
    ),
    "no better than the commonest class": (
        {"above_constant": NOTHING},
        r"no better than always saying the commonest class \(pos\).*raise train\.epochs",
    ),
    "no better, and the rate is low": (
        {"above_constant": NOTHING, "settings": replace(SETTINGS, lr=1e-5)},
        r"no better.*raise train\.lr \(1e-05\) to 0\.001",
    ),
    "r2 below 0": (
        {"r2": -0.2, "above_constant": (-3.0, -4.0, -2.0), "constant": "the mean (76)"},
        r"r2 is below 0 \(-0\.200\).*the mean \(76\)",
    ),
    "r2 below 0, though ahead of the training rows' mean": (
        {"r2": -0.1, "above_constant": (0.3, 0.2, 0.4), "constant": "the mean (76)"},
        r"r2 is below 0 \(-0\.100\): worse than always saying the mean of the test rows",
    ),
    "r2 within chance of 0": (
        {"r2": 0.004, "above_constant": (0.01, -0.02, 0.04), "constant": "the mean (76)"},
        r"r2 is 0\.004: no better than always saying the mean \(76\)",
    ),
    "weighed classes that are not told apart": (
        {
            "classes": [ClassCount("neg", 380, 342, 325), ClassCount("pos", 20, 58, 3)],
            "above_constant": BEHIND,
            "settings": WEIGHED,
        },
        r"no better than always saying the commonest class \(pos\).*raise train\.epochs",
    ),
    "no better, and train.max_steps ends the run": (
        {"above_constant": NOTHING, "settings": replace(SETTINGS, max_steps=40)},
        r"no better.*raise train\.max_steps \(40\) to 120",
    ),
    "validation gets worse, and train.max_steps ends the run": (
        {
            "evaluations": looks(0.5, 0.6, 0.7, figures=[0.8, 0.79, 0.78]),
            "settings": replace(SETTINGS, max_steps=60),
        },
        r"worse since step 20 .*: set train\.max_steps = 20;",
    ),
    "validation gets worse": (
        {"evaluations": looks(0.5, 0.6, 0.7, figures=[0.8, 0.79, 0.78])},
        r"worse since step 20 \(loss 0\.5, at the end 0\.7\): set train\.epochs = 1;",
    ),
    "few rows": ({"test_rows": 40}, r"test has only 40 rows.*raise data\.test"),
    "half of the tokens": (
        {"cut_tokens": 60_000},
        r"60\.0 % of the training tokens.*raise data\.max_length \(256\) to 512",
    ),
    "half of the tokens, at the most that the model reads": (
        {"cut_tokens": 60_000, "settings": replace(SETTINGS, max_length=512)},
        r"60\.0 % of the training tokens.*data\.truncation = \"left\"",
    ),
    "half of the tokens, in windows": (
        {"cut_tokens": 60_000, "settings": replace(SETTINGS, long="chunks")},
        r"60\.0 % of the training tokens are cut off: raise data\.max_windows$",
    ),
}


@pytest.mark.parametrize("case", UNHEALTHY)
def test_what_is_off_is_one_line_with_the_setting_to_change(case):
    changes, wanted = UNHEALTHY[case]
    lines = verdict_lines(replace(HEALTHY, **changes))
    assert len(lines) == 1
    assert re.search(wanted, lines[0])


@pytest.mark.parametrize(
    "changes",
    [
        {"losses": [0.01] * 60},  # nothing left to learn, as after another run
        {"losses": [0.7, 0.2]},  # too short to tell
        {"losses": [0.3] * 50 + [0.35] * 10},  # noise at the end
        {
            "losses": [0.25, 0.9] * 30,
            "above_constant": (0.1, 0.01, 0.2),
            "test_rows": 100,
            "classes": [],
            "evaluations": looks(0.5, 0.4, 0.3, figures=[0.5, 0.6, 0.7]),
        },
        {"evaluations": looks(0.5, 0.52, 0.55)},  # overfits a little
        {"evaluations": looks(0.5, 0.7, 0.9, figures=[0.8, 0.82, 0.85])},  # accuracy still gains
        {
            "evaluations": looks(0.5, 0.7, 0.9, figures=[0.8, 0.8, 0.795])
        },  # surer of itself, and no worse
        {"evaluations": looks(0.5, 0.9)},  # one bad evaluation
        {"classes": [*HEALTHY.classes, ClassCount("rare", 2, 0, 0)]},  # too few to tell
        {"r2": 0.3, "above_constant": (0.1, -0.1, 0.3)},
        {  # weighed classes are told apart, at the cost of accuracy
            "classes": [ClassCount("neg", 380, 358, 354), ClassCount("pos", 20, 42, 16)],
            "above_constant": BEHIND,
            "settings": WEIGHED,
        },
        {  # a run that stopped because of it
            "evaluations": looks(0.5, 0.6, 0.7, figures=[0.8, 0.79, 0.78]),
            "settings": replace(SETTINGS, stops_early=True),
        },
        {"cut_tokens": 40_000},
    ],
)
def test_what_chance_or_a_choice_explains_is_no_verdict(changes):
    assert verdict_lines(replace(HEALTHY, **changes)) == []


def test_few_rows_excuse_a_wide_interval():
    lines = verdict_lines(replace(HEALTHY, test_rows=12, above_constant=(0.2, -0.1, 0.5)))
    assert [line[:23] for line in lines] == ["test has only 12 rows, "]


def judged(recipe, folder, *words):
    """result.json of a small run with these settings."""
    path = recipe(data={"validation": 20, "test": 20}, train={"accumulate": 1})
    assert train.main(["--config", str(path), f"run.dir={folder}", *words]) == 0
    return json.loads((folder / "tiny" / "result.json").read_text(encoding="utf-8"))


def test_a_run_is_judged_in_console_card_and_result(recipe, tmp_path, capsys):
    result = judged(recipe, tmp_path, "train.lr=1e-12", "train.epochs=4")
    printed = capsys.readouterr().out
    assert "compared: accuracy 0." in printed
    assert "WARNING: the training loss never moved" in printed
    card = (tmp_path / "tiny" / "README.md").read_text(encoding="utf-8")
    assert "On the same rows: accuracy 0." in card
    assert "the training loss never moved" in card
    assert result["compared"]["constant"] == 0.5
    assert result["verdicts"][0].startswith("the training loss never moved")
    accuracy = result["test"]["accuracy"]
    assert result["compared"]["value"] == pytest.approx(accuracy)
    ahead = accuracy - result["compared"]["bag_of_words"]
    assert result["compared"]["ahead"][0] == pytest.approx(ahead)


@pytest.mark.parametrize(("total", "ended"), [(59, True), (60, False)])
def test_a_run_is_ended_by_steps_where_its_epochs_are_not_through(total, ended):
    plan = Namespace(total_steps=total, steps_per_epoch=20)
    job = Namespace(plan=plan, config=Namespace(train=Namespace(epochs=3)))
    assert ended_by_steps(job) is ended


def test_texts_cut_in_half_are_said(recipe, tmp_path, capsys):
    judged(recipe, tmp_path, "data.max_length=4", "eval.baseline=false")
    printed = capsys.readouterr().out
    assert "of the training tokens are cut off: raise data.max_length (4) to 16" in printed
    assert "bag of words" not in printed


@pytest.mark.slow
def test_ten_seeds_of_a_healthy_run_have_no_verdict(recipe, tmp_path):
    words = (("bad", "awful", "boring"), ("good", "great", "moving"))
    told = [(i % 2) ^ (i % 11 == 0) for i in range(600)]  # one in eleven says the opposite
    texts = [f"a {words[t][i % 3]} film, number {i} of them" for i, t in enumerate(told)]
    lines = [f'"{text}",{("neg", "pos")[i % 2]}' for i, text in enumerate(texts)]
    table = tmp_path / "told.csv"
    table.write_text("text,label\n" + "\n".join(lines), encoding="utf-8")
    path = recipe(
        data={"source": str(table), "validation": 100, "test": 150},
        train={"accumulate": 1, "micro_batch_size": 16, "epochs": 2, "lr": 3e-3},
        eval={"every": 8},
        lora=None,
    )
    assert train.main(["--config", str(path), "--seeds", "0,1,2,3,4,5,6,7,8,9"]) == 0
    for seed in range(10):
        result = tmp_path / "runs" / f"tiny-seed{seed}" / "result.json"
        told = json.loads(result.read_text(encoding="utf-8"))
        assert told["test"]["accuracy"] > 0.8
        assert told["verdicts"] == []
