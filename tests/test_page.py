"""report.html: what it says of a run, of hostile texts, and of what is not there."""

import html
import itertools
import json
import re

import pytest

import compare
import train
from job.folder import Folder
from job.predicting import outputs
from job.predicting.explain import Piece
from job.reporting.decided import cut_text, heaviest, strongest
from job.reporting.figures import whole_shares
from job.reporting.page import write_page
from job.reporting.predictions import read_predictions
from job.reporting.rows import MOST_IN_CELLS, Shower, matrix
from tests.conftest import result_of

SETTINGS = {"eval": {"baseline": False}, "speed": {"native": "off"}}
HOSTILE = '</script><img src=x onerror=alert(1)> & "quoted" <!-- \u202egone'


def page_of(run):
    write_page(Folder(run))
    return (run / "report.html").read_text(encoding="utf-8")


def rewrite(run, change):
    path = run / "test_predictions.jsonl"
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    changed = "".join(json.dumps(change(line)) + "\n" for line in lines)
    path.write_text(changed, encoding="utf-8")


def test_the_page_says_the_figures_of_the_run(start):
    run, _ = start("one")
    text, test = page_of(run), result_of(run)["test"]
    assert f"Test accuracy {test['accuracy']:.4f}" in text
    for row in test["confusion"]:
        assert all(re.search(rf'<td class="w\d+[^>]*>(<a [^>]*>)?{n}<', text) for n in row)
    for title in (
        "Training",
        "Confusion matrix",
        "Threshold",
        "Length",
        "Before and after",
        "Data",
    ):
        assert f">{title}</h2>" in text
    values = json.loads(re.search(r'id="values">(.*?)</script>', text).group(1))
    assert values["rows"] == test["n"]
    assert values["steps"][0][:2] == [test["n"], sum(test["confusion"][i][i] for i in (0, 1))]
    assert len(text.encode()) < 300_000


def test_the_same_run_gives_the_same_bytes(start):
    run, _ = start("one")
    before = page_of(run)
    assert page_of(run) == before


def test_nothing_is_fetched_and_the_policy_holds_the_page_own_code(start):
    text = page_of(start("one")[0])
    assert "default-src 'none'" in html.unescape(text)
    assert not re.search(r'\b(src|href)="(?!#)', text)
    assert "://" not in text.replace('xmlns="http://www.w3.org/2000/svg"', "")
    assert " style=" not in text
    assert not re.search(r"\son\w+=", text)


def test_hostile_texts_show_letter_by_letter(start):
    run, _ = start("one")
    names = {"neg": "neg", "pos": HOSTILE}

    def change(line):
        shares = {names[name]: share for name, share in line["probabilities"].items()}
        return {
            **line, "row": HOSTILE, "text": HOSTILE, "label": names[line["label"]],
            "predicted": names[line["predicted"]], "probabilities": shares,
        }  # fmt: skip

    rewrite(run, change)
    text = page_of(run)
    assert "<img" not in text
    assert html.escape(HOSTILE[:20], quote=False) in text
    assert text.count("</script>") == 2
    values = json.loads(re.search(r'id="values">(.*?)</script>', text).group(1))
    assert HOSTILE in values["names"]


def test_texts_are_left_out_where_that_is_asked_and_it_says_so(start, reviews_csv):
    own = ["samples.texts=['a watched text']", 'expect=[{text="a tried text", label="pos"}]']
    run, _ = start("one", "report.texts=false", *own)
    text = page_of(run)
    assert "a watched text" not in text
    assert "a tried text" not in text
    texts = [json.loads(line)["text"] for line in
             (run / "test_predictions.jsonl").read_text(encoding="utf-8").splitlines()]  # fmt: skip
    assert not any(html.escape(one) in text for one in texts)
    assert "Texts are left out of this page" in text
    with_texts = page_of(start("two", *own)[0])
    assert "a watched text" in with_texts
    assert "a tried text" in with_texts
    assert any(html.escape(one) in with_texts for one in texts)


def test_an_unfinished_run_has_a_page_of_what_is_there(start):
    run, _ = start("one")
    for name in ("result.json", "test_predictions.jsonl"):
        (run / name).unlink()
    with (run / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"step": 99, "tr')  # as a killed process leaves it
    text = page_of(run)
    assert "not finished" in text
    assert "Validation accuracy" in text
    assert ">Training</h2>" in text
    assert "Confusion matrix" not in text


def test_a_page_is_written_anew_on_demand_and_what_is_no_run_is_named(start, tmp_path, capsys):
    run, _ = start("one")
    assert compare.main([str(run), "--html"]) == 0
    assert "Confusion matrix" in (run / "report.html").read_text(encoding="utf-8")
    assert compare.main([str(tmp_path / "none"), "--html"]) == 2
    assert str(tmp_path / "none") in capsys.readouterr().err


def test_an_older_run_without_the_new_files_has_a_page(start):
    run, _ = start("one")
    rewrite(run, lambda line: {k: v for k, v in line.items() if k != "tokens"})
    result = result_of(run)
    for key in ("samples", "peak", "sha256"):
        result.pop(key, None)
    (run / "result.json").write_text(json.dumps(result), encoding="utf-8")
    (run / "environment.json").unlink()
    text = page_of(run)
    assert ">Length</h2>" not in text
    assert ">Threshold</h2>" in text


@pytest.mark.parametrize("kind", ["regression", "multi"])
def test_numbers_and_several_labels_have_a_page(recipe, tmp_path, kind):
    table = tmp_path / "rows.csv"
    if kind == "regression":
        rows = [f"{'good ' * (i % 6)}film {i},{i % 6}" for i in range(60)]
        head, data = "text,label", {}
    else:
        rows = [f"film {i} {'good' * (i % 2)} {'long' * (i % 3 == 0)},{i % 2},{int(i % 3 == 0)}"
                for i in range(60)]  # fmt: skip
        head, data = "text,good,long", {"label": ["good", "long"]}
    table.write_text("\n".join([head, *rows]) + "\n", encoding="utf-8")
    path = recipe(**SETTINGS, data={"source": str(table), "kind": kind, **data})
    assert train.main(["--config", str(path)]) == 0
    text = page_of(tmp_path / "runs" / "tiny")
    test = result_of(tmp_path / "runs" / "tiny")["test"]
    if kind == "regression":
        assert f"Test R² {test['r2']:.4f}" in text
        assert "Predicted and true</title>" in text
    else:
        assert f"Test accuracy {test['accuracy']:.4f}" in text
    assert "Confusion matrix" not in text


def test_many_rows_take_little_time_and_room(start):
    import time

    run, _ = start("one")
    line = json.loads((run / "test_predictions.jsonl").read_text(encoding="utf-8").splitlines()[0])
    with (run / "test_predictions.jsonl").open("w", encoding="utf-8") as file:
        for n in range(20_000):
            share = (n % 997) / 997
            shares = {"neg": 1 - share, "pos": share}
            answer = "pos" if share > 0.5 else "neg"
            own = {**line, "row": f"t.csv:{n}", "text": f"{n} " * 700, "tokens": n % 600}
            own |= {"label": ["neg", "pos"][n % 3 == 0], "predicted": answer,
                    "probabilities": shares}  # fmt: skip
            file.write(json.dumps(own) + "\n")
    begin = time.process_time()
    write_page(Folder(run))
    assert time.process_time() - begin < 5
    assert (run / "report.html").stat().st_size < 3_000_000


def test_probabilities_are_as_trustworthy_as_the_result_says(start):
    run, _ = start("one")
    result = result_of(run)
    error = re.search(r"Expected calibration error ([\d.]+)", page_of(run))
    assert error is not None
    after = result["calibration"]["test"]["ece_after"]
    assert float(error.group(1)) == pytest.approx(after, abs=1e-4)


def test_slices_and_expectations_stand_on_the_page(start):
    texts = [
        "--unset",
        "samples",
        'expect=[{text="<i>good", label="pos"}]',
        'eval.slices=["length"]',
    ]
    run, _ = start("one", *texts)
    text, result = page_of(run), result_of(run)
    for row in result["slices"]["length"]:
        assert f"<td>{row['figure']:.4f}</td><td>{row['low']:.4f} to {row['high']:.4f}</td>" in text
    assert "&lt;i&gt;good" in text
    assert ("NOT MET" in text) != result["expectations"][0]["met"]


def test_page_and_console_show_the_same_words():
    assert strongest([]) == strongest([0.0, 0.0]) == []
    assert strongest([0.25, -1.0, 0.24, 0.5]) == [1, 3, 0]
    assert strongest([1.0] * 12) == list(range(8))


def test_a_text_is_cut_into_marked_words_and_nothing_of_it_is_lost():
    text = "a <b>bad</b> film, bad bad"
    pieces = [
        {"text": "film", "start": 13, "end": 17, "weight": -0.5, "unit": "word"},
        {"text": "bad", "start": 5, "end": 8, "weight": 2.0, "unit": "word"},
        {"text": "weak", "start": 19, "end": 22, "weight": 1.9, "unit": "word"},  # is not there
        {"text": "a", "start": 0, "end": 1, "weight": 0.01, "unit": "word"},
        {"text": text, "start": 0, "end": len(text), "weight": 9.0, "unit": "sentence"},
    ]
    parts = cut_text(text, pieces)
    assert "".join(part for part, _ in parts) == text
    assert [part for part in parts if part[1]] == [("bad", "for3"), ("film", "against1")]
    assert heaviest(pieces)[:2] == [("bad", "+2.00"), ("weak", "+1.90")]
    assert cut_text(text, []) == []
    console = outputs.heaviest([Piece(**p) for p in sorted(pieces, key=lambda p: -p["weight"])])
    assert [piece.text for piece in console] == ["bad", "weak"]  # those that speak for it
    assert cut_text(text, [{**pieces[1], "side": 1}]) == []


def test_words_that_a_mistake_rests_on_are_marked_and_escaped(start):
    run, _ = start("one", "train.lr=1e-6")
    rewrite(run, lambda line: {**line, "text": HOSTILE})
    lines = [json.loads(line) for line in
             (run / "test_predictions.jsonl").read_text(encoding="utf-8").splitlines()]  # fmt: skip
    wrong = next(line for line in lines if line["label"] != line["predicted"])
    piece = {"text": HOSTILE[:9], "start": 0, "end": 9, "weight": 1.25, "unit": "word"}
    explained = json.dumps({"row": wrong["row"], "explanation": [piece]}) + "\n"
    (run / "explanations.jsonl").write_text(explained, encoding="utf-8")
    text = page_of(run)
    assert '<mark class="for3">&lt;/script&gt;</mark>' in text
    assert "</mark> +1.25" in text
    assert "<img" not in text


def test_labels_beyond_those_with_a_share_still_count(tmp_path):
    shares = {f"l{n}": 0.1 for n in range(50)}
    path = tmp_path / "test_predictions.jsonl"
    lines = [
        {"label": ["l55"], "predicted": "none", "predicted_labels": []},
        {"label": ["l2", "l1"], "predicted": "l1, l2", "predicted_labels": ["l1", "l2"]},
    ]
    rows = [{"row": "a:1", "text": "t", "probabilities": shares, **line} for line in lines]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    first, second = read_predictions(path)
    assert not first.right
    assert second.right
    assert not whole_shares([first, second])


def test_a_matrix_of_many_classes_shows_a_bounded_number_of_rows(tmp_path):
    names = [f"c{n}" for n in range(30)]
    path = tmp_path / "test_predictions.jsonl"
    rows = [
        {"row": f"a:{i}", "text": "x", "label": truth, "predicted": answer,
         "probabilities": {answer: 0.9, truth: 0.9}}
        for i, (truth, answer) in enumerate(itertools.product(names, names * 2))
    ]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    cells = matrix(list(read_predictions(path, texts=False)), names, Shower(path, True, {}))
    assert sum(cell.count for row in cells for cell in row) == len(rows)
    assert sum(len(cell.examples) for row in cells for cell in row) <= MOST_IN_CELLS
    assert any(cell.examples for row in cells for cell in row)


def test_a_page_that_cannot_be_drawn_costs_a_run_nothing(start, monkeypatch, capsys):
    def fail(*_):
        raise MemoryError

    monkeypatch.setattr("job.finish.write_page", fail)
    run, _ = start("one")
    assert result_of(run)["test"]["n"] == 12


def test_a_text_that_is_cut_is_cut_in_its_line_too(start):
    run, _ = start("one")
    rewrite(run, lambda line: {**line, "text": line["text"] + "x" * 100_000})
    assert len(page_of(run)) < 40 * 12 * 20_000
    assert "x" * 20_001 not in page_of(run)
