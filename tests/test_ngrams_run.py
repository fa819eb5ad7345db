"""Whole runs of a bag of n-grams: train, stop, resume, predict, score, train on, export."""

import ast
import csv
import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tomli_w
from conftest import result_of, write_rows

import predict
import train
from openloop import load_run
from tests.killed import kill_after_save

DATA = {"validation": 12, "test": 40}


def write_recipe(folder, data, name="bag", **sections):
    tables = {
        "run": {"name": name, "dir": str(folder / "runs"), "save_every": 3},
        "model": {"source": "ngrams"},
        "data": {**DATA, **data},
        "train": {"epochs": 3, "micro_batch_size": 8, "lr": 3e-2},
        "samples": {"texts": ["good film", "bad film"]},
    }
    for section, changes in sections.items():
        tables.setdefault(section, {}).update(changes)
    path = folder / f"{name}.toml"
    path.write_text(tomli_w.dumps(tables), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def bag(tmp_path_factory, many_reviews):
    """Folder of a finished run that tells good films from bad ones."""
    folder = tmp_path_factory.mktemp("bag")
    assert train.main(["--config", str(write_recipe(folder, {"source": str(many_reviews)}))]) == 0
    return folder / "runs" / "bag"


def test_a_bag_learns_to_tell_classes_apart(bag):
    assert result_of(bag)["test"]["accuracy"] > 0.95
    good, bad = load_run(bag)(["a superb, charming film", "an awful, tedious film"])
    assert (good.label, bad.label) == ("pos", "neg")


def test_predict_reads_a_table_and_answers_as_the_test_did(bag, tmp_path):
    lines = (bag / "test_predictions.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    with (tmp_path / "texts.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["text"], *([row["text"]] for row in rows)])
    words = ["--run", str(bag), "--file", str(tmp_path / "texts.csv")]
    assert predict.main([*words, "--output", str(tmp_path / "out.jsonl")]) == 0
    answers = [json.loads(line) for line in (tmp_path / "out.jsonl").open(encoding="utf-8")]
    assert len(answers) == len(rows)
    for answer, row in zip(answers, rows, strict=True):
        assert answer["probabilities"]["pos"] == pytest.approx(row["probabilities"]["pos"])


def test_scoring_again_gives_the_figures_of_the_run(bag, capsys):
    assert train.main(["--config", str(bag / "config.toml"), "--eval-only"]) == 0
    assert f"Test accuracy {result_of(bag)['test']['accuracy']:.4f}" in capsys.readouterr().out


def test_the_snippet_of_the_card_answers_without_torch(bag, tmp_path):
    card = (bag / "README.md").read_text(encoding="utf-8")
    code = next(c for c in re.findall(r"```python\n(.*?)```", card, re.DOTALL) if "numpy" in c)
    blocked = "import sys\nfor name in ('torch', 'transformers'):\n    sys.modules[name] = None\n"
    program = f"{blocked}{code}\nprint(probabilities.tolist())"
    done = subprocess.run(
        [sys.executable, "-I", "-c", program], capture_output=True, encoding="utf-8", check=True
    )
    wanted = [list(p.probabilities.values()) for p in load_run(bag)(["It was good.", "Not a fan."])]
    *shown, last = done.stdout.splitlines()
    np.testing.assert_allclose(json.loads(last), wanted, rtol=1e-4)
    assert [list(ast.literal_eval(line)) for line in shown] == [["neg", "pos"]] * 2


def test_the_script_in_the_run_answers_from_a_shell(bag):
    script = bag / "model" / "predict_ngrams.py"
    done = subprocess.run(
        [sys.executable, "-I", script, "a superb film"], capture_output=True, encoding="utf-8",
        check=True,
    )  # fmt: skip
    share = load_run(bag)(["a superb film"])[0].probabilities["pos"]
    assert f"'pos': {share:.4f}".rstrip("0") in done.stdout


def test_a_run_that_was_killed_goes_on_to_the_same_bits(bag, tmp_path, many_reviews):
    path = write_recipe(tmp_path, {"source": str(many_reviews)})
    kill_after_save(2, lambda: train.main(["--config", str(path)]))
    run = tmp_path / "runs" / "bag"
    assert not (run / "result.json").exists()
    assert train.main(["--config", str(path), "--resume"]) == 0
    assert (run / "model/ngrams.npz").read_bytes() == (bag / "model/ngrams.npz").read_bytes()
    assert result_of(run)["test"] == result_of(bag)["test"]


def test_a_changed_array_is_told_before_it_answers(bag, tmp_path, capsys):
    run = tmp_path / "bag"
    shutil.copytree(bag, run)
    data = bytearray((run / "model/ngrams.npz").read_bytes())
    data[5000] ^= 1
    (run / "model/ngrams.npz").write_bytes(data)
    assert predict.main(["--run", str(run), "good"]) == 2
    assert "ngrams.npz" in capsys.readouterr().err


def test_a_bag_is_trained_on_from_its_run(bag, tmp_path, many_reviews, capsys):
    more = {"model": {"source": f"run:{bag}"}, "train": {"max_steps": 1, "lr": 1e-9}}
    path = write_recipe(tmp_path, {"source": str(many_reviews)}, "more", **more)
    assert train.main(["--config", str(path)]) == 0
    assert "those of the run" in capsys.readouterr().out
    own, before = load_run(tmp_path / "runs/more"), load_run(bag)
    assert own(["superb"])[0].probability == pytest.approx(before(["superb"])[0].probability)


def test_training_on_refuses_other_labels(bag, tmp_path, capsys):
    rows = [{"text": f"film {i}", "label": i % 2} for i in range(200)]
    data = {"source": write_rows(tmp_path / "rows.jsonl", rows)}
    path = write_recipe(tmp_path, data, "more", model={"source": f"run:{bag}"})
    assert train.main(["--config", str(path), "data.labels=['a', 'b']"]) == 2
    message = capsys.readouterr().err
    assert "whose labels are" in message
    assert "Traceback" not in message


@pytest.mark.parametrize("source", ["ngrams", "run:{bag}"])
@pytest.mark.parametrize(
    "change",
    ["head.kind=linear", "head.pool=cls", "head.dropout=0.1", "model.train=head",
     "model.dropout=0.1", "model.activation_checkpointing=true", "model.compile=true",
     "lora.targets=all-linear", "train.layer_decay=0.5", "train.unfreeze=0.5",
     "data.long=head_tail", "data.truncation=left", "bag.rows=all", "contrast.pairs=4"],
)  # fmt: skip
def test_a_setting_of_transformers_is_refused_by_its_key(
    source, change, bag, tmp_path, many_reviews, capsys
):
    model = {"source": source.replace("{bag}", str(bag))}
    path = write_recipe(tmp_path, {"source": str(many_reviews)}, "more", model=model)
    needs_head = change in ("head.pool=cls", "contrast.pairs=4")
    words = ["head.kind=linear", change] if needs_head else [change]
    assert train.main(["--config", str(path), *words]) == 2
    message = capsys.readouterr().err
    key, _, _ = change.partition("=")
    whole = key.partition(".")[0]
    assert (whole if whole in ("lora", "bag", "contrast") else key) in message
    assert "bag of n-grams" in message
    assert f"--unset {whole}" in message or f"--unset {key}" in message


@pytest.mark.parametrize("source", ["ngrams", "run:{bag}"])
def test_all_that_is_to_be_removed_is_named_at_once(source, bag, tmp_path, many_reviews, capsys):
    model = {"source": source.replace("{bag}", str(bag))}
    path = write_recipe(tmp_path, {"source": str(many_reviews)}, "more", model=model)
    words = ["head.kind=linear", "head.pool=mean", "lora.targets=all-linear", "model.train=head"]
    assert train.main(["--config", str(path), *words]) == 2
    unset = "--unset head.pool --unset head.kind --unset lora --unset model.train"
    assert f"remove them ({unset})" in capsys.readouterr().err


def test_half_precision_is_refused_for_want_of_products(tmp_path, many_reviews, capsys):
    path = write_recipe(tmp_path, {"source": str(many_reviews)})
    assert train.main(["--config", str(path), "precision.dtype=bf16"]) == 2
    assert "no matrix product" in capsys.readouterr().err


def test_the_plan_says_that_texts_are_read_whole(tmp_path, many_reviews, capsys):
    path = write_recipe(tmp_path, {"source": str(many_reviews), "max_length": 8})
    assert train.main(["--config", str(path), "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "texts are read whole" in shown
    assert "fp32 (it has no matrix products)" in shown


def test_several_labels_a_row(tmp_path):
    rows = [
        {"text": f"{'joy' if i % 2 else ''} {'anger' if i % 3 else ''} film {i}",
         "label": "+".join(n for n, on in (("joy", i % 2), ("anger", i % 3), ("film", 1)) if on)}
        for i in range(300)
    ]  # fmt: skip
    data = {"source": write_rows(tmp_path / "rows.jsonl", rows), "kind": "multi"}
    data["label_separator"] = "+"
    assert train.main(["--config", str(write_recipe(tmp_path, data))]) == 0
    shares = load_run(tmp_path / "runs/bag")(["pure joy", "anger"])
    assert shares[0].probabilities["joy"] > 0.5 > shares[1].probabilities["joy"]


def test_a_number_is_told_in_its_own_unit(tmp_path):
    rows = [{"text": f"{['poor', 'plain', 'good'][i % 3]} film {i}", "label": 1990.5 + i % 3 * 10}
            for i in range(300)]  # fmt: skip
    data = {"source": write_rows(tmp_path / "rows.jsonl", rows), "kind": "regression"}
    assert train.main(["--config", str(write_recipe(tmp_path, data, train={"epochs": 8}))]) == 0
    run = tmp_path / "runs" / "bag"
    low, high = (p.probabilities["value"] for p in load_run(run)(["poor film", "good film"]))
    assert 1988 < low < 1996
    assert 2005 < high < 2013
    script = [sys.executable, "-I", run / "model/predict_ngrams.py", "good film"]
    done = subprocess.run(script, capture_output=True, encoding="utf-8", check=True)
    assert f"{high:.2f}" in done.stdout


def test_pairs_of_texts_tell_the_first_from_the_second(tmp_path):
    rows = [{"a": f"{'good' if i % 2 else 'bad'} film {i}",
             "b": f"{'bad' if i % 2 else 'good'} story {i}", "label": "ab"[i % 2]}
            for i in range(300)]  # fmt: skip
    data = {"source": write_rows(tmp_path / "rows.jsonl", rows), "text": ["a", "b"]}
    path = write_recipe(tmp_path, data)
    assert train.main(["--config", str(path), "--unset", "samples"]) == 0
    model = load_run(tmp_path / "runs/bag")
    assert [p.label for p in model([("good", "bad"), ("bad", "good")])] == ["b", "a"]


def test_texts_without_a_word_and_of_other_scripts_train_and_answer(tmp_path):
    texts = ["…", "!!!", "映画は良かった", "plot \U0001f600", "фильм", "हिन्दी"]
    rows = [{"text": f"{texts[i % 6]} {i if i > 5 else ''}", "label": i % 2} for i in range(200)]
    data = {"source": write_rows(tmp_path / "rows.jsonl", rows)}
    assert train.main(["--config", str(write_recipe(tmp_path, data))]) == 0
    answers = load_run(tmp_path / "runs/bag")(texts)
    assert all(0 <= answer.probability <= 1 for answer in answers)


def test_a_bag_learns_what_its_teacher_says_whatever_the_labels_are(bag, tmp_path, many_reviews):
    rows = [json.loads(line) for line in many_reviews.read_text(encoding="utf-8").splitlines()]
    swapped = [{**row, "label": {"pos": "neg", "neg": "pos"}[row["label"]]} for row in rows]
    data = {"source": write_rows(tmp_path / "rows.jsonl", swapped), "validation": 0}
    distill = {"teacher": str(bag), "student": "ngrams", "weight": 1.0, "temperature": 1.0}
    path = write_recipe(tmp_path, data, "student", distill=distill, train={"epochs": 6})
    assert train.main(["--config", str(path), "--unset", "model.source"]) == 0
    teacher, student = load_run(bag), load_run(tmp_path / "runs/student")
    texts = [row["text"] for row in rows[:40]]
    pairs = list(zip(teacher(texts), student(texts), strict=True))
    assert all(one.label == other.label for one, other in pairs)
    gaps = [abs(one.probability - other.probability) for one, other in pairs]
    assert sum(gaps) / len(gaps) < 0.05


def test_a_bag_stands_beside_its_transformer_on_the_card(run, tmp_path, reviews_csv, capsys):
    distill = {"teacher": str(run), "student": "ngrams"}
    path = write_recipe(tmp_path, {"source": str(reviews_csv)}, "student", distill=distill)
    words = ["--unset", "model.source", "data.test=8"]
    kill_after_save(1, lambda: train.main(["--config", str(path), *words]))
    assert train.main(["--config", str(path), *words, "--resume"]) == 0
    assert "the teacher's answers: train hit" in capsys.readouterr().out
    card = (tmp_path / "runs/student/README.md").read_text(encoding="utf-8")
    teacher, student = re.findall(r"^\| (?:teacher|student).*$", card, re.MULTILINE)
    assert "524,290" in student
    assert "524,290" not in teacher
    script = [sys.executable, "-I", tmp_path / "runs/student/model/predict_ngrams.py", "good"]
    assert "pos" in subprocess.run(script, capture_output=True, encoding="utf-8").stdout
