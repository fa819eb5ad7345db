"""Which words an answer rests on, by occlusion: a part is left out, and the answer asked for again.

Sentences first, then the words of the two that carry most: a text of S sentences and W words takes
about S + 2 W / S answers and not W. What a part weighs is how far the log-odds of the explained
label fall without it (Zeiler and Fergus 2014, arXiv:1311.2901; Li et al. 2016, arXiv:1612.08220);
for a number, how far that falls. It is no cause: two words that say the same cover for each other.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from engine.curves import logits_of_classes
from engine.decision import Decision
from job.predicting.naming import Text
from job.predicting.predictor import CHUNK, Predictor
from models.ngrams.bag import stands_alone

MOST_PARTS = (
    64  # sentences of a text, words of a sentence; of more, neighbours are left out together
)
STRONGEST = 2  # sentences whose words are looked at
AT_ONCE = 8  # texts whose parts are asked for together

# Ends of sentences: a point and its like before a blank, those of scripts without blanks anywhere,
# and new lines. None begins inside another, so that a long run of points is read once.
END = re.compile(
    r"""(?<![.!?…])[.!?…]++["'”’»)\]]*+(?=\s|\Z|<)|[。！？｡．।॥؟۔።។]++["'”’」』）)]*+|\n++|<br\s*+/?>"""
)
TAG = re.compile(r"<[A-Za-z/!][^<>]*+>")


class Span(NamedTuple):
    """Characters `start` to `end` of a text; of a pair `side` says of which, 0 or 1."""

    side: int
    start: int
    end: int


@dataclass(frozen=True)
class Piece:
    """A part of a text and what it weighs: how far the log-odds of the explained label fall without
    it, or the number. `text` is text[start:end], of a pair that of its text number `side`."""

    text: str
    start: int
    end: int
    weight: float
    unit: str  # "word" or "sentence"
    side: int = 0


# ---- parts of a text -------------------------------------------------------------------------


def split_sentences(text: str) -> list[tuple[int, int]]:
    """(start, end) of each sentence, without the blanks around it; none of a text without any
    letter. A point before a small letter ends no sentence (e.g. here)."""
    cuts = []  # (where a sentence ends, where the next begins)
    for match in END.finditer(text):
        following = text[match.end() : match.end() + 40].lstrip()
        if match.group().startswith("<"):
            cuts.append(match.span())
        elif match.group().strip(".") or not following[:1].islower():
            cuts.append((match.end(), match.end()))
    sentences, start = [], 0
    for end, following_start in [*cuts, (len(text), len(text))]:
        part = text[start:end]
        first = start + len(part) - len(part.lstrip())
        last = start + len(part.rstrip())
        if next(split_words(text, first, last), None) is not None:
            sentences.append((first, last))
        elif sentences and first < last:  # points and brackets alone belong to what was before
            sentences[-1] = (sentences[-1][0], last)
        start = following_start
    return sentences


def split_words(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """(start, end) of each word of text[start:end]: letters and digits with what marks them, in
    scripts without blanks each letter, and each emoji. Nothing of an HTML tag is one."""
    tags = {place for match in TAG.finditer(text, start, end) for place in range(*match.span())}
    word: int | None = None  # where the word that goes on began
    joins = False  # whether a letter may go on with it
    for place in range(start, end):
        letter = text[place]
        category = unicodedata.category(letter)
        if place in tags:
            kind = " "
        elif word is not None and (category[0] == "M" or category == "Sk" or letter == "\u200d"):
            continue  # accents, vowel signs, shades and joiners of emoji
        elif category == "So" or stands_alone(letter, category):
            kind = "alone"
        elif category[0] in "LN":
            kind = "letter"
        else:
            kind = " "
            inside = word is not None and joins and letter in "'’" and place + 1 < end
            if inside and unicodedata.category(text[place + 1])[0] == "L":
                continue  # don't
        glued = word is not None and text[place - 1] == "\u200d"
        if kind != " " and (glued or (kind == "letter" and joins and word is not None)):
            continue
        if word is not None:
            yield word, place
        word = None if kind == " " else place
        joins = kind == "letter"
    if word is not None:
        yield word, end


def join_neighbours(spans: Sequence[Span]) -> list[Span]:
    """At most MOST_PARTS of them: of more, equally many neighbours of one text as one."""
    size = -(-len(spans) // MOST_PARTS)
    joined: list[Span] = []
    held = 0
    for span in spans:
        if joined and held < size and joined[-1].side == span.side:
            joined[-1] = joined[-1]._replace(end=span.end)
            held += 1
        else:
            joined.append(span)
            held = 1
    return joined


def sides_of(text: Text) -> tuple[str, ...]:
    """A text by itself, or both of a pair."""
    return text if isinstance(text, tuple) else (text,)


def sentence_spans(text: Text) -> list[Span]:
    """The sentences that are left out of a text, or a pair."""
    return join_neighbours([
        Span(side, *span)
        for side, part in enumerate(sides_of(text))
        for span in split_sentences(part)
    ])  # fmt: skip


def word_spans(text: Text, sentence: Span) -> list[Span]:
    """The words that are left out of a sentence."""
    part = sides_of(text)[sentence.side]
    words = split_words(part, sentence.start, sentence.end)
    return join_neighbours([Span(sentence.side, *word) for word in words])


def leave_out(text: Text, span: Span) -> Text:
    """A text, or a pair, without a part."""
    parts = list(sides_of(text))
    part = parts[span.side]
    parts[span.side] = part[: span.start] + part[span.end :]
    return (parts[0], parts[1]) if isinstance(text, tuple) else parts[0]


def most_asked(text: Text) -> int:
    """How many answers an explanation of a text takes at most."""
    sentences = sentence_spans(text)
    words = sorted(len(word_spans(text, sentence)) for sentence in sentences)
    return 1 + len(sentences) + sum(words[-STRONGEST:])


# ---- what they weigh -------------------------------------------------------------------------


def ask(predictor: Predictor, texts: Sequence[Text]) -> Tensor:
    """(N, C) logits of texts, any number of them; zeros, which say nothing, where nothing is left
    of one."""
    logits = torch.zeros(len(texts), len(predictor.label_names) or 1)
    usable = [i for i, text in enumerate(texts) if predictor.fault(text) is None]

    def fill(places: list[int]) -> None:
        try:
            logits[places] = predictor.logits([texts[i] for i in places])
        except ValueError:  # no token is left of one
            if len(places) > 1:
                for place in places:
                    fill([place])

    for start in range(0, len(usable), CHUNK):
        fill(usable[start : start + CHUNK])
    return logits


def evidence(decision: Decision, logits: Tensor, labels: Sequence[int]) -> list[float]:
    """Of each of N texts the log-odds of its label, or the number in its unit, from logits (N, C)
    and the N labels."""
    if decision.kind == "regression":
        return decision.target.restore(logits).squeeze(-1).tolist()
    odds = logits.double() / decision.temperature  # (N, C), of several labels those already
    if decision.kind == "single":
        odds = logits_of_classes(odds)
    return odds[torch.arange(len(odds)), list(labels)].tolist()


def weigh(
    predictor: Predictor, texts: Sequence[Text], labels: Sequence[int], spans: Sequence[list[Span]],
    whole: Sequence[float],
) -> list[list[float]]:  # fmt: skip
    """What each of the `spans` of each text weighs; `whole` is the evidence of the whole texts."""
    owners = [i for i, part in enumerate(spans) for _ in part]
    variants = [leave_out(texts[i], span) for i, part in enumerate(spans) for span in part]
    own = [labels[owner] for owner in owners]
    left = evidence(predictor.decision, ask(predictor, variants), own)
    weights: list[list[float]] = [[] for _ in texts]
    for owner, rest in zip(owners, left, strict=True):
        weights[owner].append(whole[owner] - rest)
    return weights


def explain_texts(
    predictor: Predictor, texts: Sequence[Text], labels: Sequence[str | None]
) -> list[list[Piece]]:
    """For each text, or pair, what its label rests on: the words of its two strongest sentences,
    then the sentences, the heaviest of each first. Of a label None the answer is explained; for
    several labels the likeliest. Deterministic; at most 1 + 64 + 2 * 64 answers a text.

    Raises ValueError for a text that the run cannot answer, and a label that it has not.
    """
    pieces: list[list[Piece]] = []
    for start in range(0, len(texts), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        pieces += explain_few(predictor, texts[part], labels[part])
    return pieces


def explain_few(
    predictor: Predictor, texts: Sequence[Text], labels: Sequence[str | None]
) -> list[list[Piece]]:
    """explain_texts() of a few, all of whose parts are asked for together."""
    for place, text in enumerate(texts):
        if (fault := predictor.fault(text)) is not None:
            raise ValueError(f"item {place}: {fault}")
    logits = ask(predictor, texts)
    chosen = [choose_label(predictor, *pair) for pair in zip(logits, labels, strict=True)]
    whole = evidence(predictor.decision, logits, chosen)
    sentences = [sentence_spans(text) for text in texts]
    several = [own if len(own) > 1 else [] for own in sentences]  # one alone leaves nothing
    heavy = weigh(predictor, texts, chosen, several, whole)
    words: list[list[Span]] = []
    for text, own, weights in zip(texts, sentences, heavy, strict=True):
        order = sorted(range(len(weights)), key=lambda i: -strength(predictor, weights[i]))
        strongest = [own[i] for i in order[:STRONGEST]] if weights else own
        words.append([word for span in strongest for word in word_spans(text, span)])
    light = weigh(predictor, texts, chosen, words, whole)
    return [
        [
            *make_pieces(predictor, text, words[i], light[i], "word"),
            *make_pieces(predictor, text, several[i], heavy[i], "sentence"),
        ]
        for i, text in enumerate(texts)
    ]


def choose_label(predictor: Predictor, logits: Tensor, label: str | None) -> int:
    """The number of the label that is explained. logits (C,)."""
    if label is None:
        if predictor.decision.kind == "single":
            return int(predictor.decision.answers(logits[None]).item())
        return int(logits.argmax())
    if label not in predictor.label_names:
        known = ", ".join(predictor.label_names) or "none, but a number"
        raise ValueError(f"there is no label {label!r} to explain; there are {known}")
    return predictor.label_names.index(label)


def strength(predictor: Predictor, weight: float) -> float:
    """By what parts are ordered: what speaks for a label; of a number what moves it most."""
    return abs(weight) if predictor.decision.kind == "regression" else weight


def make_pieces(
    predictor: Predictor, text: Text, spans: Sequence[Span], weights: Sequence[float], unit: str
) -> list[Piece]:
    """The pieces of a text, the heaviest first."""
    sides = sides_of(text)
    pieces = [
        Piece(sides[side][start:end], start, end, weight, unit, side)
        for (side, start, end), weight in zip(spans, weights, strict=True)
    ]
    return sorted(pieces, key=lambda piece: -strength(predictor, piece.weight))
