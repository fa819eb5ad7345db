"""Whole runs on texts longer than the model reads, and what is made of them elsewhere."""

import json
import random
import re

import pytest
from conftest import figures, own_head, weights

import train
from openloop import load_run
from configs.read import read_config
from job.training.needs import memory_advice
from job.training.teacher import within
from tests.killed import kill_after_save

HEAD_TAIL = ["data.max_length=10", "data.long=head_tail", "data.head_tokens=3"]


@pytest.fixture
def start(recipe, tmp_path, capsys):
    """start("name", "setting=value", …) -> (run folder, what was printed)."""
    path = recipe(speed={"native": "off"}, eval={"baseline": False})

    def run(name, *words, code=0):
        assert train.main(["--config", str(path), *words, f"run.name={name}"]) == code
        captured = capsys.readouterr()
        return tmp_path / "runs" / name, captured.out + captured.err

    return run


def list_answers(folder):
    """(text, label, probabilities) of each test row, as the run itself found them."""
    lines = (folder / "test_predictions.jsonl").read_text(encoding="utf-8").splitlines()
    rows = map(json.loads, lines)
    return [(row["text"], row["predicted"], row["probabilities"]) for row in rows]


def check_uses(folder, start, words):
    """Everything that asks a finished run reads a long text as the training did."""
    rows = list_answers(folder)
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    samples = json.loads((folder / "samples.json").read_text(encoding="utf-8"))
    answers = load_run(folder)([text for text, _, _ in rows])
    for (_, label, probabilities), answer in zip(rows, answers, strict=True):
        assert answer.label == label
        assert answer.probabilities == pytest.approx(probabilities, abs=1e-6)
    _, said = start(folder.name, *words, "--eval-only")
    assert f"Test accuracy {result['test']['accuracy']:.4f}" in said
    assert samples.keys() == {"good film", "bad film"}
    card = (folder / "README.md").read_text(encoding="utf-8")
    snippet = next(s for s in re.findall(r"```python\n(.*?)```", card, re.S) if "logits" in s)
    for text, _, probabilities in rows:
        names = {}
        exec(snippet.replace('"It was good.", "Not a fan."', f"{text!r}, 'a film'"), names)
        shares = names["logits"].softmax(-1)[0].tolist()
        assert shares == pytest.approx(list(probabilities.values()), abs=1e-5)
    return card


def test_both_ends_are_read_in_training_and_by_whoever_asks(start):
    words = [*HEAD_TAIL, "--unset", "lora", "train.max_steps=4"]
    folder, said = start("ends", *words)
    assert "of longer ones the first 3 and the last 5" in " ".join(said.split())
    card = check_uses(folder, start, words)
    sentence = "Of a text longer than 10 tokens the first 3 and the last 5 are read."
    assert sentence in " ".join(card.split())
    assert sentence in (folder / "model/README.md").read_text(encoding="utf-8")
    record = json.loads((folder / "model/openloop.json").read_text(encoding="utf-8"))
    assert record["texts"]["ends"] == [3, 5]


@pytest.mark.slow
def test_an_adapter_of_a_run_on_both_ends_opens_elsewhere(start):
    words = [*HEAD_TAIL, "train.max_steps=4"]
    folder, _ = start("adapter", *words)
    check_uses(folder, start, words)


def test_left_truncation_is_said_to_lose_the_beginning(start):
    _, said = start("left", "data.truncation=left", "--dry-run")
    assert "longer ones lose their beginning" in said


def test_an_export_of_texts_that_are_cut_has_nothing_to_say(start):
    folder, _ = start("cut", "data.max_length=10", "train.max_steps=1")
    assert not (folder / "model/README.md").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data.long=head_tail", "data.truncation=left"], "data.truncation: got"),
        (["data.head_tokens=4"], 'data.head_tokens: got 4 beside data.long = "cut"'),
        (["data.long=head_tail", "data.head_tokens=32"], "data.head_tokens: got 32 beside"),
        (["data.long=head_tail", 'data.text=["text", "other"]'], 'data.long: got "head_tail"'),
        (["data.long=head_tail", "data.head_tokens=30"], "expected 1 to 29"),
    ],
)
def test_settings_that_do_not_go_together_are_told(start, words, message):
    _, said = start("wrong", *words, code=2)
    assert message in said


CHUNKS = ["data.max_length=8", "data.long=chunks", "data.stride=2"]
FULL = ["--unset", "lora"]


def assert_same_weights(one, other):
    assert one.keys() == other.keys()
    assert all(one[name].equal(other[name]) for name in one)


@pytest.mark.parametrize(
    "words",
    [
        [*FULL, "data.window_pool=max", "data.truncation=left", "data.max_windows=2"],
        ["head.pool=cls"],
        pytest.param([*FULL, "speed.plain=true", "head.kind=mlp"], marks=pytest.mark.slow),
        pytest.param([*FULL, "prompt.tokens=3"], marks=pytest.mark.slow),
    ],
)
def test_windows_are_read_in_training_and_by_whoever_asks(start, words):
    words = [*CHUNKS, *words, "train.max_steps=4"]
    folder, said = start("chunks", *words)
    said = " ".join(said.split())
    assert "windows of at most 8 tokens, 2 of them shared with the one before" in said
    assert re.search(
        r"train: [\d.]+ windows a text, at most \d; \d+ texts have more than one", said
    )
    assert re.search(
        r"beside cut: about [\d.]+ times the time of an epoch, and about .* more", said
    )
    card = check_uses(folder, start, words)
    sentence = "A text longer than 8 tokens is read in windows of as many"
    assert sentence in " ".join(card.split())
    assert sentence in (folder / "model/README.md").read_text(encoding="utf-8")
    record = json.loads((folder / "model/openloop.json").read_text(encoding="utf-8"))
    assert record["texts"]["windows"]["stride"] == 2


@pytest.mark.parametrize("words", [["speed.plain=true"], [*FULL, "data.window_pool=max"]])
def test_a_run_on_texts_of_one_window_is_the_run_that_cuts_none(start, words):
    words = ["data.max_length=64", *words, "train.max_steps=4"]
    cut = [word for word in words if "window" not in word]
    one, _ = start("cut", *cut)
    other, said = start("chunks", *words, "data.long=chunks")
    assert "train: 1 windows a text, at most 1; 0 texts" in " ".join(said.split())
    assert figures(other) == figures(one)
    assert list_answers(other) == list_answers(one)
    assert_same_weights(weights(other), weights(one))


@pytest.mark.parametrize("words", [["speed.plain=true"], FULL])
def test_a_short_text_beside_longer_ones_is_answered_as_by_the_run_that_cuts_them(start, words):
    words = ["data.max_length=64", *words, "train.max_steps=4"]
    one, _ = start("cut", *words)
    other, _ = start("chunks", *words, "data.long=chunks")
    short = [text for text, _, _ in list_answers(one)]
    long = [" ".join([f"film {number} was good and bad", *short]) for number in range(5)]
    texts = [text for pair in zip(long, short[:5], strict=True) for text in pair] + short[5:]
    places = [number for number, text in enumerate(texts) if text in short]
    cut, chunks = ([load_run(run)(texts)[n].probabilities for n in places] for run in (one, other))
    for answer, wanted in zip(chunks, cut, strict=True):  # other shapes round apart
        assert answer == pytest.approx(wanted, abs=1e-6)


def test_a_killed_run_on_windows_goes_on_to_the_same_bits(start, recipe):
    words = [*CHUNKS, *FULL, "run.save_every=2", "train.max_steps=6", "eval.every=3"]
    whole, _ = start("whole", *words)
    path = recipe(speed={"native": "off"}, eval={"baseline": False})
    line = ["--config", str(path), *words, "run.name=killed"]
    kill_after_save(2, lambda: train.main(line))
    killed, said = start("killed", *words, "--resume")
    assert "resuming from" in said
    assert figures(killed) == figures(whole)
    assert_same_weights(weights(killed), weights(whole))


@pytest.mark.parametrize(("what", "pool"), [("head", "max"), ("last:1", "mean")])
def test_kept_states_of_windows_train_as_the_windows_do(start, what, pool):
    words = [*CHUNKS, *FULL, "model.dropout=0", f"model.train={what}", f"data.window_pool={pool}"]
    kept, said = start("kept", *words)
    assert re.search("cache of the frozen part: train (computed|hit)", said)
    plain, _ = start("plain", *words, "model.cache=off")
    for one, other in zip(figures(kept), figures(plain), strict=True):
        for name in ("train/loss", "eval/loss", "test/loss"):
            assert one.get(name) == pytest.approx(other.get(name), abs=1e-4)


OWN_HEAD = own_head("self.answer(self.pool_tokens(hidden, mask))")
HALVES = """
    def pool_tokens(self, hidden, mask):
        return (hidden.exp() * mask.unsqueeze(-1)).sum(1).log()

    def answer(self, pooled):
        return self.out(pooled)
"""


def test_a_head_of_a_users_own_reads_windows_where_it_shows_their_vectors(start, tmp_path):
    file = tmp_path / "head.py"
    words = [*CHUNKS, *FULL, f"head.kind={file}:Head", "--unset", "head.pool", "--allow-code"]
    words += ["train.max_steps=2"]
    file.write_text(OWN_HEAD, encoding="utf-8")
    _, said = start("refused", *words, code=2)
    assert 'data.long = "chunks" joins the vectors of a text\'s windows; Head shows none' in said
    file.write_text(OWN_HEAD + HALVES, encoding="utf-8")
    folder, _ = start("own", *words)
    rows = list_answers(folder)
    answers = load_run(folder, allow_code=True)([text for text, _, _ in rows])
    for (_, _, probabilities), answer in zip(rows, answers, strict=True):
        assert answer.probabilities == pytest.approx(probabilities, abs=1e-6)
    card = (folder / "README.md").read_text(encoding="utf-8")
    snippet = next(s for s in re.findall(r"```python\n(.*?)```", card, re.S) if "logits" in s)
    names = {}
    exec(snippet.replace("It was good.", rows[0][0]), names)
    shares = names["logits"].softmax(-1)[0].tolist()
    assert shares == pytest.approx(list(rows[0][2].values()), abs=1e-5)


def test_what_is_read_of_long_texts_is_counted_in_the_data_report(start):
    words = ["train.max_steps=1", "data.max_windows=2"]
    folder, _ = start("counted", *CHUNKS, *FULL, *words)
    counts = json.loads((folder / "data.json").read_text(encoding="utf-8"))["lengths"]["train"]
    assert counts["windowed_rows"] == 36  # each has more than six tokens of text
    assert counts["windows"] == 2 * 36
    assert 36 * (8 + 5) <= counts["tokens"] <= 36 * (8 + 8)  # the second has three of its own
    assert 0 < counts["cut_rows"] < 36
    assert counts["cut_tokens"] > 0


def test_a_text_of_more_windows_than_are_read_is_counted_as_cut(start):
    _, said = start("few", *CHUNKS, *FULL, "data.max_windows=1", "--dry-run")
    row = next(line for line in said.splitlines() if line.split()[:2] == ["train", "36"])
    assert float(row.split()[2]) > 50  # percent of the texts


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_signal_in_the_middle_is_found_in_windows_alone(start, tmp_path):
    """1,400 words that say nothing around a hundred that do."""
    rows, draw = [], random.Random(0)
    for i in range(160):
        rest = draw.choices(["the", "film", "was", "a", "story", "of", "people", "in"], k=1400)
        words = (["good", "great", "moving"], ["bad", "awful", "boring"])[i % 2]
        text = " ".join([*rest[:700], *draw.choices(words, k=100), *rest[700:]])
        rows.append(json.dumps({"text": text, "label": ["pos", "neg"][i % 2]}))
    (tmp_path / "middle.jsonl").write_text("\n".join(rows), encoding="utf-8")
    words = [f"data.source={tmp_path}/middle.jsonl", "data.max_length=128", *FULL]
    words += ["data.validation=20", "data.test=60", "train.epochs=6", "train.lr=3e-3"]
    words += ["train.accumulate=1", "model.dropout=0"]
    ways = {way: [f"data.long={way}"] for way in ("cut", "head_tail")}
    ways |= {pool: ["data.long=chunks", f"data.window_pool={pool}"] for pool in ("max", "mean")}
    accuracy = {}
    for way, settings in ways.items():
        folder, _ = start(way, *words, *settings)
        result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        accuracy[way] = result["test"]["accuracy"]
    assert max(accuracy["cut"], accuracy["head_tail"]) < 0.65, accuracy
    assert min(accuracy["max"], accuracy["mean"]) > 0.9, accuracy


def test_a_run_out_of_memory_is_told_of_its_windows(recipe):
    config = read_config(recipe(), ["data.long=chunks", "data.max_windows=5"])
    assert "A lower data.max_length (now 32) or data.max_windows (now 5)" in memory_advice(config)
    assert "data.max_windows" not in memory_advice(read_config(recipe()))


def test_a_teacher_that_is_no_run_reads_one_window(recipe):
    for long, read in (("chunks", "cut"), ("head_tail", "head_tail"), ("cut", "cut")):
        config = read_config(recipe(), [f"data.long={long}"])
        data = within(config, 16).data
        assert (data.long, data.max_length) == (read, 16)


@pytest.mark.slow
def test_a_teacher_and_its_student_read_windows(start):
    words = [*CHUNKS, *FULL, "train.max_steps=4"]
    start("teacher", *words)
    student, said = start("student", *words, "distill.teacher=teacher", "data.window_pool=max")
    assert "the teacher's answers: train computed" in said
    assert len(list_answers(student)) == 12
