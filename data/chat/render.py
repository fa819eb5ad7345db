"""A conversation as tokens, and which of them are learned.

    spans   where each learned reply begins and ends in the text that the template writes: from what
            it writes of the messages before (with what makes the assistant answer) to what it
            writes of those up to the reply. Both have to begin the whole text, letter by letter.
    tokens  of the whole text. The tokens of the part before a reply have to begin those of the
            whole, token by token: else training would see another prompt than generation does.

A template with {% generation %} says itself what the assistant says; that is used, and compared.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Literal

import numpy as np
from transformers import PreTrainedTokenizerBase

from data.chat.shapes import Shapes
from data.chat.templates import SIGNS, Template, Unrenderable, render
from data.chat.turns import TEXT, Message
from data.reading.rows import BadRow

Learn = Literal["replies", "all", "last"]
Span = tuple[int, int]
A_SIGN = re.compile(f"([{SIGNS}])")
AROUND = 30  # characters shown on each side of a place
AT_ONCE = 32  # beginnings of a conversation tokenised together: all of them would be quadratic


@dataclass(frozen=True)
class Masked:
    """Token ids (T,) of a conversation, and learned (T,) bool: which of them are targets."""

    ids: np.ndarray
    learned: np.ndarray


def special_tokens(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """The special tokens of the tokenizer: in a text one would end a reply, or begin a turn."""
    names = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    return sorted(filter(str.strip, names | set(tokenizer.all_special_tokens)))


def first_special(text: str, names: Sequence[str]) -> str | None:
    """One of the special tokens that the text says, the longest; None where it says none."""
    return max((name for name in names if name in text), key=len, default=None)


@dataclass(frozen=True)
class Renderer:
    """How conversations become tokens. `learn`: the "replies" of the assistant, the "last" of them,
    or "all" tokens; of plain text all are learned whatever it says."""

    tokenizer: PreTrainedTokenizerBase
    template: Template
    learn: Learn = "replies"

    def mask(
        self, chats: Sequence[list[Message]], addresses: Sequence[str]
    ) -> list[Masked | BadRow]:
        """The tokens of conversations and their masks, in order; a BadRow for one that the template
        refuses, that has a special token in a text, or whose reply begins inside a token. Raises
        ValueError, showing the place, for a template whose beginnings do not begin the whole."""
        rows: list[Masked | BadRow | None] = [None] * len(chats)
        spoken: list[tuple[int, str, list[Span]]] = []
        plain: list[int] = []
        for number, (messages, address) in enumerate(zip(chats, addresses, strict=True)):
            if messages[0]["role"] == TEXT:
                plain.append(number)
                continue
            try:
                spoken.append((number, *self.spans(messages, address)))
            except Unrenderable as error:
                rows[number] = BadRow(address, error.reason, str(error))
        texts = self._encode([chats[number][0]["content"] for number in plain], special=True)
        for number, ids in zip(plain, texts, strict=True):
            rows[number] = self._all_learned(ids)
        wholes = self._encode([text for _, text, _ in spoken])
        pieces = [split_text(text, spans) for _, text, spans in spoken]
        parts = iter(self._encode([piece for one in pieces for piece in one]))
        for (number, text, spans), ids, one in zip(spoken, wholes, pieces, strict=True):
            of_pieces = [next(parts) for _ in one]
            rows[number] = self._learned(ids, of_pieces, text, spans, addresses[number])
        return [row for row in rows if row is not None]

    def measure(self, messages: list[Message]) -> int | None:
        """Tokens of a conversation; None where the template refuses it."""
        try:
            return len(self._encode([self._render(messages, False)])[0])
        except Unrenderable:
            return None

    def spans(self, messages: list[Message], address: str) -> tuple[str, list[Span]]:
        """The text of a conversation and where it is learned, (start, end) characters. Raises
        Unrenderable for a conversation that the template refuses, ValueError as `mask` does."""
        for number, message in enumerate(messages, start=1):
            if name := first_special(message["content"], self._special):
                raise Unrenderable(
                    f"turn {number} says {name!r}, which the tokenizer would read as the "
                    "token of that name", "special_token",
                )  # fmt: skip
        whole = self._render(messages, False)
        if self.learn == "all":
            return whole, [(0, len(whole))]
        replies = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
        replies = replies[-1:] if self.learn == "last" else replies
        spans = self._find_spans(whole, messages, replies, address)
        learned = [(start, self._end_of_reply(whole, start, end)) for start, end in spans]
        signed = self.template.with_signs()
        if signed is None:
            return whole, learned
        marked = marked_spans(render(self.tokenizer, signed, messages, False), whole)
        marked = marked[-1:] if self.learn == "last" else marked
        for ours, full, theirs in zip(learned, spans, marked, strict=False):
            if theirs[0] != ours[0] or not ours[1] <= theirs[1] <= full[1]:
                raise ValueError(self._differs(whole, ours, theirs, address))
        if len(marked) != len(learned):
            raise ValueError(
                f"data.template ({self.template.name}) says {{% generation %}} {len(marked)} times "
                f"in {address}, which has {len(learned)} replies to learn"
            )
        return whole, marked

    def _find_spans(
        self, whole: str, messages: list[Message], replies: list[int], address: str
    ) -> list[Span]:
        """What the template adds for each of the replies, by their numbers: places in the whole.
        By the shape of the conversation where it is nothing but that; else by its beginnings."""
        shape = self._shapes.of(tuple(message["role"] for message in messages))
        if shape is not None:
            filled, spans = shape.fill([message["content"] for message in messages], replies)
            last = self._part_end(whole, messages, replies[-1], address)
            if filled == whole and last == spans[-1][0]:
                return spans
        return [
            (self._part_end(whole, messages, i, address),
             self._part_end(whole, messages, i + 1, address))
            for i in replies
        ]  # fmt: skip

    @cached_property
    def _shapes(self) -> Shapes:
        return Shapes(self.tokenizer, self.template)

    @cached_property
    def _special(self) -> list[str]:
        return special_tokens(self.tokenizer)

    @cached_property
    def _added(self) -> list:  # of tokenizers.AddedToken
        return list(self.tokenizer.added_tokens_decoder.values())

    def _render(self, messages: list[Message], ask: bool) -> str:
        return render(self.tokenizer, self.template, messages, ask)

    def _part_end(self, whole: str, messages: list[Message], upto: int, address: str) -> int:
        """The number of characters that the messages before number `upto` take of the whole: where
        that one is the assistant's, with what makes it answer."""
        if upto == len(messages):
            return len(whole)
        part = self._render(messages[:upto], messages[upto]["role"] == "assistant")
        if whole.startswith(part):
            return len(part)
        pairs = enumerate(zip(whole, part, strict=False))
        at = next((i for i, (one, other) in pairs if one != other), len(whole))
        last = ', or learn the last reply alone (data.learn = "last")' * (self.learn != "last")
        raise ValueError(
            f"data.template ({self.template.name}): what it writes of turns 1 to {upto} alone does "
            f"not begin what it writes of all {len(messages)} ({address}); they differ at "
            f"character {at:,}:\n  alone  {_around(part, at)}\n  in all {_around(whole, at)}\nso "
            "what is learned cannot be told from what is given. Give a template that writes a turn "
            f"alike whatever follows (data.template){last}"
        )

    def _end_of_reply(self, whole: str, start: int, end: int) -> int:
        """The end of what is learned of whole[start:end]: white space that the template writes
        behind the token which ends a reply is never generated."""
        bare = whole[start:end].rstrip()
        ends = any(bare.endswith(token.content) for token in self._added)
        return start + len(bare) if ends else end

    def _differs(self, whole: str, ours: Span, theirs: Span, address: str) -> str:
        return (
            f"data.template ({self.template.name}): its {{% generation %}} in {address} holds "
            f"{_ends(whole, theirs)}, and what it adds for the reply is {_ends(whole, ours)}: a "
            "model has to learn all that it writes when it answers, up to the token that ends a "
            "reply; correct the template (data.template)"
        )

    def _learned(
        self, ids: list[int], parts: list[list[int]], text: str, spans: list[Span], address: str
    ) -> Masked | BadRow:
        """The mask of a conversation's tokens. `parts` are the tokens of its pieces, each alone:
        context and reply by turns. Where they are not those of the whole, as with tokenizers that
        put a blank in front of a text, each beginning is tokenised and compared."""
        learned = np.zeros(len(ids), dtype=bool)
        if [token for part in parts for token in part] == ids:
            ends = np.cumsum([len(part) for part in parts])
        else:
            borders, sizes = [place for span in spans for place in span], list[int]()
            for border, beginning in zip(borders, self._beginnings(text, borders), strict=True):
                sizes.append(len(beginning))
                if ids[: len(beginning)] != beginning:
                    message = (
                        f"what is learned begins or ends inside a token, at "
                        f"{_around(text, border)}: what stands before has other tokens alone than "
                        "here, so generation would see another prompt than training does"
                    )
                    return BadRow(address, "inside_token", message)
            ends = np.array([*sizes, len(ids)])
        for start, end in zip(ends[:-1:2], ends[1::2], strict=True):
            learned[start:end] = True
        return Masked(np.array(ids, dtype=np.int32), learned)

    def _beginnings(self, text: str, borders: Sequence[int]) -> Iterator[list[int]]:
        """Token ids of the text up to each border."""
        for at in range(0, len(borders), AT_ONCE):
            yield from self._encode([text[:border] for border in borders[at : at + AT_ONCE]])

    def _all_learned(self, ids: list[int]) -> Masked:
        """Plain text with the tokenizer's own first token, and EOS at its end."""
        eos = self.tokenizer.eos_token_id
        if isinstance(eos, int) and ids[-1:] != [eos]:
            ids = [*ids, eos]
        return Masked(np.array(ids, dtype=np.int32), np.ones(len(ids), dtype=bool))

    def _encode(self, texts: list[str], special: bool = False) -> list[list[int]]:
        """Token ids of each text; `special`: with what the tokenizer puts around one."""
        if not self.tokenizer.is_fast:
            return [self.tokenizer.encode(text, add_special_tokens=special) for text in texts]
        backend = self.tokenizer.backend_tokenizer
        backend.no_padding()
        backend.no_truncation()
        return [one.ids for one in backend.encode_batch_fast(texts, add_special_tokens=special)]


def split_text(text: str, spans: Sequence[Span]) -> list[str]:
    """The text in pieces: before the first span, the span, between it and the next, …"""
    places = [0, *(place for span in spans for place in span), len(text)]
    return [text[start:end] for start, end in pairwise(places)]


def marked_spans(signed: str, whole: str) -> list[Span]:
    """Where the SIGNS stand, as places of the text without them; neighbours are one. Raises
    Unrenderable where that is not `whole`: a turn holds such a sign."""
    spans: list[Span] = []
    parts = A_SIGN.split(signed)
    at = start = 0
    for part in parts:
        if part == SIGNS[0]:
            start = at
        elif part == SIGNS[1]:
            if spans and spans[-1][1] == start:
                start = spans.pop()[0]
            spans.append((start, at))
        else:
            at += len(part)
    if "".join(part for part in parts if part not in SIGNS) != whole:
        raise Unrenderable(f"a turn holds {SIGNS[0]!r} or {SIGNS[1]!r}", "special_token")
    return spans


def _around(text: str, at: int) -> str:
    """A place of a text, with what stands on both sides of it."""
    before, behind = text[max(0, at - AROUND) : at], text[at : at + AROUND]
    return f"…{before!r} | {behind!r}…"


def _ends(text: str, span: Span) -> str:
    """What a span of a text holds, its ends alone."""
    inside = text[slice(*span)]
    return (
        repr(inside) if len(inside) <= 2 * AROUND else f"{inside[:AROUND]!r} … {inside[-AROUND:]!r}"
    )
