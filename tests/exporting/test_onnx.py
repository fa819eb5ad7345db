"""Classifiers as graphs: exact at every shape, without torch, and their own program's answers."""

import ast
import json
import math
import runpy
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import make_reviews
from transformers import AutoTokenizer

from benchmarks.architectures.check import make_folder
from engine.decision import Decision, how_sure, to_json
from engine.targets import Target
from job.exporting.checkers.onnx import shapes
from job.exporting.child import CheckerFailed, run_checker
from job.exporting.format import CHECKERS, Parity
from job.exporting.formats.onnx import HOME, Onnx, OnnxInt8, may_lose
from job.exporting.source import open_source
from job.folder import Folder
from job.predicting.predictor import open_predictor
from models.args import ModelArgs
from models.build import build_model
from models.elsewhere.onnx_graph import LogitsAlone, draw_rows, why_no_graph, write_graph
from models.elsewhere.onnx_int8 import FACTORS, quantise
from models.load import load_tokenizer
from models.ngrams.bag import NgramBag, NgramTokenizer
from models.ngrams.fusion import FOLDER, Fusion, Weights, save_fusion
from models.texts import Windows

TEXTS = [text for text, _ in make_reviews(20)] + ["<b>good</b>  film &amp; more", "superb " * 60]


@pytest.fixture(scope="module")
def source(run):
    return open_source(Folder(run), False, None, False)


@pytest.fixture(scope="module")
def exported(source, tmp_path_factory):
    folder = tmp_path_factory.mktemp("onnx")
    state = {name: tensor.clone() for name, tensor in source.model.state_dict().items()}
    Onnx().write(source, folder)
    after = source.model.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in state.items())
    return folder


@pytest.fixture(scope="module")
def predictor(run):
    return open_predictor(Folder(run), "cpu", False, None)[0]


def questions(texts):
    return {
        "task": "classify", "texts": texts, "batch": 4, "threads": 1, "kind": "single",
        "labels": ["neg", "pos"], "likeliest": True,
    }  # fmt: skip


def test_the_graph_is_exact_at_every_shape(exported):
    from onnxruntime import InferenceSession

    off = shapes(str(exported / "shapes.npz"), InferenceSession(exported / "model.onnx"))
    assert [*off] == ["(1, 3)", "(1, 128)", "(7, 33)", "(32, 128)"]  # the model has 128 positions
    assert max(off.values()) < 1e-4


def test_the_graph_names_no_file_of_ours(exported):
    assert b"stack_trace" not in (exported / "model.onnx").read_bytes()


def test_it_answers_as_the_run_does_where_torch_cannot_be_imported(exported, predictor):
    first, _ = predictor.clean_parts(TEXTS)
    answers = run_checker(CHECKERS / "onnx.py", exported, questions(first))
    np.testing.assert_allclose(answers["outputs"], predictor.logits(TEXTS), atol=1e-5)
    assert answers["labels"] == [p.label for p in predictor(TEXTS)]
    wanted = [list(p.probabilities.values()) for p in predictor(TEXTS)]
    np.testing.assert_allclose(answers["shares"], wanted, atol=1e-6)


def test_the_check_really_has_no_torch(exported, tmp_path):
    folder = shutil.copytree(exported, tmp_path / "asks_torch")
    script = folder / "predict_onnx.py"
    script.write_text("import torch\n" + script.read_text(encoding="utf-8"), encoding="utf-8")
    with pytest.raises(CheckerFailed, match="torch is not to be had here"):
        run_checker(CHECKERS / "onnx.py", folder, questions(["good"]))


@pytest.mark.parametrize("way", ["words", "lines"])
def test_its_own_program_cleans_cuts_and_decides_as_predict_does(way, exported, predictor):
    words, given = (TEXTS, None) if way == "words" else ([], "\n".join(TEXTS))
    done = subprocess.run(
        [sys.executable, "-I", exported / "predict_onnx.py", *words], input=given, cwd="/",
        capture_output=True, text=True, encoding="utf-8", check=True,
    )  # fmt: skip
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    for answer, wanted in zip(answers, predictor(TEXTS), strict=True):
        assert answer["label"] == wanted.label
        assert answer["probabilities"] == pytest.approx(wanted.probabilities, abs=1e-6)


def ask_program(folder, *words, given=""):
    """What predict_onnx.py of a folder prints."""
    return subprocess.run(
        [sys.executable, "-I", folder / "predict_onnx.py", *words], input=given, cwd="/",
        capture_output=True, text=True, encoding="utf-8", check=True,
    ).stdout  # fmt: skip


def test_a_blank_line_is_an_error_with_its_number_and_the_rest_is_answered(exported, predictor):
    shown = ask_program(exported, given="good film\n\n<br />\r\nbad film\r\n")
    first, second, third, fourth = map(json.loads, shown.splitlines())
    labels = [p.label for p in predictor(["good film", "bad film"])]
    assert [first["label"], fourth["label"]] == labels
    why = "expected a text; after cleaning nothing is left"
    assert (second, third) == ({"number": 2, "error": why}, {"number": 3, "error": why})


def test_the_program_says_how_it_is_used(exported):
    assert ask_program(exported, "--help").startswith('python predict_onnx.py "a text"')


def test_the_snippet_of_a_card_cleans_as_the_command_line_does(exported, source):
    text = "<b>good</b>  film &amp; more"
    snippet = Onnx().usage(source, str(exported)).replace("It was good.", text)
    done = subprocess.run([sys.executable, "-I", "-c", snippet], capture_output=True, text=True,
                          encoding="utf-8", check=True)  # fmt: skip
    assert ast.literal_eval(done.stdout) == [json.loads(ask_program(exported, text))]
    assert "pip install onnxruntime tokenizers numpy\n" in snippet


def test_the_program_has_about_forty_lines():
    text = (HOME / "job/exporting/shipped/predict_onnx.py").read_text(encoding="utf-8")
    assert len([line for line in text.splitlines() if line.strip()]) <= 45


def test_a_bag_beside_the_encoder_answers_with_it(exported, predictor, tmp_path):
    folder = shutil.copytree(exported, tmp_path / "both")
    tokenizer, bag = NgramTokenizer(1), NgramBag(1 << 18, 2)
    torch.manual_seed(0)
    with torch.no_grad():
        bag.weight.normal_()
        bag.bias.normal_()
    _, counts, _ = tokenizer.count(TEXTS, None)
    bag.weigh(np.ones(1 << 18), len(counts))
    fusion = Fusion(bag, tokenizer, Weights(0.6, 0.3, 50))
    save_fusion(fusion, ModelArgs(source="x", label_names=("neg", "pos")), folder)
    reading = json.loads((folder / "reading.json").read_text(encoding="utf-8"))
    reading["bag"] = {"encoder": 0.6, "bag": 0.3}
    (folder / "reading.json").write_text(json.dumps(reading), encoding="utf-8")
    first, _ = predictor.clean_parts(TEXTS)
    answers = run_checker(CHECKERS / "onnx.py", folder, questions(first))
    wanted = fusion.weights.join(predictor.logits(TEXTS), fusion.answer(first, None))
    np.testing.assert_allclose(answers["outputs"], wanted, atol=1e-5)
    assert (folder / FOLDER / "predict_ngrams.py").is_file()


DECISIONS = {
    "likeliest": (Decision("single", temperature=1.7), ("a", "b", "c")),
    "threshold": (Decision("single", 0.8, (0.7,), limit=0.6), ("a", "b")),
    "several": (Decision("multi", 1.3), ("a", "b", "c")),
    "cut": (Decision("multi", 2.0, (0.2, 0.5, 0.9), limit=0.5), ("a", "b", "c")),
    "number": (Decision("regression", target=Target(3.0, 2.0)), ()),
}


@pytest.mark.parametrize("name", DECISIONS)
def test_what_is_decided_without_us_is_what_we_decide(name, tmp_path):
    decision, names = DECISIONS[name]
    torch.manual_seed(0)
    logits = torch.randn(50, len(names) or 1) * 3
    text = json.dumps(to_json(decision, names))
    (tmp_path / "decision.json").write_text(text, encoding="utf-8")
    shutil.copy(HOME / "job/exporting/shipped/decide.py", tmp_path)
    answers = runpy.run_path(str(tmp_path / "decide.py"))["decide"](logits.numpy())
    shares, ours = decision.probabilities(logits), decision.answers(logits)
    if decision.kind == "regression":
        values = [answer["value"] for answer in answers]
        assert values == pytest.approx(shares[:, 0].tolist(), abs=1e-6)
        return
    assert [[*answer["probabilities"]] for answer in answers] == [[*names]] * 50
    theirs = np.array([list(answer["probabilities"].values()) for answer in answers])
    np.testing.assert_allclose(theirs, shares, atol=1e-9)
    if decision.kind == "single":
        assert [answer["label"] for answer in answers] == [names[i] for i in ours]
    else:
        assert [answer["labels"] for answer in answers] == [
            [n for n, holds in zip(names, row, strict=True) if holds] for row in ours.tolist()
        ]
    unsure = decision.are_unsure(how_sure(decision.kind, shares, ours))
    marks = [answer.get("unsure") for answer in answers]
    assert marks == ([None] * 50 if unsure is None else unsure.tolist())


# 8 bits


@pytest.fixture(scope="module")
def eight(exported, tmp_path_factory):
    path = tmp_path_factory.mktemp("int8") / "model.onnx"
    quantise(exported / "model.onnx", path)
    return path


@pytest.fixture(scope="module")
def rows(source):
    """Random rows, and the model's answers to them, of which half are either."""
    batch = draw_rows(
        (600, 24), 300, source.tokenizer.pad_token_id, ("input_ids", "attention_mask")
    )
    with torch.no_grad():
        logits = LogitsAlone(source.model)(*batch.values()).numpy()
    return {name: tensor.numpy() for name, tensor in batch.items()}, logits


def judged(path, rows):
    """What onnx-int8 says of a graph whose answers are compared with the model's on rows."""
    from onnxruntime import InferenceSession

    given, wanted = rows
    session = InferenceSession(path)
    for name in {i.name for i in session.get_inputs()} - given.keys():
        given = given | {name: np.zeros_like(given["input_ids"])}
    (got,) = session.run(None, given)
    cut = np.median(wanted[:, 1] - wanted[:, 0])
    before, after = ((one[:, 1] - one[:, 0] > cut) for one in (wanted, got))
    alike = int((before == after).sum())
    right = np.random.default_rng(0).random(len(before)) < 0.9  # labels that 9 of 10 answers have
    labels = np.where(right, before, ~before)
    parity = Parity(len(before), alike, None, None, right=after == labels,
                    own_right=before == labels, extra={"shapes": {"(1, 3)": 0.1}})  # fmt: skip
    return OnnxInt8().judge(parity), alike


def test_eight_bits_leave_the_head_and_attention_whole(eight, exported, rows):
    import onnx

    nodes = [node.op_type for node in onnx.load(eight).graph.node]
    assert nodes.count("MatMulNBits") == 12  # two layers of six
    assert nodes.count("GatherBlockQuantized") == 2  # words and places; token types are few
    assert nodes.count("MatMul") == 5  # attention's own, two a layer, and the head of two columns
    assert eight.stat().st_size < (exported / "model.onnx").stat().st_size
    lines, alike = judged(eight, rows)
    assert alike > 0.98 * 600  # of a random model, whose answers are close to the cut
    assert all("shape" not in line for line in lines)


def test_a_spoilt_quantisation_is_refused(eight, rows, tmp_path):
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(eight)
    for one in graph.graph.initializer:
        if one.name.endswith(FACTORS):
            one.CopyFrom(numpy_helper.from_array(3 * numpy_helper.to_array(one), one.name))
    onnx.save(graph, tmp_path / "spoilt.onnx")
    lines, alike = judged(tmp_path / "spoilt.onnx", rows)
    assert alike < 0.97 * 600
    assert any("rows are answered otherwise; at most 1% may be" in line for line in lines)
    assert any("one above 0.01 is not excluded" in line for line in lines)


def test_a_loss_is_excluded_by_enough_rows():
    def answers(count, lost, won):
        before, after = np.ones(count), np.ones(count)
        after[:lost] = 0
        before[lost : lost + won] = 0
        return before, after

    assert may_lose(*answers(2000, 6, 4)) == []
    assert may_lose(*answers(300, 0, 0)) == []
    (line,) = may_lose(*answers(60, 0, 0))
    assert line.endswith("one above 0.01 is not excluded by 60 rows; it takes 300 (--rows)")
    (line,) = may_lose(*answers(200, 1, 1))
    rows = int(line.split("about ")[1].split()[0].replace(",", ""))
    # 1.96 standard errors of the difference are one point: var = 2/200
    assert rows == math.ceil((1.959964 / 0.01) ** 2 * 2 / 200)
    (line,) = may_lose(*answers(2000, 60, 0))
    assert "a loss of 0.0300" in line
    assert "--rows" not in line  # no number of rows helps
    (line,) = may_lose(*answers(60, 1, 0))
    assert "by 60 rows, nor shown; ask for about 630 (--rows 630)" in line  # var = 1/60 - 1/3600


@pytest.mark.parametrize(("rows", "few"), [(61, True), (100, False)])
def test_too_few_rows_for_eight_bits_say_how_to_go_on(rows, few):
    right = np.arange(rows) < rows - 2
    parity = Parity(rows, rows - 2, None, None, right=right, own_right=np.ones(rows, bool),
                    extra={"shapes": {}})  # fmt: skip
    line = OnnxInt8().judge(parity)[0]
    assert line.startswith(f"2 of {rows} rows are answered otherwise; at most 1% may be")
    assert line.endswith("a single one is more: ask for --rows 500") == few


def test_a_shape_that_fails_is_named():
    parity = Parity(10, 10, 0.0, 0.0, extra={"shapes": {"(7, 33)": 0.2, "(1, 3)": "gave (1,)"}})
    assert Onnx().judge(parity) == [
        "at rows of shape (7, 33) logits are off by 0.2; at most 0.0001 is allowed",
        "at rows of shape (1, 3) it does not answer: gave (1,)",
    ]


# what is refused


def test_what_no_tokenizer_cuts_so_is_refused(source):
    ends = replace(source, texts=replace(source.texts, ends=(4, 8)))
    assert "both ends" in Onnx().refuses(ends)
    windows = replace(source, texts=replace(source.texts, windows=Windows(8, 4, "mean")))
    assert "windows" in Onnx().refuses(windows)
    assert Onnx().refuses(source) is None


def test_chat_and_numbers_are_refused_where_they_make_no_sense(source):
    assert "--to gguf" in Onnx().refuses(replace(source, texts=None))
    number = replace(source, args=replace(source.args, kind="regression"))
    assert Onnx().refuses(number) is None
    assert "--to onnx" in OnnxInt8().refuses(number)


def make(model_type, folder, pool=None):
    """A random classifier of an architecture, and its tokenizer."""
    place = make_folder(model_type, folder)
    tokenizer = load_tokenizer(str(place))
    head = {"head_kind": "linear", "head_pool": pool} if pool else {}
    args = ModelArgs(source=str(place), num_labels=3, label_names=("a", "b", "c"), **head)
    return build_model(args, tokenizer, 0).model, tokenizer


def test_a_model_whose_answers_depend_on_padding_is_refused(tmp_path):
    model, _ = make("xlnet", tmp_path)
    assert "its batches run in parts" in why_no_graph(model)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model_type", "pool"),
    [
        ("roberta", None), ("distilbert", "cls"), ("modernbert", "mean"), ("gpt2", None),
        ("albert", None), ("deberta-v2", None), ("qwen2", None),
    ],
)  # fmt: skip
def test_other_architectures_are_exact_at_every_shape_too(model_type, pool, tmp_path):
    from onnxruntime import InferenceSession

    model, tokenizer = make(model_type, tmp_path / "model", pool)
    write_graph(model, tokenizer, tmp_path)
    reference = str(tmp_path / "shapes.npz")
    off = shapes(reference, InferenceSession(tmp_path / "model.onnx"))
    assert max(off.values()) < 1e-4
    quantise(tmp_path / "model.onnx", tmp_path / "eight.onnx")
    off = shapes(reference, InferenceSession(tmp_path / "eight.onnx"))
    arrays = np.load(reference)
    spread = np.std(np.concatenate([arrays[name] for name in arrays if "logits" in name]))
    assert max(off.values()) < 0.3 * spread  # the worst row of a random model, whose layers amplify


@pytest.mark.slow
def test_pairs_are_asked_as_pairs(pair_run, tmp_path):
    source = open_source(Folder(pair_run), False, None, False)
    predictor = open_predictor(Folder(pair_run), "cpu", False, None)[0]
    Onnx().write(source, tmp_path)
    pairs = [("film 3", "story 3"), ("film of people", "music " * 40)]
    answers = run_checker(CHECKERS / "onnx.py", tmp_path, questions([list(pair) for pair in pairs]))
    np.testing.assert_allclose(answers["outputs"], predictor.logits(pairs), atol=1e-5)
    assert max(answers["extra"]["shapes"].values()) < 1e-4
    words = ["\t".join(pair) for pair in pairs]
    done = subprocess.run(
        [sys.executable, "-I", tmp_path / "predict_onnx.py", *words], capture_output=True,
        text=True, encoding="utf-8", check=True,
    )  # fmt: skip
    labels = [json.loads(line)["label"] for line in done.stdout.splitlines()]
    assert labels == [p.label for p in predictor(pairs)]
    assert AutoTokenizer.from_pretrained(tmp_path).model_max_length == 32


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("me/model", "sys.path.insert(0, snapshot_download('me/model'))\n"),
        ("path/to/this/folder", "sys.path.insert(0, 'path/to/this/folder')  # a folder"),
    ],
)
def test_the_snippet_of_a_card_finds_a_model_of_the_hub(source, name, line):
    snippet = Onnx().usage(source, name)
    compile(snippet, "card", "exec")
    assert line in snippet
