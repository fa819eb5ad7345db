"""predict.py: texts, files and standard input against one finished tiny run."""

import io
import json
import os

import pytest

import predict


def call(capsys, *words):
    code = predict.main([str(word) for word in words])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_texts_get_label_and_probability(run, capsys):
    code, out, _ = call(capsys, "--run", run, "good film", "bad film")
    assert code == 0
    assert len(out.splitlines()) == 2
    assert "%" in out
    assert "good film" in out


def test_json_has_one_object_a_line_with_the_agreed_keys(run, capsys):
    _, out, _ = call(capsys, "--run", run, "--json", "good\nfilm", "bad film")
    lines = [json.loads(line) for line in out.splitlines()]
    keys = {"address", "text", "label", "probabilities", "error"}
    assert [set(line) for line in lines] == [keys] * 2
    assert [line["address"] for line in lines] == ["argument 1", "argument 2"]
    assert lines[0]["text"] == "good\nfilm"
    assert set(lines[0]["probabilities"]) == {"neg", "pos"}


def test_standard_input_gives_one_answer_a_line_in_order(run, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("first film\n\nsecond film, longer than that\n"))
    code, out, err = call(capsys, "--run", run, "--json", "-")
    assert code == 0
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["address"] for line in lines] == [f"standard input:{i}" for i in (1, 2, 3)]
    assert [line["label"] is None for line in lines] == [False, True, False]
    assert lines[1]["error"] == "text: empty text"
    assert "3 rows, 1 of them with an error" in err


@pytest.mark.parametrize("ending", ["jsonl", "csv", "txt"])
def test_a_file_is_streamed_into_json_lines(run, capsys, tmp_path, ending):
    texts = [f"film number {i}" for i in range(600)]  # more than two chunks
    forms = {
        "jsonl": "\n".join(json.dumps({"text": text}) for text in texts),
        "csv": "text,x\n" + "\n".join(f"{text},1" for text in texts),
        "txt": "\n".join(texts),
    }
    path, output = tmp_path / f"texts.{ending}", tmp_path / "out.jsonl"
    path.write_text(forms[ending], encoding="utf-8")
    code, _, _ = call(capsys, "--run", run, "--file", path, "--output", output)
    assert code == 0
    assert [
        json.loads(line)["text"] for line in output.read_text(encoding="utf-8").splitlines()
    ] == texts


def test_a_broken_row_is_answered_as_such_and_strict_stops_there(run, capsys, tmp_path):
    path, output = tmp_path / "texts.jsonl", tmp_path / "out.jsonl"
    path.write_text('{"text": "good"}\n{"text": broken}\n{"text": "bad"}\n', encoding="utf-8")
    words = ["--run", run, "--file", path, "--output", output]
    code, _, err = call(capsys, *words, "--strict")
    assert code == 2
    assert "texts.jsonl:2" in err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["texts.jsonl"]
    code, _, err = call(capsys, *words)
    assert code == 0
    assert "3 rows, 1 of them with an error and no label (first: texts.jsonl:2: broken JSON" in err
    answers = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    assert [answer["address"] for answer in answers] == [f"texts.jsonl:{i}" for i in (1, 2, 3)]
    assert [answer["error"] is None for answer in answers] == [True, False, True]
    assert answers[1]["label"] is answers[1]["probabilities"] is None


def test_a_missing_column_is_named_with_the_way_out(run, capsys, tmp_path):
    path = tmp_path / "texts.csv"
    path.write_text("review\ngood film\n", encoding="utf-8")
    code, _, err = call(capsys, "--run", run, "--file", path)
    assert code == 2
    assert "'text'" in err
    assert "--column" in err
    assert call(capsys, "--run", run, "--file", path, "--column", "review")[0] == 0


def test_bytes_of_another_encoding_are_told_or_answered_as_bad(run, capsys, tmp_path):
    path = tmp_path / "texts.txt"
    path.write_bytes("good\nun été à la plage\n".encode("cp1252"))
    code, out, err = call(capsys, "--run", run, "--file", path, "--json")
    assert code == 0
    assert "line 2" in err
    assert json.loads(out.splitlines()[1])["text"] == "un été à la plage"
    code, out, err = call(capsys, "--run", run, "--file", path, "--json", "--encoding", "utf-8")
    assert code == 0
    answer = json.loads(out.splitlines()[1])
    assert (answer["text"], answer["label"]) == (None, None)
    assert "byte 0xE9" in answer["error"]
    assert "--encoding" in answer["error"]


def test_what_is_no_run_is_told_with_the_runs_there(run, capsys, tmp_path):
    code, _, err = call(capsys, "--run", run.parent / "other", "text")
    assert code == 2
    assert "one" in err
    assert "Traceback" not in err


def test_pairs_and_single_texts_are_not_mixed_up(run, pair_run):
    assert predict.load_run(pair_run)([("film 1", "story 1")])[0].label in ("negative", "positive")
    with pytest.raises(ValueError, match="pairs of texts"):
        predict.load_run(pair_run)(["film 1"])
    with pytest.raises(ValueError, match="single texts"):
        predict.load_run(run)([("film 1", "story 1")])


def test_a_pair_file_uses_the_columns_of_the_run(pair_run, capsys, tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps({"a": "film", "b": "story"}), encoding="utf-8")
    code, out, _ = call(capsys, "--run", pair_run, "--file", path, "--json")
    assert code == 0
    assert json.loads(out)["text"] == ["film", "story"]
    code, _, err = call(capsys, "--run", pair_run, "--file", path, "--column", "a")
    assert code == 2
    assert "2: a, b" in err


def test_predictions_do_not_depend_on_their_neighbours(run):
    model = predict.load_run(run)
    texts = ["good film", "a much longer text about a film and a story in town " * 3, "bad"]
    together = model(texts)
    for text, prediction in zip(texts, together, strict=True):
        assert model([text])[0].probabilities == pytest.approx(prediction.probabilities, abs=1e-6)


def test_no_texts_at_all_is_no_error(run):
    assert predict.load_run(run)([]) == []


@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".parquet"])
def test_no_link_that_somebody_planted_is_followed_by_an_output(run, tmp_path, ending):
    victim, output = tmp_path / "victim", tmp_path / f"answers{ending}"
    victim.write_text("mine", encoding="utf-8")
    for name in (output.name, f".{output.name}.{os.getpid()}.tmp", f".{output.name}.tmp"):
        (tmp_path / name).symlink_to(victim)
    assert predict.main(["--run", str(run), "good film", "--output", str(output)]) == 0
    assert victim.read_text(encoding="utf-8") == "mine"
    assert output.is_file()
    assert not output.is_symlink()


def test_an_output_that_is_no_regular_file_is_told_before_the_model_loads(run, tmp_path, capsys):
    os.mkfifo(tmp_path / "answers.csv")
    output = str(tmp_path / "answers.csv")
    assert predict.main(["--run", str(run), "good film", "--output", output]) == 2
    assert "no regular file" in capsys.readouterr().err


@pytest.mark.parametrize(
    "item", [None, "", "  ", 3, b"good", ("good", None), ["good"], float("nan")]
)
def test_what_is_no_text_is_named_by_its_place(run, item):
    with pytest.raises(ValueError, match=r"item 1: |this run was trained on"):
        predict.load_run(run)(["good film", item])
