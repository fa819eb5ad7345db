"""Whole runs with a teacher: what it answers, what is kept of it, what a student leaves behind."""

import json
import shutil

import numpy as np
import pytest
import torch
from conftest import figures, make_reviews, weights
from killed import kill_after_save

from openloop import load_run
from configs.read import read_config
from job import finish
from job.tasks.table import prepare

SETTINGS = {
    "run": {"keep": 50},
    "head": {"dropout": 0.0},
    "lora": None,
    "train": {"epochs": 1},
    "eval": {"baseline": False},
    "speed": {"native": "off"},
    "samples": None,
}
NO_DROPOUT = ["model.dropout=0"]
HALF = ["distill.student=layers:2", "--unset", "model.source"]


@pytest.fixture(autouse=True)
def cache(new_cache):
    return new_cache / "answers"


def answered(recipe, tmp_path, *words):
    """The prepared job of a student with its teacher's answers to the training rows."""
    words = [word.replace("{runs}", str(tmp_path / "runs")) for word in words]
    job = prepare(read_config(recipe(**SETTINGS), words), False)
    said = job.distilled.ask("train")
    return job, said


def test_a_student_that_is_its_teacher_starts_without_a_loss(start, taught):
    words = [*taught, *NO_DROPOUT, "model.source=run:{runs}/teacher", "distill.weight=1"]
    run, said = start("same", *words, "distill.hidden=1", "train.lr=1e-30")
    losses = [line["train/loss"] for line in figures(run) if "train/loss" in line]
    assert losses
    assert max(map(abs, losses)) < 1e-6
    assert "the teacher's answers: train computed" in said


def test_the_answers_are_those_of_the_teachers_own_predictor(start, recipe, tmp_path, taught):
    job, _ = answered(recipe, tmp_path, *taught)
    split = job.data.splits["train"]
    shares = torch.from_numpy(np.array(job.distilled.logits("train"))).softmax(-1)  # (N, C)
    told = load_run(tmp_path / "runs" / "teacher")(split["text"])
    for own, prediction in zip(shares.tolist(), told, strict=True):
        by_name = dict(zip(job.data.label_names, own, strict=True))
        assert by_name == pytest.approx(prediction.probabilities, abs=1e-5)


@pytest.fixture
def other(tmp_path):
    """A random encoder of another width, with a tokenizer that knows single letters alone."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    letters = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefghijklmnopqrstuvwxyz0123456789"]
    raw = Tokenizer(models.WordLevel({x: i for i, x in enumerate(letters)}, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    raw.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="[PAD]", unk_token="[UNK]", model_max_length=64
    )
    torch.manual_seed(5)
    shape = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32}
    config = BertConfig(
        vocab_size=len(letters), num_hidden_layers=4, max_position_embeddings=64, **shape
    )
    BertModel(config).save_pretrained(tmp_path / "other")
    tokenizer.save_pretrained(tmp_path / "other")
    return tmp_path / "other"


def test_a_teacher_reads_texts_and_orders_labels_in_its_own_way(start, recipe, tmp_path, other):
    letters = [f"model.source={other}", "data.max_length=60", "data.truncation=left"]
    start("teacher", *letters, "data.labels=['pos', 'neg']", "train.lr=0.02")
    words = ["distill.teacher={runs}/teacher", "data.labels=['neg', 'pos']"]
    job, _ = answered(recipe, tmp_path, *words)
    text = job.data.splits["train"]["text"]
    told = load_run(tmp_path / "runs" / "teacher")(text)
    shares = torch.from_numpy(np.array(job.distilled.logits("train"))).softmax(-1)[:, 1]
    assert [p.probabilities["pos"] for p in told] == pytest.approx(shares.tolist(), abs=1e-5)
    assert len({round(share, 5) for share in shares.tolist()}) > 5
    _, said = start("wide", *words, "distill.hidden=1", code=2)
    assert "the student's are 32 wide and those of" in said


def test_other_labels_are_refused_with_both_lists(start, tmp_path, taught):
    rows = [{"text": text, "label": label + "itive"} for text, label in make_reviews(60)]
    table = tmp_path / "other.jsonl"
    table.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    _, said = start("student", *taught, f"data.source={table}", code=2)
    assert "neg, pos there, negitive, positive here" in said


@pytest.mark.parametrize("extra", [[], ["distill.hidden=1"], HALF])
def test_a_killed_student_goes_on_to_the_same_bits(start, cache, taught, extra):
    words = [*taught, *extra, "run.save_every=1"]
    whole, _ = start("whole", *words)
    kill_after_save(2, lambda: start("killed", *words))
    shutil.rmtree(cache)  # and the answers were lost meanwhile
    killed, said = start("killed", *words, "--resume")
    assert "resuming from" in said
    assert "train computed" in said
    assert figures(killed) == figures(whole)
    first, second = weights(whole), weights(killed)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_changed_teacher_is_no_teacher_to_resume_with(start, taught):
    run, _ = start("student", *taught)
    (run / "result.json").unlink()
    start("teacher", "--fresh", "train.lr=0.01")
    _, said = start("student", *taught, "--resume", code=2)
    assert "teacher: '" in said
    assert "--allow-drift" in said


@pytest.mark.parametrize("damage", ["bit", "cut", "half-written"])
def test_damaged_answers_are_computed_again(start, cache, taught, damage):
    first, _ = start("first", *taught)
    largest = max(cache.glob("*/answers.npy"), key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[-3] ^= damage == "bit"
    largest.write_bytes(content[:-1] if damage == "cut" else content)
    if damage == "half-written":
        (largest.parent / "manifest.json").unlink()
    second, said = start("second", *taught)
    assert "the teacher's answers: train computed" in said
    assert "the teacher's answers: test hit" in said
    assert figures(second) == figures(first)


def test_another_key_is_not_answered(start, recipe, tmp_path, taught):
    answered(recipe, tmp_path, *taught)
    changes = ["data.max_length=8", "train.lr=0.5", "data.split_seed=3", "distill.hidden=1"]
    for change, hit in zip(changes, [True, True, False, False], strict=True):
        _, said = answered(recipe, tmp_path, *taught, change)
        assert ("hit" in said) == hit, change
    start("teacher", "--fresh", "data.max_length=8")
    assert "computed" in answered(recipe, tmp_path, *taught)[1]


def test_a_dry_run_computes_nothing_and_says_what_it_would(start, cache, taught):
    _, said = start("dry", *taught, "--dry-run")
    assert "train miss, test miss; train computed once before step 1, in about" in said
    assert "0.5 x KL at temperature 2 from the teacher's answers" in said
    assert not cache.exists()


def test_teacher_and_student_stand_side_by_side(start, taught):
    run, said = start("student", *taught, *HALF)
    teacher, student = json.loads((run / "result.json").read_text(encoding="utf-8"))["distilled"]
    before = json.loads((run.parent / "teacher/result.json").read_text(encoding="utf-8"))
    assert teacher["value"] == pytest.approx(before["test"]["accuracy"])
    assert teacher["parameters"] > student["parameters"] > 0
    assert teacher["bytes"] > student["bytes"] > 0
    assert teacher["rows_per_second"] > 0
    assert student["rows_per_second"] > 0
    card = (run / "README.md").read_text(encoding="utf-8")
    assert "## Teacher and student" in card
    assert "rows a second" in said


def test_a_student_ends_without_a_teacher_that_goes_while_it_learns(start, taught, monkeypatch):
    def leave(*given):
        shutil.rmtree(given[1].path.parent / "teacher")
        return load_best(*given)

    load_best = finish.load_best
    monkeypatch.setattr(finish, "load_best", leave)
    run, said = start("student", *taught, *HALF)
    assert "WARNING: the student stands alone, its teacher cannot be asked: " in said
    assert json.loads((run / "result.json").read_text(encoding="utf-8"))["distilled"] == []
    assert load_run(run)(["a good film"])


def test_a_student_answers_when_its_teacher_is_gone(start, taught):
    run, _ = start("student", *taught, *HALF)
    before = [p.probabilities for p in load_run(run)(["a good film"])]
    shutil.rmtree(run.parent / "teacher")
    assert [p.probabilities for p in load_run(run)(["a good film"])] == before


@pytest.mark.parametrize("kind", ["regression", "multi"])
def test_numbers_and_several_labels_have_teachers_too(start, tmp_path, kind):
    rows = [
        {"text": text, "label": 2000.0 + i % 7, "a": i % 2, "b": i // 2 % 2}
        for i, (text, _) in enumerate(make_reviews(60))
    ]
    table = tmp_path / "rows.jsonl"
    table.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    label = "label" if kind == "regression" else "['a', 'b']"
    words = [f"data.source={table}", f"data.label={label}", f"data.kind={kind}", *NO_DROPOUT]
    start("teacher", *words)
    # another cut has another mean: numbers have to be told in the student's deviations
    words += ["distill.teacher={runs}/teacher", "distill.weight=1", "data.split_seed=9"]
    student, said = start("student", *words, "model.source=run:{runs}/teacher", "train.lr=1e-30")
    losses = [line["train/loss"] for line in figures(student) if "train/loss" in line]
    assert max(map(abs, losses)) < 1e-6
    assert "WARNING the teacher's rows were cut by another data.split_seed" in said
    _, said = start("hot", *words, "distill.temperature=3", code=2 if kind == "regression" else 0)
    assert ("the labels are numbers, which have none" in said) == (kind == "regression")


def test_numbers_are_told_in_the_students_own_deviations(start, recipe, tmp_path):
    rows = [{"text": text, "label": 2000.0 + i % 7} for i, (text, _) in enumerate(make_reviews(60))]
    table = tmp_path / "rows.jsonl"
    table.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    words = [f"data.source={table}", "data.kind=regression"]
    start("teacher", *words)
    job, _ = answered(recipe, tmp_path, *words, "distill.teacher={runs}/teacher",
                      "data.split_seed=9")  # fmt: skip
    assert job.target != job.distilled.target
    row = job.data.splits["train"]["row"][3]
    batch = job.distilled.join({"rows": torch.tensor([row])}, job.target)
    told = load_run(tmp_path / "runs" / "teacher")([job.data.splits["train"]["text"][3]])[0]
    expected = (told.probabilities["value"] - job.target.mean) / job.target.deviation
    assert batch["teacher"]["logits"].item() == pytest.approx(expected, abs=1e-4)
    assert job.distilled.logits("train")[3, 0] == pytest.approx(told.probabilities["value"])


@pytest.mark.parametrize("names", [{0: "pos", 1: "neg"}, None])
def test_any_trained_classifier_teaches(start, recipe, tmp_path, tiny_tokenizer, names):
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        vocab_size=len(tiny_tokenizer), hidden_size=32, num_hidden_layers=1, num_labels=2,
        num_attention_heads=2, intermediate_size=64, max_position_embeddings=128,
        **({"id2label": names} if names else {}),
    )  # fmt: skip
    torch.manual_seed(3)
    model = BertForSequenceClassification(config).eval()
    model.save_pretrained(tmp_path / "classifier")
    tiny_tokenizer.save_pretrained(tmp_path / "classifier")
    job, _ = answered(recipe, tmp_path, f"distill.teacher={tmp_path / 'classifier'}")
    text = job.data.splits["train"]["text"][0]
    inputs = tiny_tokenizer([text], return_tensors="pt", truncation=True, max_length=32)
    with torch.no_grad():
        expected = model(inputs["input_ids"], inputs["attention_mask"]).logits[0].tolist()
    if names:  # the rows have neg before pos
        expected.reverse()
    assert job.distilled.logits("train")[0].tolist() == pytest.approx(expected, abs=1e-5)
    assert any("its labels have no names" in note for note in job.notes) == (names is None)


def test_what_is_no_teacher_is_refused_with_the_reason(start, tiny_folder):
    for teacher, reason in (
        ("nowhere", "there is no run and no folder of that name; finished runs in"),
        ("run:nowhere", "Train the teacher first"),
        (str(tiny_folder), "has no trained classifier: its weights lack"),
    ):
        _, said = start("student", f"distill.teacher={teacher}", code=2)
        assert reason in said, teacher


def test_relations_of_a_teacher(start, taught):
    for words, reason in (
        (["distill.weight=0"], "nothing of the teacher would be used"),
        (["distill.hidden=1", "model.train=head"], "no hidden state ever changes"),
        (["distill.hidden=1", "model.compile=true"], "which reads what each layer leaves"),
        (["distill.student=layers:1"], 'allowed: "ngrams", or "layers:N" with N from 2'),
        (["distill.student=layers:4", *HALF[1:]], "the teacher has 2 layers"),
        (
            ["distill.student=layers:2"],
            "which starts from the teacher's layers; remove one of them",
        ),
        ([*HALF, "model.revision=main"], 'model.revision: got "main" beside distill.student'),
    ):
        _, said = start("student", *taught, *words, code=2)
        assert reason in said, words


def test_a_teacher_goes_with_kept_states(start, taught):
    words = [*taught, "model.train=head", "train.epochs=2", *NO_DROPOUT]
    kept, said = start("kept", *words)
    assert "cache of the frozen part: the mean of each text" in said
    plain, _ = start("plain", *words, "model.cache=off")
    for got, expected in zip(figures(kept), figures(plain), strict=True):
        assert got == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_a_bag_of_ngrams_learns_from_a_teacher_and_teaches(start, taught):
    words = ["model.source=ngrams", "--unset", "head", "train.lr=0.1"]
    run, said = start("bag", *taught, *words)
    assert "the teacher's answers: train computed" in said
    teacher, student = json.loads((run / "result.json").read_text(encoding="utf-8"))["distilled"]
    assert student["bytes"] == (run / "model" / "ngrams.npz").stat().st_size
    assert student["rows_per_second"] > teacher["rows_per_second"]
    start("student", "distill.teacher={runs}/bag")
    _, said = start("states", "distill.teacher={runs}/bag", "distill.hidden=1", code=2)
    assert "a bag of n-grams has none" in said
