"""Conversations that stream: what is known before step 1, and how each is taken in and encoded."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from data.cache import cache_root
from data.chat.batches import collate_chats
from data.chat.counts import ChatCounts
from data.chat.encode import ChatEncoding, make_rows, shift_labels
from data.chat.intake import ChatIntake, conversation_keys
from data.chat.length import Excess, targets
from data.chat.prepare import (
    ChatArgs,
    Chats,
    chat_format,
    check_args,
    load_chat_tables,
    make_intake,
)
from data.chat.render import Renderer
from data.chat.templates import choose_template
from data.chat.turns import TEXT
from data.columns import check_columns
from data.loaders import Batch, Padding
from data.reading.rows import BadRow, Row
from data.sources import open_source
from data.stream.cut import StreamArgs, cut_stream
from data.stream.labelled import bad_lines, held_line
from data.stream.rows import Stream, Taken
from data.tables import Table, sampled_digest


@dataclass
class ChatTaker:
    """Takes conversations in as `intake` does. `held` are the keys of those of other splits. What
    became of those that were encoded is in `counts`."""

    intake: ChatIntake
    held: frozenset[bytes]
    on_bad_row: str
    drop_held: bool
    counts: ChatCounts
    read: int = 0
    checked: int = 0  # bad rows that were there at the last check
    seen: int = 0  # rows in `held`

    def needed(self) -> list[str]:
        return list(self.intake.needed())

    def take(self, row: Row | BadRow, number: int, table: Table) -> Taken | None:
        """As Taker.take: messages, row, address."""
        self.read += 1
        messages = self.intake.take(row, table, "train")
        if messages is None:
            return None
        text = messages[0]["role"] == TEXT
        self.intake.texts += text
        self.intake.first.setdefault(text, row.address)
        if self.held and conversation_keys(messages)[1] in self.held:
            self.seen += 1
            if self.drop_held:
                return None
        return {"messages": messages, "row": number, "address": row.address}

    def check(self) -> None:
        self.intake.check_kind()
        bad = self.intake.bad
        if bad.counts.total() > self.checked:
            self.checked = bad.counts.total()
            bad.check(self.on_bad_row, {"train": self.read})
            bad.forget()

    def lines(self) -> list[str]:
        lines = bad_lines(self.intake.bad) + held_line(self.seen, self.drop_held)
        return lines + (self.counts.lines() if self.counts.read else [])


def load_streamed_chats(args: ChatArgs, stream: StreamArgs, cache_dir: Path | None = None) -> Chats:
    """As load_streamed (labelled.py) of labelled texts. Raises ValueError as it does."""
    check_args(args)
    cache = cache_dir or cache_root()
    tables, notes = open_source(
        args.source, args.config, args.revision, args.splits, chat_format(args),
        sampled_digest, stream=True,
    )  # fmt: skip
    check_columns(tables, make_intake(args).needed())
    wanted = {"validation": args.validation, "test": args.test}
    cut = cut_stream(tables, args.filter, wanted, args.split_seed, cache)
    chats = load_chat_tables(replace(args, validation=0, test=0), cut.tables, notes, cache)
    held = frozenset(
        conversation_keys(row["messages"])[1]
        for split in chats.splits.keys() - {"train"}
        for row in chats.splits[split]
    )
    intake = make_intake(args)
    first = chats.splits["train"][0]
    intake.first[first["messages"][0]["role"] == TEXT] = first["address"]
    taker = ChatTaker(intake, held, args.on_bad_row, args.on_overlap == "drop", ChatCounts())
    made = Stream(cut.parts, stream.buffer, stream.seed, taker, cut.identity)
    fingerprint = hashlib.sha256(f"{chats.fingerprint} {cut.identity}".encode()).hexdigest()
    letters = [
        sum(len(turn["content"]) for turn in row["messages"]) for row in chats.splits["train"]
    ]
    report = cut.describe(chats.report, made.rows, stream.buffer, letters)
    return replace(chats, report=report, fingerprint=fingerprint, stream=made)


def streamed_chats(
    stream: Stream,
    epoch: int,
    numbers: Iterable[int],
    size: int,
    tokenizer: PreTrainedTokenizerBase,
    encoding: ChatEncoding,
    padding: Padding,
) -> Iterator[Batch]:
    """The micro-batches of these numbers of an epoch, as train_batches (loaders.py) makes them of
    conversations. `tokenizer` is used by whichever thread asks for them, and by no other."""
    taker = stream.taker
    assert isinstance(taker, ChatTaker)
    renderer = Renderer(tokenizer, choose_template(tokenizer, encoding.template), encoding.learn)
    counts, excess = taker.counts, Excess()

    def encode(chats: list[Taken]) -> list[Any]:
        messages = [chat["messages"] for chat in chats]
        addresses = [chat["address"] for chat in chats]
        counts.read += len(chats)
        made: list[Any] = []
        for masked, chat in zip(renderer.mask(messages, addresses), chats, strict=True):
            pieces = make_rows(
                masked, chat["messages"], chat["address"], renderer, encoding, counts, excess
            )
            made.append(None)
            for piece in pieces:  # one: a stream is not split
                counts.note_row(len(piece.ids), targets(piece))
                labels = shift_labels(piece)
                made[-1] = {"input_ids": piece.ids, "labels": labels, "row": chat["row"]}
        excess.check(encoding.max_length, counts.read, "train", encoding.learn)
        if counts.bad:
            counts.rows = max(1, counts.rows)  # others may give one
            counts.check(encoding.on_bad_row, "train")
        return made

    return (
        collate_chats(rows, padding) for rows in stream.micro_batches(epoch, numbers, size, encode)
    )
