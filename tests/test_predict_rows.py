"""Answers for every row of a file: errors, addresses, kept columns, names that collide."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

import predict
import train
from predict import load_run

ROOT = Path(__file__).parent.parent


def call(capsys, *words):
    code = predict.main([str(word) for word in words])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "texts.csv"
    path.write_text(
        'id,text,label\n1,good film,pos\n2,,neg\n3,"two\nlines",\n4,ragged\n5,<br>,pos\n',
        encoding="utf-8",
    )
    return path


def test_every_row_has_one_answer_in_all_three_files(run, table, capsys, tmp_path):
    frames = {}
    for ending in ("jsonl", "csv", "parquet"):
        output = tmp_path / f"out.{ending}"
        code, _, err = call(capsys, "--run", run, "--file", table, "--keep", "--output", output)
        assert code == 0
        assert "5 rows, 3 of them with an error" in err
        assert "'label' is kept as 'input_label'" in err
        frames[ending] = output
    rows = [json.loads(s) for s in frames["jsonl"].read_text(encoding="utf-8").splitlines()]
    assert [row["address"] for row in rows] == [f"texts.csv:{i}" for i in (2, 3, 4, 6, 7)]
    assert [row["error"] is None for row in rows] == [True, False, True, False, False]
    assert [row.get("id") for row in rows] == ["1", "2", "3", None, "5"]
    parquet = pq.read_table(frames["parquet"]).to_pylist()
    csv = pd.read_csv(frames["csv"], dtype=str, keep_default_na=False).to_dict("records")
    for row, one, other in zip(rows, parquet, csv, strict=True):
        shares = row["probabilities"] or {}
        assert one["probability_pos"] == shares.get("pos")
        assert other["probability_pos"] == ("" if not shares else repr(shares["pos"]))
        for name in ("address", "text", "label", "error"):
            assert one[name] == row[name]
            assert other[name] == (row[name] or "")
        assert one["input_label"] == row.get("input_label")


def test_an_output_that_cannot_be_is_refused_before_the_model_is_loaded(run, table, capsys):
    for name, words in (
        ("out.txt", "parquet"),
        ("out.csv.gz", "parquet"),
        ("no/out.csv", "folder"),
    ):
        code, _, err = call(capsys, "--run", run, "--file", table, "--output", table.parent / name)
        assert code == 2
        assert words in err
        assert "openloop:" not in err
    code, _, err = call(capsys, "--run", run, "--file", table, "--output", table)
    assert code == 2
    assert "is the file of the texts" in err


def test_packed_files_that_are_cut_short_are_one_message(run, capsys, tmp_path):
    import gzip

    whole = gzip.compress(("text\n" + "\n".join(map(str, range(5000)))).encode())
    (tmp_path / "cut.csv.gz").write_bytes(whole[: len(whole) // 2])
    code, _, err = call(capsys, "--run", run, "--file", tmp_path / "cut.csv.gz")
    assert code == 2
    assert "cut.csv.gz" in err


@pytest.mark.parametrize(
    ("item", "words"),
    [("cut \ud83d", "surrogate"), (None, "empty"), (5, "expected text"), (("a", "b"), "single"),
     ("<br>", "cleaning"), (" ", "empty")],
)  # fmt: skip
def test_python_names_the_item_that_is_no_text(run, item, words):
    with pytest.raises(ValueError, match=rf"item 1: .*{words}"):
        load_run(run)(["good", item])


def test_pairs_are_asked_on_the_command_line(pair_run, run, capsys):
    code, out, _ = call(
        capsys, "--run", pair_run, "--json", "--pair", "it's", 'a "b"', "--pair", "a", ""
    )
    assert code == 0
    first, second = [json.loads(line) for line in out.splitlines()]
    assert (first["address"], first["text"]) == ("pair 1", ["it's", 'a "b"'])
    assert second["error"] == "second text: empty text"
    for folder, words in ((pair_run, ["a text"]), (run, ["--pair", "a", "b"])):
        code, _, err = call(capsys, "--run", folder, *words)
        assert code == 2
        assert "--pair" in err
    card = (pair_run / "README.md").read_text(encoding="utf-8")
    assert "--pair" in card
    for snippet in [part.split("```")[0] for part in card.split("```python\n")[1:]]:
        exec(compile(snippet, "snippet", "exec"), {})


def test_a_base_that_moved_is_pointed_to_and_its_hash_checked(
    recipe, tiny_folder, tmp_path, capsys
):
    shutil.copytree(tiny_folder, tmp_path / "base")
    path = recipe(model={"source": str(tmp_path / "base")}, train={"max_steps": 1})
    assert train.main(["--config", str(path)]) == 0
    folder = tmp_path / "runs" / "tiny"
    before = load_run(folder)(["good film"])
    (tmp_path / "base").rename(tmp_path / "moved base")
    for words in (["predict"], ["--eval-only"]):
        if words == ["predict"]:
            code, _, err = call(capsys, "--run", folder, "good film")
        else:
            code, err = train.main(["--config", str(path), *words]), capsys.readouterr().err
        assert code == 2
        assert "the base of this run's adapter" in err
        assert "--base PATH" in err
        assert "load_run(..., base=PATH)" in err
    assert load_run(folder, base=tmp_path / "moved base")(["good film"]) == before
    with (tmp_path / "moved base" / "config.json").open("a", encoding="utf-8") as file:
        file.write("\n")
    with pytest.raises(ValueError, match="is not the one it was trained on"):
        load_run(folder, base=tmp_path / "moved base")


def test_a_run_with_all_its_weights_takes_no_base(recipe, tmp_path, tiny_folder):
    assert train.main(["--config", str(recipe(lora=None)), "train.max_steps=1"]) == 0
    with pytest.raises(ValueError, match="leave out --base"):
        load_run(tmp_path / "runs" / "tiny", base=tiny_folder)


def test_the_command_for_more_epochs_works(recipe, tmp_path, capsys):
    import shlex

    path = recipe(train={"epochs": 1})
    assert train.main(["--config", str(path)]) == 0
    assert train.main(["--config", str(path), "--resume", "train.epochs=2"]) == 2
    said = capsys.readouterr().err
    line = next(line for line in said.splitlines() if "model.source=run:" in line)
    assert train.main(shlex.split(line)[2:]) == 0
    assert (tmp_path / "runs" / "tiny_more" / "result.json").exists()


def test_a_reader_that_leaves_and_a_console_of_ascii_end_nothing(run, tmp_path):
    texts = tmp_path / "texts.txt"
    texts.write_text("un été 好\n" * 4_000, encoding="utf-8")
    environment = {
        "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0",
        "LC_ALL": "C",
        "PATH": "/usr/bin:/bin",
        "OPENLOOP_CACHE": os.environ["OPENLOOP_CACHE"],
    }
    words = [sys.executable, "predict.py", "--run", str(run)]
    done = subprocess.Popen(
        [*words, "--file", str(texts)], cwd=ROOT, env=environment,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert b"un \\xe9t\\xe9 \\u597d" in done.stdout.readline()
    done.stdout.close()
    said = done.stderr.read()
    assert done.wait() == 141
    assert b"Traceback" not in said
    assert b"Exception" not in said
