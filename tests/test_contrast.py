"""Whole runs on pairs of rows: what is drawn reaches every place, stops, goes on, and answers."""

import json

import pytest
import torch
from conftest import figures, make_reviews, weights
from killed import kill_after_save

from openloop import load_run
from configs.read import read_config
from job.fit import epoch_batches
from job.reporting.banner import estimated_seconds, mean_tokens
from job.tasks.table import prepare
from job.training.needs import most_tokens, row_lengths

SETTINGS = {
    "run": {"keep": 50},
    "head": {"dropout": 0.0},
    "contrast": {"pairs": 10},
    "eval": {"baseline": False},
    "speed": {"native": "off"},
}
FULL = ["--unset", "lora"]


pytestmark = pytest.mark.usefixtures("new_cache")


@pytest.fixture
def job(recipe):
    """job("setting=value", …): a prepared job."""
    return lambda *words, unset=(): prepare(read_config(recipe(**SETTINGS), words, unset), False)


def losses(run):
    return [line["train/loss"] for line in figures(run) if "train/loss" in line]


def test_steps_and_epochs_follow_the_pairs(start):
    # 20 rows: five micro-batches of 4, three windows of 2, twice
    run, said = start("pairs")
    result = json.loads((run / "result.json").read_text(encoding="utf-8"))
    assert result["progress"]["step"] == 6
    assert result["progress"]["epoch"] == 2
    assert "Steps 6 in 2 epochs" in said
    assert "pairs: an epoch draws 10 (20 rows)" in said
    assert "0.5 x (cosine - same class)^2 of pairs + 0.5 x (cross-entropy" in said


def test_batches_hold_whole_pairs_in_turns_of_one_class_and_two(job):
    made = job("train.micro_batch_size=6")
    for epoch in (0, 1):
        batches = list(epoch_batches(made, epoch, 0))
        assert [len(batch["labels"]) for batch in batches] == [6, 6, 6, 2]
        labels = torch.cat([batch["labels"] for batch in batches]).view(-1, 2)  # (pairs, 2)
        assert (labels[:, 0] == labels[:, 1]).tolist() == [True, False] * 5
        rest = list(epoch_batches(made, epoch, 2))  # as a resumed run takes them
        assert torch.equal(rest[0]["rows"], batches[2]["rows"])
        assert torch.equal(rest[1]["inputs"]["input_ids"], batches[3]["inputs"]["input_ids"])


def test_the_largest_micro_batch_and_the_time_are_those_of_the_pairs(job):
    small, large = job(), job("contrast.pairs=500")
    for made in (small, large):
        assert made.order.rows == 2 * made.config.contrast.pairs
        seen = [b for epoch in (0, 1) for b in epoch_batches(made, epoch, 0)]
        streams = made.speed.streams
        masks = [batch["inputs"]["attention_mask"] for batch in seen]
        tokens = [int(m.sum() if streams else m.sum(1).max() * len(m)) for m in masks]
        lengths = row_lengths(made.encoded["train"], None, streams)
        assert most_tokens(lengths, made.order, made.plan, 4, streams) == max(tokens)
        held_out = sum(
            row_lengths(made.encoded[name], None, streams).sum() * times
            for name, times in (("validation", 3), ("test", 1))  # once to fit the decision
        )
        trained = 2 * made.order.rows * mean_tokens(made)
        seconds = made.estimate.seconds_per_token * (trained + held_out / 3)
        assert estimated_seconds(made) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "words", [[], FULL, ["--unset", "lora", "model.train=last:1"]], ids=["lora", "full", "last:1"]
)
def test_a_killed_run_goes_on_to_the_same_bits(start, words):
    words = [*words, "run.save_every=1", "model.dropout=0.2"]
    whole, _ = start("whole", *words)
    kill_after_save(4, lambda: start("killed", *words))  # in the second epoch
    killed, said = start("killed", *words, "--resume")
    assert "resuming from" in said
    assert figures(killed) == figures(whole)
    first, second = weights(whole), weights(killed)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("change", ["contrast.pairs=12", "contrast.weight=0.7"])
def test_other_pairs_are_another_run(start, change):
    run, _ = start("run")
    (run / "result.json").unlink()
    _, said = start("run", change, "--resume", code=2)
    assert change.partition("=")[0] in said


def spread(job):
    """Mean cosine of training rows of one class, less that of rows of two."""
    vectors, labels = [], []
    answer = job.built.model.head.answer
    job.built.model.head.answer = lambda pooled: vectors.append(pooled) or answer(pooled)
    job.built.model.eval()
    with torch.no_grad():
        for batch in epoch_batches(job, 7, 0):
            job.built.model(**batch["inputs"])
            labels.append(batch["labels"])
    pooled, classes = torch.nn.functional.normalize(torch.cat(vectors)), torch.cat(labels)
    cosine, same = pooled @ pooled.T, classes[:, None] == classes
    return (cosine[same].mean() - cosine[~same].mean()).item()


def test_texts_of_one_class_move_together_and_of_two_apart(start, job):
    words = ["train.lr=5e-3", "train.epochs=4", "contrast.pairs=40", "contrast.weight=0.99"]
    before = spread(job(unset=["lora"]))
    run, _ = start("run", *FULL, *words)
    after = spread(job(f"model.source=run:{run}", unset=["lora"]))
    assert before < 0.05
    assert after > before + 0.5


def test_a_run_on_pairs_answers_and_exports_as_any_other(start):
    run, _ = start("run")
    lines = (run / "test_predictions.jsonl").read_text(encoding="utf-8").splitlines()
    tested = [json.loads(line) for line in lines]
    told = load_run(run)([row["text"] for row in tested])
    for one, other in zip(told, tested, strict=True):
        assert one.probabilities == pytest.approx(other["probabilities"], abs=1e-5)
    snippet = (run / "README.md").read_text(encoding="utf-8").split("```python\n")[-1]
    names = {}
    exec(snippet.partition("```")[0], names)  # without openloop, as the run card shows
    expected = load_run(run)(list(names["texts"]))
    shown = names["logits"].softmax(-1).amax(1)
    likeliest = torch.tensor([answer.probability for answer in expected])
    torch.testing.assert_close(shown, likeliest, atol=1e-5, rtol=1e-5)


def test_a_probe_on_the_tuned_encoder_is_the_second_stage(start):
    words = ["train.lr=5e-3", "contrast.pairs=40", "contrast.weight=0.99"]
    tuned, _ = start("tuned", *FULL, *words)
    probe = ["model.source=run:{runs}/tuned", "model.train=head", "train.decay=l2"]
    probe += ["train.micro_batch_size=1024", "train.accumulate=1", "train.epochs=50"]
    run, said = start("probe", *FULL, "--unset", "contrast", *probe, "train.lr=0.05")
    assert "head: taken over from the source" in said
    assert "cache of the frozen part: the mean of each text" in said
    first, second = weights(tuned), weights(run)
    moved = {name for name in first if not torch.equal(first[name], second[name])}
    assert len(moved) == 2  # the head's: the encoder stays as the pairs left it
    assert all(name.endswith(("out.weight", "out.bias")) for name in moved)
    result = json.loads((run / "result.json").read_text(encoding="utf-8"))
    assert result["test"]["accuracy"] >= 0.75


def test_accumulated_micro_batches_are_the_steps_of_large_ones(start):
    words = [*FULL, "model.dropout=0"]
    large, _ = start("large", *words, "train.micro_batch_size=8", "train.accumulate=1")
    small, _ = start("small", *words, "train.micro_batch_size=2", "train.accumulate=4")
    assert len(losses(large)) == 6
    assert losses(small) == pytest.approx(losses(large), rel=1e-4)


@pytest.mark.parametrize("method", ["adapter.size=4", "prompt.tokens=2", "prefix.tokens=2"])
def test_pairs_go_with_each_method_and_the_fast_paths_change_nothing(start, method):
    words = [*FULL, method, "model.dropout=0", "train.max_steps=3"]
    fast, _ = start("fast", *words)
    plain, _ = start("plain", *words, "--plain")
    assert losses(fast) == pytest.approx(losses(plain), rel=1e-4)


def test_kept_states_below_what_trains_change_no_loss(start):
    words = [*FULL, "model.train=last:1", "contrast.pairs=100", "model.dropout=0"]
    kept, said = start("kept", *words)
    assert "what enters layer 2 of 2" in said
    plain, _ = start("plain", *words, "model.cache=off")
    assert losses(kept) == pytest.approx(losses(plain), rel=1e-4)


def test_few_pairs_read_too_few_rows_for_states_to_be_kept(start):
    words = [*FULL, "model.train=last:1", "contrast.pairs=2", "train.epochs=1"]
    _, said = start("few", *words, "--dry-run")
    assert "1 epoch with evaluations and the test read 28 rows" in said  # 4 and 12 and 12


def test_texts_in_windows_are_compared_by_their_one_vector(start):
    words = ["data.long=chunks", "data.max_length=12", "data.stride=2", "train.max_steps=2"]
    run, said = start("chunks", *words)
    assert "windows a text" in said
    assert len(losses(run)) == 2


def test_a_teachers_answers_and_pairs_go_together(start):
    start("teacher", "--unset", "contrast", "train.max_steps=1")
    words = ["distill.teacher={runs}/teacher", "train.max_steps=2", "contrast.weight=0.25"]
    run, said = start("student", *words)
    assert "0.25 x (cosine - same class)^2 of pairs + 0.75 x (0.5 x KL" in said
    assert len(losses(run)) == 2


def test_a_loss_of_your_own_is_tried_without_the_pairs(start, tmp_path):
    text = "from torch.nn import functional as F\n\n\ndef mine(logits, labels):\n"
    text += "    return F.cross_entropy(logits, labels, reduction='sum')\n"
    (tmp_path / "mine.py").write_text(text, encoding="utf-8")
    own, said = start("own", f"train.loss={tmp_path / 'mine.py'}:mine", "--allow-code")
    assert "times as large for twice the rows" not in said
    ours, _ = start("ours")
    assert losses(own) == pytest.approx(losses(ours))


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        (lambda i: 2000.5 + i, "the labels are numbers"),
        (lambda i: ["a", "a;b"][i % 2], "rows have several labels"),
        (lambda i: "ab"[i >= 36], "all training rows are of one class"),
    ],
)
def test_rows_that_make_no_pairs_are_refused_before_step_1(start, tmp_path, labels, reason):
    texts = [text for text, _ in make_reviews(60)]
    files = {}
    for split, (first, last) in {
        "train": (0, 36),
        "validation": (36, 48),
        "test": (48, 60),
    }.items():
        files[split] = tmp_path / f"{split}.jsonl"
        rows = [{"text": texts[i], "label": labels(i)} for i in range(first, last)]
        files[split].write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    words = [f"data.source.{split}={path}" for split, path in files.items()]
    if "several" in reason:
        words += ["data.label_separator=;"]
    elif "one class" in reason:
        words += ["data.labels=['a', 'b']"]
    run, said = start("none", "--unset", "data.source", *words, code=2)
    assert f"[contrast] draws pairs of rows: {reason}" in said
    assert "--unset contrast" in said
    assert not run.exists()


def test_a_class_of_one_row_is_said(start, tmp_path):
    rows = [{"text": text, "label": label} for text, label in make_reviews(60)]
    parts = {"train": [*rows[:24], {"text": "so so", "label": "odd"}], "test": rows[24:]}
    words = []
    for split, part in parts.items():
        (tmp_path / f"{split}.jsonl").write_text("\n".join(map(json.dumps, part)), encoding="utf-8")
        words.append(f"data.source.{split}={tmp_path / split}.jsonl")
    _, said = start("odd", "--unset", "data.source", *words, "data.validation=0", "--dry-run")
    assert "1 of 3 classes have one row, and stand in those of two alone" in said
    assert "of its 25 rows there are 132 and 168" in said


def test_an_order_of_single_rows_stays_as_it_was(job):
    from data.loaders import epoch_order

    made = job(unset=["contrast"])
    assert (made.order.epoch(2) == epoch_order(36, 0, 2)).all()
    assert made.order.rows == 36
    assert made.plan.micro_batches_per_epoch == 9
