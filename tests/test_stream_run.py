"""Whole runs whose training rows stream."""

import json
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import train
from tests.conftest import figures, make_reviews, result_of, weights
from tests.killed import kill_after_save
from tests.test_parallel import assert_same, torchrun

SETTINGS = {
    "run": {"save_every": 1},
    "data": {
        "stream": True, "shuffle_buffer": 10, "validation": 8, "test": 8, "on_overlap": "drop",
        "clean": {"duplicates": False}, "on_bad_row": "skip",
    },
    "eval": {"baseline": False, "every": 4},
    "train": {"epochs": 2, "micro_batch_size": 3, "accumulate": 3, "lr": 1e-2},
    "speed": {"native": "off"},
}  # fmt: skip


@pytest.fixture
def source(tmp_path):
    """Parquet files of 70 rows, two of them without a text."""
    (tmp_path / "files").mkdir()
    rows = [{"text": text, "label": label} for text, label in make_reviews(70)]
    rows[19]["text"] = rows[20]["text"] = None  # at most one of two neighbours is held out
    for i in range(3):
        part = pa.Table.from_pylist(rows[i * 25 : (i + 1) * 25])
        pq.write_table(part, tmp_path / "files" / f"{i}.parquet", row_group_size=8)
    return f"data.source={tmp_path}/files/*.parquet"


def test_a_stream_that_was_killed_goes_on_to_the_same_bits(start, source, recipe, tmp_path):
    whole, said = start("whole", source)
    assert "train streams: 54 rows of 3 files or shards" in said
    assert "of the rows that streamed: " in said
    words = ["--config", str(recipe(**SETTINGS)), source, "run.name=cut"]
    kill_after_save(3, lambda: train.main(words))  # after step 3 of 12: within a block
    cut, said = start("cut", source, "--resume")
    assert "resuming from" in said
    assert figures(cut) == figures(whole)
    first, second = weights(whole), weights(cut)
    assert all((first[name] == second[name]).all() for name in first)
    answers = [(run / "test_predictions.jsonl").read_text(encoding="utf-8") for run in (whole, cut)]
    assert answers[0] == answers[1]


def test_a_stream_that_changed_is_not_gone_on_with(start, source, tmp_path):
    start("one", source, "train.max_steps=2")
    changed = tmp_path / "files" / "1.parquet"
    rows = pq.read_table(changed).to_pylist()
    rows[3]["text"] += " more"
    pq.write_table(pa.Table.from_pylist(rows), changed, row_group_size=8)
    (tmp_path / "runs/one/result.json").unlink()
    assert "data: " in start("one", source, "train.max_steps=2", "--resume", code=2)[1]


def test_the_figures_are_had_again(start, source):
    run, _ = start("one", source, "train.max_steps=2")
    _, said = start("one", source, "train.max_steps=2", "--eval-only")
    assert f"Test accuracy {result_of(run)['test']['accuracy']:.4g}" in said


@pytest.mark.timeout(240)
def test_two_processes_stream_as_one(start, source, recipe):
    alone, _ = start("alone", source)
    code, said = torchrun(2, recipe(**SETTINGS), source, "run.name=two")
    assert code == 0, said
    assert_same(alone, alone.parent / "two")


def test_check_reads_all_rows_and_says_so(recipe, source, capsys):
    import check

    assert check.main(["--config", str(recipe(**SETTINGS)), source]) == 2
    assert "data.stream: check.py reads all training rows" in capsys.readouterr().err


def test_conversations_stream_and_go_on_to_the_same_bits(chat_place, tmp_path, capsys):
    place = chat_place(tmp_path)
    words = ["--config", str(place / "chat.toml"), "--unset", "data.packing", "data.stream=true"]
    words += ["data.clean.duplicates=false", "data.on_overlap=drop", "data.shuffle_buffer=10"]
    words += ["eval.baseline=false", "train.max_steps=6", "data.validation=6", "data.test=6"]
    words += ["speed.native=off", "precision.dtype=fp32"]
    assert train.main([*words, "run.name=whole"]) == 0
    assert "train streams: 48 rows of one file" in " ".join(capsys.readouterr().out.split())
    kill_after_save(1, lambda: train.main([*words, "run.name=cut"]))  # after step 2
    assert train.main([*words, "run.name=cut", "--resume"]) == 0
    whole, cut = (tmp_path / "runs" / name for name in ("whole", "cut"))
    assert figures(cut) == figures(whole)
    first, second = weights(whole), weights(cut)
    assert all((first[name] == second[name]).all() for name in first)
    assert train.main([*words, "run.name=whole", "--eval-only"]) == 0


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_memory_stays_flat(tmp_path):
    """200 MB of rows: the process grows by less than a fifth of that."""
    import subprocess
    import sys

    rows = [{"text": f"number {i} " + "film " * 200, "label": i % 2} for i in range(10_000)]
    for i in range(20):
        for row in rows:
            row["text"] = f"{i}" + row["text"][1:]
        with (tmp_path / f"{i}.jsonl").open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    code = (
        "import resource; from data.stream.labelled import *;"
        "from data.clean import CleanArgs;"
        f"args = DataArgs({str(tmp_path / '*.jsonl')!r}, clean=CleanArgs(duplicates=False),"
        "on_overlap='drop', validation=0, test=100);"
        "data = load_streamed(args, StreamArgs(2000, 1)); made = data.stream.micro_batches(0, "
        "range(12000), 16, list); next(made); peak = lambda: "
        "resource.getrusage(resource.RUSAGE_SELF).ru_maxrss; first = peak();"
        "sum(1 for _ in made); print(first, peak())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True,
        env=os.environ | {"PYTHONPATH": "."},
    )  # fmt: skip
    first, last = map(float, done.stdout.split())
    assert last - first < 40_000  # KiB
