"""compare.py: finished runs side by side."""

import json
import subprocess
import sys

import pytest

import compare
from tests.conftest import ROOT, help_seconds, result_of

SETTINGS = {"eval": {"baseline": False}, "speed": {"native": "off"}, "samples": None}


@pytest.fixture
def compared(capsys):
    """compared("a", …, code=0) -> what compare.py printed, on standard output and error."""

    def run(*words, code=0):
        capsys.readouterr()
        assert compare.main([str(word) for word in words]) == code
        captured = capsys.readouterr()
        return captured.out, captured.err

    return run


def predictions(run):
    lines = (run / "test_predictions.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def rewrite(run, lines):
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (run / "test_predictions.jsonl").write_text(text, encoding="utf-8")


def test_two_runs_show_what_differs_and_how_far_they_are_apart(start, compared):
    first, _ = start("first", "train.lr=1e-6")
    second, _ = start("second", "train.lr=3e-2")
    out, _ = compared(first, second, "--json")
    found = json.loads(out)
    assert found["settings"] == {"train.lr": {str(first): 1e-6, str(second): 3e-2}}
    assert [run["run"] for run in found["runs"]] == [str(first), str(second)]
    for one in found["differences"]:
        figures = [result_of(run)["test"][one["metric"]] for run in (first, second)]
        assert one["difference"] == pytest.approx(figures[1] - figures[0])
        assert one["low"] <= one["difference"] <= one["high"]
        assert 0 <= one["p"] <= 1
        assert one["n"] == 12
    assert [one["metric"] for one in found["differences"]] == ["accuracy", "macro_f1"]
    text, _ = compared(first, second)
    assert "train.lr" in text
    assert "train.epochs" not in text
    rows = [
        {line["row"] for line in predictions(run) if line["label"] == line["predicted"]}
        for run in (first, second)
    ]
    for mine, other, run in ((rows[0], rows[1], first), (rows[1], rows[0], second)):
        assert f"{run.name} alone has {len(mine - other)} row" in text
        assert all(f"  {row}: " in text for row in sorted(mine - other)[:1])


def test_a_run_beside_itself_differs_in_nothing(start, compared):
    run, _ = start("one")
    out, _ = compared(run, run, "--json")
    found = json.loads(out)
    assert found["settings"] == {}
    assert all((d["difference"], d["low"], d["high"], d["p"]) == (0, 0, 0, 1)
               for d in found["differences"])  # fmt: skip
    text, _ = compared(run, run)
    assert "settings: none differs" in text
    assert "Both answer these 12 rows equally well" in text


def test_runs_scored_on_other_rows_are_not_compared(start, compared):
    first, _ = start("first")
    second, _ = start("second", "data.test=20")
    _, error = compared(first, second, code=2)
    shared = {line["row"] for line in predictions(first)}
    shared &= {line["row"] for line in predictions(second)}
    assert f"12 and 20, of which they share {len(shared)}" in error


@pytest.mark.parametrize("words", [["missing"], ["missing", "elsewhere"], ["a", "b", "c"]])
def test_what_is_no_run_is_named(tmp_path, compared, words):
    _, error = compared(*(tmp_path / word for word in words), code=2)
    assert str(tmp_path / words[0]) in error


def test_many_runs_are_listed_best_first_with_seeds_together(start, compared):
    runs = [start(f"seed{n}", f"run.seed={n}", "train.lr=3e-2")[0] for n in range(3)]
    runs.append(start("other", "train.lr=1e-6")[0])
    unfinished = runs[0].with_name("empty")
    unfinished.mkdir()
    out, error = compared(*runs, unfinished)
    assert "3 seeds" in out
    assert f"left out: {unfinished}" in error
    means = [result_of(run)["test"]["accuracy"] for run in runs]
    seeds_first = sum(means[:3]) / 3 > means[3]
    assert (out.index("seed0") < out.index("other")) == seeds_first
    found = json.loads(compared(*runs, "--json")[0])
    assert set(found["settings"]) == {"run.seed", "train.lr"}
    assert found["differences"] == []


def test_several_labels_are_compared_by_whole_rows_and_macro_f1(recipe, tmp_path, compared):
    import train

    table = tmp_path / "several.csv"
    words = {"bad": "awful", "good": "superb", "long": "endless"}
    rows = ["text,bad,good,long"]
    for i in range(60):
        on = [name for bit, name in enumerate(words) if i >> bit & 1]
        text = " ".join([*(words[name] for name in on), f"film {i}"])
        rows.append(",".join([text, *(str(int(name in on)) for name in words)]))
    table.write_text("\n".join(rows) + "\n", encoding="utf-8")
    data = {"source": str(table), "kind": "multi", "label": list(words)}
    path = recipe(**SETTINGS, data=data)
    runs = []
    for name, lr in (("one", "1e-6"), ("two", "3e-2")):
        assert train.main(["--config", str(path), f"run.name={name}", f"train.lr={lr}"]) == 0
        runs.append(tmp_path / "runs" / name)
    found = json.loads(compared(*runs, "--json")[0])
    for one in found["differences"]:
        figures = [result_of(run)["test"][one["metric"]] for run in runs]
        assert one["difference"] == pytest.approx(figures[1] - figures[0])


def test_numbers_are_compared_by_rmse_and_mae(recipe, tmp_path, compared):
    import train

    table = tmp_path / "stars.csv"
    rows = [f"{'good ' * (i % 6)}film {i},{i % 6}" for i in range(60)]
    table.write_text("\n".join(["text,label", *rows]) + "\n", encoding="utf-8")
    path = recipe(**SETTINGS, data={"source": str(table), "kind": "regression"})
    runs = []
    for name, lr in (("one", "1e-6"), ("two", "3e-2")):
        assert train.main(["--config", str(path), f"run.name={name}", f"train.lr={lr}"]) == 0
        runs.append(tmp_path / "runs" / name)
    found = json.loads(compared(*runs, "--json")[0])
    assert [one["metric"] for one in found["differences"]] == ["rmse", "mae"]
    for one in found["differences"]:
        figures = [result_of(run)["test"][one["metric"]] for run in runs]
        assert one["difference"] == pytest.approx(figures[1] - figures[0], abs=1e-4)
    assert "alone has" not in compared(*runs)[0]


def test_a_line_that_is_no_prediction_is_named(start, compared):
    run, _ = start("one")
    lines = predictions(run)
    rewrite(run, [*lines[:3], {"row": 1}, *lines[3:]])
    _, error = compared(run, run, code=2)
    assert "test_predictions.jsonl, line 4" in error


def test_texts_cannot_steer_the_terminal(start, compared):
    first, _ = start("first", "train.lr=1e-6")
    second, _ = start("second", "train.lr=1e-6", "run.seed=3")
    for run, answer in ((first, "pos"), (second, "neg")):
        lines = predictions(run)
        lines[0] |= {"text": "\x1b[2Jgone\u202e", "label": "pos", "predicted": answer}
        rewrite(run, lines)
    out, _ = compared(first, second)
    assert "gone" in out
    assert "\x1b" not in out
    assert "\u202e" not in out


def test_help_is_quick_and_a_list_needs_no_torch(start):
    run, _ = start("one")
    program = "import compare, sys; print(compare.main(sys.argv[1:]), 'torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program, *[str(run)] * 3],
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",
    )
    assert done.stdout.splitlines()[-1] == "0 False"
    assert help_seconds("compare.py") < 0.3


def test_two_runs_have_a_page_that_links_theirs_and_shows_what_the_text_says(start, compared):
    first, _ = start("first", "train.lr=1e-6")
    second, _ = start("second", "train.lr=3e-2")
    for run in (first, second):
        lines = [{**line, "text": f"<b>{line['text']}"} for line in predictions(run)]
        rewrite(run, lines)
    out, _ = compared(first, second, "--html")
    path = first.parent / "compare.html"
    assert out.split() == [str(first / "report.html"), str(second / "report.html"), str(path)]
    page = path.read_text(encoding="utf-8")
    text, _ = compared(first, second)
    for row in json.loads(compared(first, second, "--json")[0])["differences"]:
        assert f"{row['difference']:+.4f}" in page
    assert 'href="first/report.html"' in page
    assert "train.lr" in page
    assert "<b>" not in page
    assert "&lt;b&gt;" in page
    assert f"{second.name} less {first.name}" in text


def test_a_page_of_several_runs_leaves_texts_out_where_one_of_them_does(start, compared):
    runs = [
        start(name, *words)[0]
        for name, words in (("one", ["train.lr=1e-6"]), ("two", ["report.texts=false"]))
    ]
    compared(*runs, "--html")
    page = (runs[0].parent / "compare.html").read_text(encoding="utf-8")
    assert "Texts are left out" in page
    assert not any(line["text"] in page for line in predictions(runs[0]))
    compared(*runs, runs[0].parent / "one", "--html")
    assert "runs, the best first" in (runs[0].parent / "compare.html").read_text(encoding="utf-8")


def test_pages_of_a_whole_folder_leave_out_what_is_no_run(start, compared):
    runs = [start(name)[0] for name in ("one", "two")]
    folder = runs[0].parent
    (folder / "notes").mkdir()
    for _ in range(2):  # the second time compare.html is among them
        out, err = compared(*sorted(folder.iterdir()), "--html")
        assert out.split() == [
            *(str(run / "report.html") for run in runs),
            f"{folder}/compare.html",
        ]
        assert f"left out: {folder / 'notes'}" in err
        assert "Rows that only one has right" in (folder / "compare.html").read_text(
            encoding="utf-8"
        )


def test_a_decision_that_differs_is_a_setting_that_differs(start, compared):
    one, _ = start("one")
    two, _ = start("two", "decide.calibrate=false", "run.log_every=1")
    out, _ = compared(one, two, "--json")
    assert list(json.loads(out)["settings"]) == ["decide.calibrate"]
