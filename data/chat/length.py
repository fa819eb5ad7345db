"""What becomes of a conversation that is longer than a row: nothing is cut unless data.overlong
says how.

    left, right   tokens are cut off at the beginning, at the end
    drop          the whole conversation is left out
    split         cut between turns: each piece begins with the system's message, where there is
                  one, and with the user's turn. Plain text is cut every max_length tokens.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import chain
from typing import Literal

from data.chat.render import Learn, Masked
from data.chat.turns import TEXT, Message

Overlong = Literal["left", "right", "drop", "split"]


def cut(masked: Masked, max_length: int, side: Literal["left", "right"]) -> Masked:
    """The last max_length tokens ("left" is cut), or the first ones."""
    kept = slice(-max_length, None) if side == "left" else slice(max_length)
    return Masked(masked.ids[kept], masked.learned[kept])


def targets(masked: Masked) -> int:
    """Tokens that are learned: the first of a row has nothing before it to be told from."""
    return int(masked.learned[1:].sum())


def exchanges(messages: list[Message]) -> tuple[list[Message], list[list[Message]]]:
    """The system's message, if there is one, and the exchanges: each begins with the user's turn
    and holds all up to the next one."""
    head = messages[:1] if messages[0]["role"] == "system" else []
    parts: list[list[Message]] = []
    for message in messages[len(head) :]:
        if message["role"] == "user" or not parts:
            parts.append([])
        parts[-1].append(message)
    return head, parts


def split_turns(
    messages: list[Message], fits: Callable[[list[Message]], bool]
) -> tuple[list[list[Message]], list[list[Message]]]:
    """A conversation in pieces that fit, each with as many exchanges as do; and the exchanges that
    do not fit alone, and are in none. All begin with the system's message, where there is one."""
    head, parts = exchanges(messages)
    pieces: list[list[Message]] = []
    alone: list[list[Message]] = []
    start = 0
    while start < len(parts):
        low, high = start, len(parts)  # parts[start:low] fits, or is empty
        step = 1
        while low < high:  # a gallop, then a bisection: few of many are tried
            middle = min(low + step, high)
            if fits([*head, *chain(*parts[start:middle])]):
                low, step = middle, 2 * step
            else:
                high, step = middle - 1, max(1, (middle - 1 - low + 1) // 2)
        if low == start:
            alone.append([*head, *parts[start]])
            start += 1
            continue
        pieces.append([*head, *chain(*parts[start:low])])
        start = low
    return pieces, alone


def split_text(masked: Masked, max_length: int) -> list[Masked]:
    """Plain text in pieces of max_length tokens, the last one shorter."""
    return [
        Masked(masked.ids[at : at + max_length], masked.learned[at : at + max_length])
        for at in range(0, len(masked.ids), max_length)
    ]


def is_text(messages: list[Message]) -> bool:
    """Whether this is plain text, and no conversation."""
    return messages[0]["role"] == TEXT


@dataclass
class Excess:
    """What is too long, and what each choice would make of it: counted where none was made."""

    rows: int = 0
    tokens: int = 0  # of these rows
    over: int = 0  # tokens beyond max_length
    lost: dict[str, int] = field(default_factory=lambda: {"left": 0, "right": 0})

    def note(self, masked: Masked, max_length: int) -> None:
        """Count a conversation that is too long."""
        self.rows += 1
        self.tokens += len(masked.ids)
        self.over += len(masked.ids) - max_length
        for side in ("left", "right"):
            had = targets(masked)
            self.lost[side] += had > 0 and not targets(cut(masked, max_length, side))

    def check(self, max_length: int, rows: int, split: str, learn: Learn) -> None:
        """Raise ValueError, with the choices, where anything is too long."""
        if not self.rows:
            return
        between = (
            '\n  "split"  cuts them between turns, and leaves out exchanges that are too long alone'
        )
        raise ValueError(
            f"data.overlong: {self.rows:,} of {rows:,} conversations of {split} are longer than "
            f"data.max_length = {max_length:,} tokens, by {self.over:,} tokens together; say what "
            "becomes of them:\n"
            f'  "left"   cuts {self.over:,} tokens at their beginnings; {self.lost["left"]:,} rows '
            "keep nothing that is learned\n"
            f'  "right"  cuts {self.over:,} tokens at their ends; {self.lost["right"]:,} rows keep '
            "nothing that is learned\n"
            f'  "drop"   leaves out {self.rows:,} rows, {self.tokens:,} tokens'
            + between
            * (learn != "last")
        )
