"""A conversation as people look at it: what is learned of it, what is given, what is cut off."""

from dataclasses import dataclass
from typing import Literal

from transformers import PreTrainedTokenizerBase

from data.chat.counts import ChatCounts
from data.chat.encode import ChatEncoding, fit, shift_labels
from data.chat.length import targets
from data.chat.render import Masked, Renderer
from data.chat.templates import choose_template
from data.chat.turns import Message
from data.reading.rows import BadRow

State = Literal["learned", "given", "cut"]


@dataclass(frozen=True)
class Shown:
    """One row that a conversation becomes. `pieces`: its text in order, with what becomes of each
    piece; `ids` and `labels` as they are trained on."""

    pieces: tuple[tuple[str, State], ...]
    ids: tuple[int, ...]
    labels: tuple[int, ...]
    learned: int  # tokens


def show_chat(
    messages: list[Message],
    address: str,
    tokenizer: PreTrainedTokenizerBase,
    encoding: ChatEncoding,
) -> tuple[list[Shown], str]:
    """The rows that a conversation becomes, and what to say of the rest of it ("" where nothing is
    lost). A conversation that gives no row has one row all the same, none of it learned, where it
    can be written at all. Changes nothing; raises ValueError as `encode_chats` does for a template.
    """
    renderer = Renderer(tokenizer, choose_template(tokenizer, encoding.template), encoding.learn)
    (masked,) = renderer.mask([messages], [address])
    if isinstance(masked, BadRow):
        return [], f"gives no row: {masked.message}"
    size, most = len(masked.ids), encoding.max_length
    if size <= most:
        lost = "" if targets(masked) else "no token of it is learned"
        return [_shown(tokenizer, masked, 0, size)], lost
    over = f"{size:,} tokens, {size - most:,} more than data.max_length"
    if encoding.overlong is None:
        return [_shown(tokenizer, masked, 0, size)], f"{over}; data.overlong is not set"
    counts = ChatCounts()
    rows = fit(masked, messages, address, renderer, encoding, counts)
    if encoding.overlong in ("left", "right"):
        start = size - most if encoding.overlong == "left" else 0
        end = "; the whole answer is lost" if counts.lost else ""
        return [_shown(tokenizer, masked, start, start + most)], over + end
    if not rows:
        return [_shown(tokenizer, masked, 0, 0)], f"{over}; left out"
    lost = "".join(f"; {line}" for line in counts.exchange_lines())
    shown = [_shown(tokenizer, row, 0, len(row.ids)) for row in rows]
    return shown, f"{over}; cut between turns into {len(rows)} rows{lost}"


def _shown(tokenizer: PreTrainedTokenizerBase, masked: Masked, start: int, end: int) -> Shown:
    """Of a conversation's tokens those from start to end; the others are cut off."""
    states: list[State] = ["cut"] * len(masked.ids)
    for i in range(start, end):
        states[i] = "learned" if masked.learned[i] and i > start else "given"
    pieces: list[tuple[str, State]] = []
    begin = 0
    for i in range(1, len(states) + 1):
        if i == len(states) or states[i] != states[begin]:
            pieces.append((str(tokenizer.decode(masked.ids[begin:i].tolist())), states[begin]))
            begin = i
    kept = Masked(masked.ids[start:end], masked.learned[start:end])
    return Shown(
        tuple(pieces), tuple(kept.ids.tolist()), tuple(shift_labels(kept).tolist()), targets(kept)
    )
