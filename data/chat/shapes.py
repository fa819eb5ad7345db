"""What a template writes around the texts of a conversation, worked out once for each sequence of
roles.

Where each beginning of a conversation ends has to be asked of the template: n turns make n
renderings, each of up to n turns. What it writes depends on who speaks in which order, and hardly
ever on what is said. So the beginnings are compared for texts that only stand for others; a real
conversation is rendered once, and has to be those words around its own texts, letter by letter.

Of a beginning its length and a hash are kept, never its text: those of n turns are n texts of up to
n turns.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain

from transformers import PreTrainedTokenizerBase

from data.chat.templates import Template, Unrenderable, render

Span = tuple[int, int]
STAND_IN = "\uf8f2{}\uf8f3"  # of private use: no template looks for it
STOOD_IN = re.compile("\uf8f2([0-9]+)\uf8f3")


@dataclass(frozen=True)
class Shape:
    """`around` (n + 1): what is written before, between and behind the n texts. By the number of
    each turn of the assistant, `starts`: how much of what stands before its text is written without
    it, to make it answer; `ends`: how much of what stands behind belongs to the turn."""

    around: tuple[str, ...]
    starts: dict[int, int]
    ends: dict[int, int]

    def fill(self, texts: Sequence[str], turns: Sequence[int]) -> tuple[str, list[Span]]:
        """The conversation with these texts, and where what it adds for each of `turns` stands."""
        parts = [*chain(*zip(self.around, texts, strict=False)), self.around[-1]]
        places, at = [], 0  # of each part
        for part in parts:
            places.append(at)
            at += len(part)
        spans = [(places[2 * i] + self.starts[i], places[2 * i + 2] + self.ends[i]) for i in turns]
        return "".join(parts), spans


@dataclass(frozen=True)
class Beginning:
    """What stands for a text that has to begin another one: its characters and their hash."""

    length: int
    digest: bytes

    def begins(self, whole: str) -> bool:
        """Whether `whole` begins with that text."""
        return self.digest == _digest(whole[: self.length])


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


@dataclass
class Shapes:
    """The shapes of a template, as they are met. `begun`: the beginnings of all of them, by the
    hash of their roles and whether the assistant is asked to go on."""

    tokenizer: PreTrainedTokenizerBase
    template: Template
    known: dict[tuple[str, ...], Shape | None] = field(default_factory=dict)
    begun: dict[tuple[bytes, bool], Beginning] = field(default_factory=dict)

    def of(self, roles: tuple[str, ...]) -> Shape | None:
        """The shape of conversations with these roles; None where the beginnings do not begin the
        whole, where the texts do not stand in it one after the other, or where the template refuses
        them: the conversation itself shows why."""
        if roles not in self.known:
            try:
                self.known[roles] = self._find(roles)
            except Unrenderable:
                self.known[roles] = None
        return self.known[roles]

    def _find(self, roles: tuple[str, ...]) -> Shape | None:
        whole = self._render(roles, False)
        parts = STOOD_IN.split(whole)  # around, number, around, number, …, around
        if parts[1::2] != [str(i) for i in range(len(roles))]:
            return None
        around = tuple(parts[::2])
        places, at = [], 0  # where each part of `around` begins
        for i, part in enumerate(around):
            places.append(at)
            at += len(part) + len(STAND_IN.format(i))
        starts, ends = {}, {}
        for i, role in enumerate(roles):
            if role != "assistant":
                continue
            before, upto = self._begin(roles[:i], True), self._begin(roles[: i + 1], False)
            starts[i], ends[i] = before.length - places[i], upto.length - places[i + 1]
            inside = 0 <= starts[i] <= len(around[i]) and 0 <= ends[i] <= len(around[i + 1])
            if not (inside and before.begins(whole) and upto.begins(whole)):
                return None
        return Shape(around, starts, ends)

    def _begin(self, roles: tuple[str, ...], ask: bool) -> Beginning:
        key = _digest("\0".join(roles)), ask
        if key not in self.begun:
            text = self._render(roles, ask)
            self.begun[key] = Beginning(len(text), _digest(text))
        return self.begun[key]

    def _render(self, roles: tuple[str, ...], ask: bool) -> str:
        messages = [{"role": role, "content": STAND_IN.format(i)} for i, role in enumerate(roles)]
        return render(self.tokenizer, self.template, messages, ask)
