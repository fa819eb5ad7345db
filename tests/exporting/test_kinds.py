"""Every kind of run in every format that holds it, and the checkers as they are: in a process of
their own, isolated."""

import json
import shutil

import pytest

import export
from job.exporting.child import CheckerFailed, run_checker
from job.exporting.place import EXPORT

SETTINGS = {"head": None, "data": {"validation": 12, "test": 12}}
PROGRAM = """
import importlib.util, json, os, sys
names = ("openloop", "engine", "configs", "job", "files")
with open(sys.argv[3], "w", encoding="utf-8") as file:
    json.dump({
        "ours": [name for name in names if importlib.util.find_spec(name)],
        "flags": [sys.flags.isolated, sys.flags.no_user_site],
        "folder": os.getcwd(),
        "offline": os.environ["HF_HUB_OFFLINE"],
        "token": os.environ.get("HF_TOKEN"),
        "cache": os.environ.get("HF_HOME"),
        "questions": json.load(open(sys.argv[2], encoding="utf-8")),
    }, file)
"""


def record(run, to):
    return json.loads((run / "exports" / to / EXPORT).read_text(encoding="utf-8"))


def written(run, to, *words):
    """The record of an export that has to hold."""
    assert export.main(["--run", str(run), "--to", to, *words]) == 0
    return record(run, to)


def test_a_checker_runs_elsewhere_and_finds_nothing_of_ours(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "secret")
    monkeypatch.setenv("PYTHONPATH", ".")
    program = tmp_path / "program.py"
    program.write_text(PROGRAM, encoding="utf-8")
    monkeypatch.setenv("HF_HOME", "/a/cache")
    answers = run_checker(program, tmp_path, {"texts": ["é\u2028"]})
    assert answers["ours"] == []
    assert answers["flags"] == [1, 1]
    assert answers["folder"] not in (str(tmp_path), str(program.parent))
    assert (answers["offline"], answers["token"], answers["cache"]) == ("1", None, "/a/cache")
    assert answers["questions"] == {"texts": ["é\u2028"]}


def test_a_check_leaves_nothing_in_the_folder(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "shipped.py").write_text("ANSWER = 1\n", encoding="utf-8")
    program = tmp_path / "program.py"
    program.write_text(
        "import json, sys\nsys.path.insert(0, sys.argv[1])\nimport shipped\n"
        "json.dump({'answer': shipped.ANSWER}, open(sys.argv[3], 'w', encoding='utf-8'))\n",
        encoding="utf-8",
    )
    assert run_checker(program, tmp_path / "out", {}) == {"answer": 1}
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["shipped.py"]


@pytest.mark.parametrize(
    ("source", "expected"),
    [("raise ValueError('no weights')", "no weights"), ("import sys; sys.exit(3)", "status 3"),
     ("pass", "status 0")],
)  # fmt: skip
def test_a_checker_that_ends_without_answers_says_why(tmp_path, source, expected):
    program = tmp_path / "program.py"
    program.write_text(source, encoding="utf-8")
    with pytest.raises(CheckerFailed, match=expected):
        run_checker(program, tmp_path, {})


@pytest.mark.slow
def test_a_calibrated_run_on_two_labels_has_its_temperature_in_the_weights(start):
    run, _ = start("warm", "train.max_steps=4")
    path = run / "model" / "decision.json"
    decision = json.loads(path.read_text(encoding="utf-8")) | {"temperature": 1.75}
    path.write_text(json.dumps(decision), encoding="utf-8")
    result = written(run, "transformers", "--allow-drift")
    assert result["sides"][1]["alike"] == [13, 13]
    assert result["sides"][1]["shares"] < 1e-5
    assert any("1.75" in note and "calibrated" in note for note in result["notes"])
    rest = json.loads((run / "exports/transformers/decision.json").read_text(encoding="utf-8"))
    assert rest["temperature"] == 1


@pytest.mark.slow
def test_a_number_is_put_out_in_its_own_unit(start, tmp_path):
    rows = [{"text": f"film number {i} of {i % 7} stars", "label": 100.0 + i % 7}
            for i in range(60)]  # fmt: skip
    source = tmp_path / "stars.jsonl"
    source.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    words = ["data.kind=regression", f"data.source={source}", "train.max_steps=4"]
    run, _ = start("stars", *words)
    result = written(run, "transformers")
    assert result["sides"][1]["alike"] is None
    assert max(result["sides"][1]["shares"], result["sides"][1]["outputs"]) < 1e-4
    assert any("own unit" in note for note in result["notes"])
    result = written(run, "peft")
    assert any("standard deviations" in note for note in result["notes"])


@pytest.mark.slow
def test_pairs_go_through_a_pipeline(start, tmp_path):
    rows = [{"a": f"film {i}", "b": f"story {i}", "label": i % 2} for i in range(40)]
    source = tmp_path / "pairs.jsonl"
    source.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    words = [f"data.source={source}", 'data.text=["a", "b"]', "train.max_steps=2"]
    run, _ = start("pairs", *words, "--unset", "samples")
    assert written(run, "transformers")["sides"][1]["alike"] == [13, 13]


@pytest.mark.slow
def test_a_bag_is_left_out_and_its_worth_is_said(start):
    words = ["head.kind=linear", "head.pool=cls", "data.truncation=left", "train.max_steps=2"]
    run, _ = start("both", *words, "bag.rows=train")
    result = written(run, "sentence-transformers")
    assert result["sides"][1]["alike"] == [13, 13]
    (note,) = [note for note in result["notes"] if "bag" in note]
    assert "with the bag" in note
    assert "without" in note
    assert not (run / "exports/sentence-transformers/bag").exists()


@pytest.mark.slow
def test_a_conversation_gets_the_same_replies_in_transformers(chat_place, tmp_path):
    import train

    place = chat_place(tmp_path)
    assert train.main(["--config", str(place / "chat.toml"), "train.max_steps=2"]) == 0
    run = place / "runs" / "tiny"
    result = written(run, "transformers", "--rows", "4")
    assert result["sides"][1]["alike"] == [4, 4]
    assert result["sides"][1]["outputs"] < 1e-4
    shutil.rmtree(run / "checkpoints")  # which an export does not need
    assert written(run, "peft", "--rows", "2")["failed"] == []
