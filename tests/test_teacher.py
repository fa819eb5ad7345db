"""Which teacher a name means, where it answers, and that nothing it does harms its student."""

import json
import shutil
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import own_head, result_of, weights

import engine.precision
from openloop import load_run
from configs.read import read_config
from files.write import LEFTOVER
from job import finish
from job.predicting import answers
from job.predicting.answers import answers_key, steady
from job.tasks.table import prepare
from job.testing import beside, conclude
from job.training import distill
from tests.killed import kill_after_save, kill_between

SETTINGS = {
    "head": {"dropout": 0.0},
    "lora": None,
    "train": {"epochs": 1},
    "eval": {"baseline": False},
    "speed": {"native": "off"},
    "samples": None,
}
HEAD = own_head("self.out(hidden[:, 0])")
HALF = ["distill.student=layers:2", "--unset", "model.source"]
BAG = ["model.source=ngrams", "--unset", "head", "train.lr=0.1"]


@pytest.fixture(autouse=True)
def cache(new_cache):
    return new_cache / "answers"


@pytest.fixture
def ready(recipe, tmp_path):
    """ready("setting=value", …, unset=[…], allow_code=False) -> the prepared job of a student."""

    def make(*words, unset=(), allow_code=False):
        words = [word.replace("{runs}", str(tmp_path / "runs")) for word in words]
        return prepare(read_config(recipe(**SETTINGS), words, unset), allow_code)

    return make


def test_layers_of_a_teacher_that_cannot_be_merged_are_refused_with_what_works(start):
    start("teacher", "adapter.size=2")
    _, said = start("student", "distill.teacher={runs}/teacher", *HALF, code=2)
    assert "cannot be merged into them" in said
    assert 'distill.student = "ngrams"' in said
    assert "goes on from one weight" not in said


# Which model a name means


@pytest.mark.parametrize("name", ["{runs}/teacher/model", "teacher/model", "run:teacher/model"])
def test_a_run_named_by_its_models_folder_is_that_run(start, ready, name):
    start("teacher", "bag.rows=train", "data.clean.html=false", "data.max_length=8")
    by_run = ready("distill.teacher={runs}/teacher").distilled
    by_model = ready(f"distill.teacher={name}").distilled
    assert by_model.key == by_run.key
    assert by_model.reopen().predictor.fusion is not None


def test_a_model_that_left_its_run_brings_its_bag_and_its_code(start, ready, tmp_path):
    (tmp_path / "head.py").write_text(HEAD, encoding="utf-8")
    head = [f"head.kind={tmp_path / 'head.py'}:Head", "--unset", "head.pool", "--unset",
            "head.dropout", "--allow-code"]  # fmt: skip
    run, _ = start("teacher", *head, "bag.rows=train")
    shutil.copytree(run / "model", tmp_path / "alone")
    words = [f"distill.teacher={tmp_path / 'alone'}"]
    job = ready(*words, allow_code=True)
    assert job.distilled.reopen().predictor.fusion is not None
    assert "teacher: its run is not there; it reads texts as this one does" in job.notes
    job.distilled.ask("train")
    told = load_run(run, allow_code=True)(job.data.splits["train"]["text"])
    shares = torch.from_numpy(job.distilled.logits("train")).softmax(-1)[:, 1]
    names = job.data.label_names
    assert [p.probabilities[names[1]] for p in told] == pytest.approx(shares.tolist(), abs=1e-5)
    with pytest.raises(ValueError, match="allow-code"):
        ready(*words)


@pytest.mark.parametrize("extra", [[], HALF])
@pytest.mark.parametrize("name", ["teacher", "{runs}/teacher", "run:{runs}/teacher/model"])
def test_a_run_is_not_its_own_teacher(start, taught, tmp_path, name, extra):
    _, said = start("teacher", f"distill.teacher={name}", "--fresh", *extra, code=2)
    assert "which is this run itself" in said
    assert not list((tmp_path / "runs").glob("*.old-*"))
    _, said = start("new", "distill.teacher=new", *extra, code=2)
    assert "which is this run itself" in said


# Where it answers


@pytest.fixture
def quick_bf16(monkeypatch):
    """A machine on which matrix products are quicker in bf16."""
    monkeypatch.setattr(engine.precision, "probe_dtype", lambda device: ("bf16", "measured"))


def test_the_teacher_of_a_bag_answers_where_a_transformer_does(
    start, taught, ready, quick_bf16, monkeypatch
):
    words = [*taught, BAG[0], BAG[3], "precision.dtype=auto"]
    run, said = start("bag", *taught, *BAG, "precision.dtype=auto")
    assert "on cpu in bf16; its answers" in said
    job = ready(*words, unset=["head"])
    assert (job.precision.dtype, job.distilled.precision.dtype) == ("fp32", "bf16")
    assert job.distilled.reopen().predictor.precision.dtype == "bf16"
    made = json.loads((run / "environment.json").read_text(encoding="utf-8"))
    assert (made["dtype"], made["teacher.dtype"]) == ("fp32", "bf16")
    monkeypatch.setattr(engine.precision, "probe_dtype", lambda device: ("fp32", "measured"))
    other = ready(*words, unset=["head"])
    assert other.distilled.key != job.distilled.key


def test_a_resumed_bag_keeps_the_dtype_of_its_teacher(start, taught, quick_bf16, monkeypatch):
    words = [*taught, *BAG, "precision.dtype=auto", "run.save_every=1"]
    whole, _ = start("whole", *words)
    kill_after_save(1, lambda: start("killed", *words))
    monkeypatch.setattr(engine.precision, "probe_dtype", lambda device: ("fp32", "measured"))
    killed, said = start("killed", *words, "--resume")
    assert "resuming from" in said
    assert "train hit" in said
    with np.load(whole / "model/ngrams.npz") as one, np.load(killed / "model/ngrams.npz") as two:
        assert all(np.array_equal(one[name], two[name]) for name in one.files)


def test_a_teacher_that_is_a_bag_answers_where_bags_are_quick(start, ready, quick_bf16):
    start("bag", *BAG)
    job = ready("distill.teacher={runs}/bag", "precision.dtype=bf16")
    assert (job.precision.dtype, job.distilled.precision.dtype) == ("bf16", "fp32")


def test_a_pass_has_as_many_rows_whatever_else_is_set(start, ready, monkeypatch):
    start("teacher", "eval.micro_batch_size=3")
    made, sizes, run = ready("distill.teacher=teacher").distilled, [], answers.Predictor.run

    def watch(own, *words):
        sizes.append(own.micro_batch_size)
        run(own, *words)

    monkeypatch.setattr(answers.Predictor, "run", watch)
    made.ask("train")
    assert {*sizes} == {answers.EVALUATION_ROWS}
    teacher = made.reopen()
    other = replace(teacher, predictor=replace(teacher.predictor, micro_batch_size=50))
    assert answers_key(other) == made.key  # 50: as the free memory of a GPU would have it
    there = replace(other.predictor.precision, device=torch.device("cuda"))
    on_gpu = steady(replace(other.predictor, precision=there))
    assert on_gpu.micro_batch_size == answers.TOKENS // 32


def test_what_computes_the_answers_is_in_their_key(taught, ready, monkeypatch):
    teacher, hashed = ready(*taught).distilled.reopen(), []
    first = answers_key(teacher)
    monkeypatch.setattr(answers, "code_digest", lambda *places: hashed.extend(places) or "other")
    assert answers_key(teacher) != first
    names = [place.relative_to(answers.HOME).as_posix() for place in hashed]
    assert {
        "models",
        "job/predicting/answers.py",
        "job/predicting/predictor.py",
        "engine/precision.py",
    } <= {*names}
    assert all(place.exists() for place in hashed)


# What it must not harm


@pytest.mark.parametrize("number", [2, 6])  # of the training rows' 5 parts, and of all 7
def test_killed_while_a_teacher_answers_a_student_begins_anew(
    start, cache, taught, monkeypatch, number
):
    monkeypatch.setattr(answers, "CHUNK", 8)
    whole, _ = start("whole", *taught)
    shutil.rmtree(cache)
    kill_between(distill, "answer_rows", number, lambda: start("killed", *taught))
    names = sorted(path.name for path in cache.iterdir())
    assert sum(bool(LEFTOVER.fullmatch(name)) for name in names) == 1
    assert len(names) == (1 if number == 2 else 2)
    killed, said = start("killed", *taught, "--resume")
    assert ("train computed" in said) == (number == 2)
    assert "test computed" in said
    first, second = weights(whole), weights(killed)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert result_of(killed)["distilled"][0]["value"] == result_of(whole)["distilled"][0]["value"]


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError()])
def test_a_student_ends_where_its_teacher_has_no_room(start, taught, monkeypatch, error):
    optimizers, held = [], []
    compare, own = conclude.compare_teacher, distill.Distilled.answer

    def note(job, *rest):
        optimizers.append(job.optimizer)
        return compare(job, *rest)

    def answer(made, split, stop):
        if split == "test":
            held.append(len(optimizers[0].state))
            raise error
        return own(made, split, stop)

    monkeypatch.setattr(distill.Distilled, "answer", answer)
    monkeypatch.setattr(conclude, "compare_teacher", note)
    run, said = start("student", *taught)
    reason = str(error) or "MemoryError"
    assert f"WARNING: the student stands alone, its teacher cannot be asked: {reason}" in said
    assert result_of(run)["distilled"] == []
    assert held == [0]  # of the optimizer's state, which would have taken its room


def test_a_teacher_for_which_there_is_no_room_is_named_before_step_1(start, taught, monkeypatch):
    def fail(*words):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(distill, "time_answers", fail)
    _, said = start("student", *taught, code=2)
    assert "out of memory: CUDA out of memory The teacher (distill.teacher) answers beside" in said
    assert "damaged" not in said


def test_a_student_is_stopped_while_its_teacher_answers(
    start, taught, cache, tmp_path, monkeypatch
):
    save_model, run, passes = conclude.save_model, answers.Predictor.run, []

    def save(*words):
        save_model(*words)
        patch.setattr(answers.Predictor, "run", watch)
        signal.raise_signal(signal.SIGTERM)

    def watch(own, chunk, on_batch):
        run(own, chunk, lambda *words: passes.append(1) or on_batch(*words))

    with monkeypatch.context() as patch:
        patch.setattr(conclude, "save_model", save)
        with pytest.raises(SystemExit, match="143"):
            start("student", *taught)
    assert passes == [1]
    assert not (tmp_path / "runs/student/result.json").exists()
    assert len(list(cache.iterdir())) == 1  # nothing half-written beside those to training rows
    _, said = start("student", *taught, "--resume")
    assert "test computed" in said


def test_a_student_is_stopped_while_it_is_timed(start, taught, tmp_path, monkeypatch):
    measure, passes = beside.measure_speeds, []

    def stopped(answer, texts):
        signal.raise_signal(signal.SIGTERM)
        passes.append(1)
        return measure(answer, texts)

    monkeypatch.setattr(beside, "measure_speeds", stopped)
    with pytest.raises(SystemExit, match="143"):
        start("student", *taught)
    assert passes == [1]
    assert not (tmp_path / "runs/student/result.json").exists()


@pytest.mark.parametrize("what", ["model.train=head", "lora.targets=all-linear"])
def test_frozen_weights_in_bf16_are_saved_exactly_though_the_teacher_has_gone(
    start, taught, tmp_path, monkeypatch, what
):
    def leave(*given):
        shutil.rmtree(tmp_path / "runs/teacher")
        return load_best(*given)

    before, load_best = weights(tmp_path / "runs/teacher"), finish.load_best
    monkeypatch.setattr(finish, "load_best", leave)
    words = [*HALF, "precision.dtype=bf16", "model.dropout=0"]
    run, said = start("student", *taught, *words, what)
    assert "WARNING: the student stands alone" in said
    after = weights(run)
    second = {n: tensor for n, tensor in before.items() if "layer.1." in n}
    assert second
    for name, tensor in second.items():
        assert torch.equal(after[name.replace("layer.1.", "layer.0.")], tensor)
    assert load_run(run)(["a good film"])


def test_what_stands_beside_each_other_is_what_a_user_gets(start, taught, monkeypatch):
    given, put = [], beside.put_beside
    monkeypatch.setattr(beside, "put_beside", lambda *words: given.append(words[3]) or put(*words))
    run, _ = start("student", *taught, "lora.targets=all-linear", "precision.dtype=bf16")
    cast = {p.dtype for n, p in given[0].model.named_parameters() if n.endswith("base.weight")}
    assert cast == {torch.bfloat16}
    assert result_of(run)["distilled"][1]["device"] == "cpu"


def test_a_bag_beside_the_encoder_is_counted(start, taught):
    run, _ = start("student", *taught, "bag.rows=train")
    teacher, student = result_of(run)["distilled"]
    assert student["parameters"] == teacher["parameters"] + 2 * 2**18 + 2
