"""check.py: planted faults are found, what mends them mends them, a program can read it."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import check
import train
from configs.read import parse_config
from data.prepare import load_data
from job.checking.examined import Examined
from job.checking.guess import guess_recipe
from job.rows import data_args
from report.check import EXCERPT
from report.format import measure_width
from tests.conftest import help_seconds

ROOT = Path(__file__).parent.parent
GOOD = [
    "good",
    "great",
    "moving",
    "funny",
    "superb",
    "charming",
    "lovely",
    "bright",
    "warm",
    "clever",
]
BAD = ["bad", "awful", "boring", "stupid", "poor", "tedious", "dull", "cold", "empty", "silly"]
REST = [
    f"{a}{b}" for a in "bdfgklmnprst" for b in ("ano", "eri", "olu", "ita", "ebo", "usi", "ara")
]


SPLITS = ["data.validation=100", "data.test=100"]  # fewer rows are a finding


def draw_rows(rows, seed=0):
    """Texts of 30 words, a third of which tell the label; all different."""
    draw = np.random.default_rng(seed)
    table = []
    for i in range(rows):
        words = [*draw.choice((GOOD, BAD)[i % 2], 10), *draw.choice(REST, 20)]
        table.append({"text": " ".join(draw.permutation(words)), "label": ("pos", "neg")[i % 2]})
    return table


def write_csv(path, rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture
def examine(tmp_path, capsys, monkeypatch):
    """`examine(rows, *words)`: exit status and findings of check.py on a table of these rows."""
    monkeypatch.chdir(tmp_path)

    def run(rows, *words, name="a.csv"):
        write_csv(tmp_path / name, rows)
        status = check.main(["--csv", name, "--json", *SPLITS, *words])
        out = capsys.readouterr().out
        return status, [json.loads(line) for line in out.splitlines()]

    return run


def kinds(findings):
    return {finding["kind"] for finding in findings}


def test_sound_data_has_nothing_and_exits_with_zero(examine, tmp_path):
    status, findings = examine(draw_rows(400))
    assert (status, findings) == (0, [])
    assert (tmp_path / "check.jsonl").read_text(encoding="utf-8") == ""


def test_near_copies_on_two_sides_are_errors_and_dropping_them_mends_it(examine, tmp_path):
    rows = draw_rows(400)
    for i in range(20):
        rows[380 + i] = rows[i] | {"text": rows[i]["text"].upper().replace(" ", ", ", 3) + " End."}
    status, findings = examine(rows)
    copies = [one for one in findings if one["kind"] == "near_duplicate"]
    assert {tuple(sorted(one["rows"])) for one in copies} == {
        tuple(sorted((f"a.csv:{i + 2}", f"a.csv:{i + 382}"))) for i in range(20)
    }
    assert "error" in {one["level"] for one in copies}
    assert all(len(one["drop"]) == 1 for one in copies)
    for one in copies:  # what is dropped is on the side that learns, where there is one
        assert one["level"] == "warning" or one["splits"][0] != "train"
    assert status == 1
    status, findings = examine(rows, "data.drop_rows=check.jsonl")
    assert (status, findings) == (0, [])
    assert (tmp_path / "check2.jsonl").exists()  # the edited file is left alone


def test_the_rows_of_many_findings_are_read_together(examine, monkeypatch):
    rows, calls = draw_rows(400), []
    for i in range(60):
        rows[340 + i] = rows[i] | {"text": rows[i]["text"] + f" café{i}".replace("é", "Ã©")}
    for name in ("addresses", "excerpts", "read"):
        method = getattr(Examined, name)

        def noted(self, rows, method=method):
            calls.append(len(rows))
            return method(self, rows)

        monkeypatch.setattr(Examined, name, noted)
    _, findings = examine(rows)
    copies = [one for one in findings if one["kind"] == "near_duplicate"]
    assert (len(copies), sum(one["kind"] == "mojibake" for one in findings)) == (60, 60)
    assert len(calls) < 20
    for one in copies:  # each has its own rows' texts
        numbers = [int(address.partition(":")[2]) - 2 for address in one["rows"]]
        assert one["texts"] == [rows[number]["text"][:EXCERPT] for number in numbers]


def test_flipped_labels_are_the_first_that_are_doubted(examine):
    rows = draw_rows(400)
    flipped = set(range(0, 400, 20))
    for i in flipped:
        rows[i]["label"] = "neg" if rows[i]["label"] == "pos" else "pos"
    status, findings = examine(rows)
    doubted = [one for one in findings if one["kind"] == "label_error"]
    first = {int(one["rows"][0].partition(":")[2]) - 2 for one in doubted[: len(flipped)]}
    assert len(doubted) >= 10
    assert first <= flipped
    assert all(one["label"] != one["suggested"] for one in doubted[: len(flipped)])
    assert status == 0  # a doubt is a warning


def test_a_column_of_films_on_two_sides_is_told_and_data_group_mends_it(examine):
    rows = [row | {"film": f"film {i // 4}"} for i, row in enumerate(draw_rows(400))]
    _, findings = examine(rows)
    (leak,) = findings
    assert (leak["kind"], leak["level"], leak["setting"]) == (
        "group_leak",
        "warning",
        'data.group = "film"',
    )
    assert examine(rows, "data.group=film") == (0, [])


def test_groups_in_two_files_are_errors_and_dropping_rows_mends_it(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [row | {"film": f"film {i // 4}"} for i, row in enumerate(draw_rows(402))]
    write_csv(tmp_path / "train.csv", rows[:302])
    write_csv(tmp_path / "test.csv", rows[302:])
    words = ["--csv", "train.csv", "--json", "data.group=film", "data.validation=100"]
    words += ["data.source={train = 'train.csv', test = 'test.csv'}"]
    assert check.main(words) == 1
    (leak,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert (leak["kind"], leak["drop"]) == ("group_leak", ["train.csv:302", "train.csv:303"])
    assert check.main([*words, "data.drop_rows=check.jsonl"]) == 0


def test_templates_letters_languages_and_rare_classes_are_told(examine):
    rows = draw_rows(400)
    for i in range(0, 100, 4):
        rows[i]["text"] = f"Your order {i} of a {REST[i % 80]}{i} has been delivered to our shop"
    rows[201]["text"] += " cafÃ©"
    rows[203]["text"] = (
        "Der Film war nicht so gut wie ich dachte, aber es ist ein Bild von der Zeit"
    )
    rows[205]["label"] = rows[207]["label"] = "odd"
    status, findings = examine(rows)
    assert {"template", "mojibake", "language", "rare_class"} <= kinds(findings)
    assert status == 0
    by_kind = {one["kind"]: one for one in findings}
    assert by_kind["template"]["count"] == 25
    assert by_kind["mojibake"]["rows"] == ["a.csv:203"]
    assert by_kind["language"]["rows"] == ["a.csv:205"]
    assert by_kind["rare_class"]["label"] == "odd"
    for one in findings:
        assert {"kind", "level", "message", "rows", "drop", "setting"} <= one.keys()
        assert one["level"] in ("warning", "error")
        assert one["setting"]


def test_a_label_that_train_lacks_is_an_error(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_csv(tmp_path / "train.csv", draw_rows(300))
    write_csv(tmp_path / "test.csv", [*draw_rows(100, 1), draw_rows(1, 2)[0] | {"label": "odd"}])
    words = ["--csv", "train.csv", "--json"]
    words += ["data.source={train = 'train.csv', test = 'test.csv'}"]
    assert check.main(words) == 1
    findings = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    missing = [one for one in findings if one["kind"] == "missing_label"]
    assert {(one["split"], *one["labels"], one["level"]) for one in missing} == {
        ("train", "odd", "error"),
        ("validation", "odd", "warning"),
    }


def test_what_a_run_is_refused_for_is_an_error_and_the_rest_is_examined(
    tmp_path, recipe, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    rows = draw_rows(300)
    rows[7]["label"] = ""
    rows[200]["text"] = rows[100]["text"].upper()
    path = recipe(data={"source": str(write_csv(tmp_path / "a.csv", rows)), "test": 0.5})
    assert check.main(["--config", str(path), "--json"]) == 1
    findings = {(one := json.loads(x))["kind"]: one for x in capsys.readouterr().out.splitlines()}
    assert findings["bad_row"]["rows"] == ["a.csv:9"]
    assert findings["near_duplicate"]["resemblance"] == 1
    assert train.main(["--config", str(path), "--dry-run"]) == 2
    assert "1 bad row" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["pairs", "multi", "regression"])
def test_pairs_several_labels_and_numbers_are_examined(examine, kind):
    rows, others = draw_rows(300), draw_rows(300, 1)
    words = []
    for i, (row, other) in enumerate(zip(rows, others, strict=True)):
        if kind == "pairs":
            row |= {"text": row["text"], "second": other["text"]}
            words = ['data.text=["text", "second"]']
        elif kind == "multi":
            flip = i % 50 == 0
            row["label"] = "pos;odd" if (row["label"] == "pos") != flip else "neg;odd"
            words = ["data.label_separator=;", "data.kind=multi", "data.label=label"]
        else:
            row["label"] = i % 7 + i / 1000
    if kind == "pairs":
        rows[299] |= {"text": rows[0]["text"], "second": rows[0]["second"] + " end", "label": "neg"}
    status, findings = examine(rows, *words)
    assert status in (0, 1)
    if kind == "pairs":
        assert [one["rows"] for one in findings if one["kind"] == "near_duplicate"] in (
            [["a.csv:2", "a.csv:301"]],
            [["a.csv:301", "a.csv:2"]],
        )
    elif kind == "multi":
        first = [int(one["rows"][0].partition(":")[2]) - 2 for one in findings[:3]]
        assert [row for row in first if row % 50] == []
        assert findings[0]["label"] != findings[0]["suggested"]
    else:
        assert findings == []


def test_the_rows_are_those_of_the_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_csv(tmp_path / "a.csv", draw_rows(300))
    from job.checking.examined import open_examined

    recipe, _ = guess_recipe(Path("a.csv"), {})
    config = parse_config(recipe, "a", ["data.subset={train = 100}", "data.test=50"])
    examined, _ = open_examined(config)
    data = load_data(data_args(config))
    there = {a: name for name, split in data.splits.items() for a in split["address"]}
    assert dict(zip(examined.table["address"], examined.split, strict=True)) == there


def test_without_the_extra_the_rest_is_examined_and_says_what_is_missing(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    write_csv(tmp_path / "a.csv", draw_rows(300))
    from importlib import util

    known = util.find_spec
    monkeypatch.setattr(
        util, "find_spec", lambda name: None if name in ("datasketch", "cleanlab") else known(name)
    )
    assert check.main(["--csv", "a.csv"]) == 0
    lines = capsys.readouterr().out.splitlines()
    left_out = [line for line in lines if line.startswith("–")]
    assert [line.split("needs ")[1] for line in left_out] == [
        "datasketch: pip install datasketch cleanlab (the extra check)",
        "cleanlab: pip install datasketch cleanlab (the extra check)",
    ]
    assert "2 checks left out" in "\n".join(lines)


def test_lines_are_marked_and_at_most_a_hundred_columns_wide(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rows = draw_rows(400)
    rows[399] = rows[0] | {"text": rows[0]["text"] + " 日本語\x1b[31m" * 30}
    write_csv(tmp_path / f"{'long' * 30}.csv", rows)
    check.main(["--csv", f"{'long' * 30}.csv"])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(measure_width, lines)) <= 100
    assert lines[0].startswith("✔ guessed")
    assert "\x1b" not in "".join(lines)


def test_what_the_file_held_is_kept(examine, tmp_path):
    (tmp_path / "check.jsonl").write_text("edited\n", encoding="utf-8")
    examine(draw_rows(300))
    assert (tmp_path / "check.jsonl.old").read_text(encoding="utf-8") == "edited\n"
    (tmp_path / "check.jsonl").write_text("edited again\n", encoding="utf-8")
    examine(draw_rows(300))
    assert (tmp_path / "check.jsonl.old").read_text(encoding="utf-8") == "edited\n"
    assert (tmp_path / "check.jsonl.old-1").read_text(encoding="utf-8") == "edited again\n"


@pytest.mark.parametrize(
    "words",
    [
        ["--csv", "a.csv", "--out", "a.csv"],
        ["--csv", "a.csv", "--out", "link.csv"],
        ["--csv", "a.csv", "--out", "b.csv", "data.source={train='a.csv', test='b.csv'}"],
        ["--csv", "a.csv", "--out", "b.csv", "data.source=['*.csv']"],
        ["--config", "recipe.toml", "--out", "recipe.toml"],
        ["--config", "recipe.toml", "--out", "a.csv"],
    ],
)
def test_what_is_read_is_never_written_over(tmp_path, monkeypatch, capsys, recipe, words):
    monkeypatch.chdir(tmp_path)
    write_csv(tmp_path / "a.csv", draw_rows(40))
    write_csv(tmp_path / "b.csv", draw_rows(40, 1))
    (tmp_path / "link.csv").hardlink_to(tmp_path / "a.csv")
    if "data.source=['*.csv']" in words:
        (tmp_path / "link.csv").unlink()
    recipe(data={"source": "a.csv"})
    held = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    assert check.main(words) == 2
    assert f"--out: {words[3]} is what is read here" in capsys.readouterr().err
    assert held == {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--csv", "none.csv"], "there is no file"),
        (["--config", "none.toml"], "there is no such file"),
        (["--csv", "a.csv", "data.text=none"], "no column 'none'"),
        (["--csv", "a.csv", "--out", "none/b.jsonl"], "--out: there is no folder none"),
        (["--csv", "a.csv", "data.drop_rows=a.csv", "--out", "a.csv"], "--out: a.csv is the file"),
    ],
)
def test_what_cannot_be_read_is_one_message_and_exit_2(
    tmp_path, monkeypatch, capsys, words, message
):
    monkeypatch.chdir(tmp_path)
    write_csv(tmp_path / "a.csv", draw_rows(40))
    assert check.main(words) == 2
    assert message in capsys.readouterr().err


def test_help_is_quick_and_an_examination_needs_no_torch(tmp_path):
    write_csv(tmp_path / "a.csv", draw_rows(100))
    program = "import check, sys; print(check.main(sys.argv[1:]), 'torch' in sys.modules)"
    words = ["--csv", str(tmp_path / "a.csv"), "--out", str(tmp_path / "check.jsonl")]
    done = subprocess.run(
        [sys.executable, "-c", program, *words], cwd=ROOT, capture_output=True, encoding="utf-8"
    )
    assert done.stdout.splitlines()[-1] == "0 False", done.stderr
    assert help_seconds("check.py") < 0.3


def test_a_resumed_run_refuses_a_file_that_names_other_rows(recipe, tmp_path, capsys):
    drop = tmp_path / "check.jsonl"
    drop.write_text('{"rows": ["reviews.csv:3"]}\n', encoding="utf-8")
    path = recipe(data={"drop_rows": str(drop)}, train={"epochs": 1})
    assert train.main(["--config", str(path)]) == 0
    assert "dropped: 1 rows named in data.drop_rows" in capsys.readouterr().out
    (tmp_path / "runs/tiny/result.json").unlink()  # as if it had been stopped before the test
    drop.write_text('{"rows": ["reviews.csv:4"]}\n', encoding="utf-8")
    assert train.main(["--config", str(path), "--resume"]) == 2
    assert "data" in capsys.readouterr().err
    drop.write_text('{"rows": ["reviews.csv:3"], "kind": "mine"}\n', encoding="utf-8")
    assert train.main(["--config", str(path), "--resume"]) == 0


def test_a_label_of_one_value_is_told_where_columns_are_guessed(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [{"review": f"a film about number {n} and more of it", "sentiment": "good",
             "source": "abc"[n % 3]} for n in range(30)]  # fmt: skip
    write_csv(tmp_path / "one.csv", rows)
    check.main(["--csv", "one.csv", "--json"])
    findings = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    (guess,) = [one for one in findings if one["kind"] == "guess"]
    assert guess["level"] == "warning"
    assert guess["setting"] == "data.label"
    assert "'sentiment'" in guess["message"]
