"""The programs of examples/ run, and do what they say."""

import inspect
import json
import os
import re
import signal
import textwrap
from pathlib import Path

import pytest
import torch

import train
from openloop import load_run, open_job, read_config, run_job
from data.loaders import collate
from engine import loop
from examples import fgm, own_fit, own_loss, r_drop


@pytest.fixture
def words(recipe):
    """A recipe of few steps, and changes to it."""
    path = recipe(train={"max_steps": 3, "accumulate": 1}, speed={"native": "off"})
    return lambda *changes: [str(path), *changes]


def read_losses(folder):
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [row["train/loss"] for row in map(json.loads, lines) if "train/loss" in row]


@pytest.fixture
def job(words):
    """A run before its first step, without streams."""
    return open_job(read_config(words()[0], ["speed.unpad=false", "model.dropout=0.1"]))


def first_batch(job):
    return collate([job.encoded["train"].dataset[row] for row in range(4)], job.padding)


@pytest.mark.parametrize("program", [own_loss, r_drop, fgm])
def test_an_example_trains_to_a_model_that_answers(program, words, tmp_path):
    result = program.main(words())
    assert result["progress"]["step"] == 3
    card = (tmp_path / "runs/tiny/README.md").read_text(encoding="utf-8")
    assert "was a program's own" in card
    assert load_run(tmp_path / "runs/tiny")(["good film"])[0].label in ("neg", "pos")


def test_a_head_of_the_examples_trains_and_answers(words, tmp_path):
    kind = "head.kind=examples/own_head.py:MeanMaxHead"
    flags = ["--unset", "head.pool", "--allow-code"]
    assert train.main(["--config", *words(kind), *flags]) == 0
    answers = load_run(tmp_path / "runs/tiny", allow_code=True)(["good film", "bad"])
    assert [answer.label in ("neg", "pos") for answer in answers] == [True, True]


def test_a_method_of_the_examples_trains_alone_and_answers(words, tmp_path):
    kind = "method.kind=examples/own_method.py:IA3"
    assert train.main(["--config", *words(kind), "--unset", "lora", "--allow-code"]) == 0
    run = tmp_path / "runs/tiny"
    assert load_run(run, allow_code=True)(["good film"])[0].label in ("neg", "pos")
    with pytest.raises(ValueError, match="allow it with --allow-code"):
        load_run(run)


def test_the_focal_loss_is_its_formula():
    logits = torch.tensor([[2.0, -1.0, 0.5], [0.0, 0.0, 3.0]], dtype=torch.float64)
    labels = torch.tensor([0, 1])
    p = torch.softmax(logits, dim=1)[[0, 1], labels]
    expected = -((1 - p) ** 2 * p.log()).sum()
    assert own_loss.focal_loss(logits, labels).item() == pytest.approx(expected.item(), rel=1e-6)


def test_r_drop_without_dropout_is_the_plain_loss_and_with_it_more(job):
    model, batch = job.built.model, first_batch(job)
    loss = r_drop.r_drop(job.loss_fn)
    model.eval()
    plain = job.compute_loss(model, batch).item()
    assert loss(model, batch).item() == pytest.approx(plain, rel=1e-6)
    model.train()
    torch.manual_seed(0)
    logits = [model(**batch["inputs"]) for _ in range(2)]
    p, q = (one.softmax(dim=1) for one in logits)
    apart = ((p - q) * (p.log() - q.log())).sum().item() / 2  # KL both ways, written as one sum
    plain = sum(job.loss_fn(one, batch["labels"]).item() for one in logits) / 2
    torch.manual_seed(0)
    assert apart > 1e-5
    assert loss(model, batch).item() == pytest.approx(plain + apart, rel=1e-5)


def test_fgm_moves_each_text_for_itself_to_where_its_loss_is_higher(job):
    model, batch = job.built.model.eval(), first_batch(job)
    loss, moves = fgm.fgm(job.compute_loss), []

    def note(module, inputs, output):
        moves.append(output.detach().clone())

    table = model.backbone.get_input_embeddings()
    handle = table.register_forward_hook(note, always_call=True)
    plain = job.compute_loss(model, batch).item()
    both = loss(model, batch).item()
    handle.remove()
    assert both - plain > plain  # the moved batch's is the higher one
    rows = [fgm.fgm(job.compute_loss)(model, part(batch, row)).item() for row in range(4)]
    assert sum(rows) == pytest.approx(both, rel=1e-4)


def part(batch, row):
    inputs = {name: tensor[row : row + 1] for name, tensor in batch["inputs"].items()}
    return {**batch, "inputs": inputs, "labels": batch["labels"][row : row + 1]}


def test_the_copied_fit_trains_to_the_same_bits_and_ends_when_time_is_over(words, tmp_path):
    own_fit.main(["1000", *words("run.name=long", "eval.every=2")])
    run_job(open_job(read_config(words()[0], ["run.name=ours", "eval.every=2"])))
    assert read_losses(tmp_path / "runs/long") == read_losses(tmp_path / "runs/ours")
    result = own_fit.main(["0", *words("run.name=short")])
    assert result["progress"]["step"] == 1
    assert result["weights"].startswith("the best weights")
    assert load_run(tmp_path / "runs/short")(["good film"])[0].label in ("neg", "pos")


def code_of(function):
    """The lines of a function without its indentation, its docstring and what is marked."""
    source = textwrap.dedent(inspect.getsource(function))
    text = re.sub(r'\s*""".*?"""', "", source, count=1, flags=re.S)
    return [line for line in text.splitlines() if not line.endswith("  # added")]


def test_the_copied_fit_is_ours_apart_from_the_lines_that_are_marked():
    copied = own_fit.fit_until(0.0)
    assert code_of(copied) == code_of(loop.fit)
    assert "  # added" in inspect.getsource(copied)


@pytest.mark.parametrize("place", ["finished", "save_due", "advance"])
def test_a_copied_fit_that_is_stopped_anywhere_in_a_step_is_saved(
    words, tmp_path, monkeypatch, place
):
    plain, calls = getattr(own_fit, place), []

    def stopped(*arguments, **named):
        calls.append(place)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return plain(*arguments, **named)

    monkeypatch.setattr(own_fit, place, stopped)
    with pytest.raises(SystemExit):
        own_fit.main(["1000", *words()])
    assert list((tmp_path / "runs/tiny/checkpoints").glob("step-*"))


ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("page", ["docs/extend.md", "docs/glossary.md", "docs/how-it-works.md"])
def test_a_page_names_files_that_are_there(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    named = re.findall(r"`([a-z_]+/[a-z_/-]*\.?[a-z]*)[`:]", text)
    linked = re.findall(r"\]\(([^)#:]+)\)", text)
    assert named
    assert [name for name in named if "." in name and not (ROOT / name).exists()] == []
    assert [name for name in linked if not (ROOT / "docs" / name).exists()] == []


def test_every_example_stands_in_the_page_that_says_what_to_put_where():
    text = (ROOT / "docs/extend.md").read_text(encoding="utf-8")
    assert [p.name for p in (ROOT / "examples").glob("*.py") if p.name not in text] == []
