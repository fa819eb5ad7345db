"""Labelled texts that stream: what is known before step 1, and how each row is taken in."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from data.bad_rows import BadRows
from data.cache import cache_root
from data.columns import check_columns
from data.encode import encode_texts
from data.intake import Intake
from data.labels.settle import Kind, Spelling, convert_as_settled
from data.loaders import Batch, Padding, collate
from data.long import LengthArgs
from data.prepare import Data, DataArgs, check_args, file_format, load_tables, make_intake
from data.reading.rows import BadRow, Row
from data.sources import open_source
from data.splits import normalised_keys
from data.stream.cut import StreamArgs, cut_stream
from data.stream.rows import Stream, Taken
from data.summary import WORDS
from data.tables import Table, sampled_digest


@dataclass
class LabelledTaker:
    """Takes rows in as `intake` does, and turns their labels into numbers as those of the rows that
    were read before step 1. `held` are the keys of the texts of other splits."""

    intake: Intake
    kind: Kind
    index: Mapping[str, int]
    spelling: Spelling
    held: frozenset[bytes]
    on_bad_row: str
    drop_held: bool
    read: int = 0
    checked: int = 0  # bad rows that were there at the last check
    seen: int = 0  # rows in `held`

    def __post_init__(self) -> None:
        self.readers: dict[str, Any] = {}

    def needed(self) -> list[str]:
        return list(self.intake.needed())

    def take(self, row: Row | BadRow, number: int, table: Table) -> Taken | None:
        """As Taker.take: text, text_pair?, label, row, address."""
        self.read += 1
        if table.path not in self.readers:
            self.readers[table.path] = self.intake.reader_of(table)
        taken = self.intake.take(row, self.readers[table.path], table, "train", named=False)
        if taken is None:
            return None
        texts, plain, _ = taken
        try:
            label = convert_as_settled(plain, self.kind, self.index, self.spelling)
        except ValueError as error:
            column = self.intake.label[0]
            bad = BadRow(row.address, "label_outside", f"{column}: {error}", column)
            self.intake.note_bad(bad, table, "train", named=False)
            return None
        cleaned, _ = self.intake.clean_texts(texts, "train", row.address)
        if cleaned is None:
            return None
        pair = cleaned[1] if len(cleaned) == 2 else None
        if self.held and normalised_keys([(cleaned[0], pair)])[0] in self.held:
            self.seen += 1
            if self.drop_held:
                return None
        columns = {"text": cleaned[0]} | ({} if pair is None else {"text_pair": pair})
        return {**columns, "label": label, "row": number, "address": row.address}

    def check(self) -> None:
        bad = self.intake.bad
        if bad.counts.total() > self.checked:
            self.checked = bad.counts.total()
            bad.check(self.on_bad_row, {"train": self.read})
            bad.forget()

    def lines(self) -> list[str]:
        lines = bad_lines(self.intake.bad)
        lines += [f"{n:,} {WORDS[reason]}" for reason, n in self.intake.dropped.items()]
        return lines + held_line(self.seen, self.drop_held)


def held_line(seen: int, dropped: bool) -> list[str]:
    """How many rows had the text of a held-out one, if any."""
    what = "left out" if dropped else "trained on all the same"
    return [f"{seen:,} had the text of a validation or test row, {what}"] if seen else []


def bad_lines(bad: BadRows) -> list[str]:
    """How many rows were bad, a reason a line, with examples."""
    lines = [f"{n:,} bad ({WORDS[reason]})" for reason, n in bad.counts.items()]
    return lines + [f"for example {one}" for one in bad.examples[:1]]


def load_streamed(args: DataArgs, stream: StreamArgs, cache_dir: Path | None = None) -> Data:
    """The rows of a source whose training rows stream: those of the other splits whole, of the
    training rows a sample, which tells kind and names of the labels; and the stream.

    Raises ValueError for whatever is wrong with them, and for a source that would have to be read
    whole.
    """
    check_args(args)
    cache = cache_dir or cache_root()
    tables, notes = open_source(
        args.source, args.config, args.revision, args.splits, file_format(args),
        sampled_digest, stream=True,
    )  # fmt: skip
    check_columns(tables, make_intake(args).needed())
    wanted = {"validation": args.validation, "test": args.test}
    cut = cut_stream(tables, args.filter, wanted, args.split_seed, cache)
    whole = replace(args, validation=0, test=0)
    data = load_tables(whole, cut.tables, notes, cache)
    held = set[bytes]()
    for split in data.splits.keys() - {"train"}:
        rows = data.splits[split]
        pairs = rows["text_pair"] if "text_pair" in rows.column_names else [None] * len(rows)
        held.update(normalised_keys(zip(rows["text"], pairs, strict=True)))
    intake = make_intake(replace(args, labels=data.label_names or None, slices=()))
    intake.kind = data.kind
    taker = LabelledTaker(
        intake, data.kind, {name: i for i, name in enumerate(data.label_names)},
        data.spelling, frozenset(held), args.on_bad_row, args.on_overlap == "drop",
    )  # fmt: skip
    made = Stream(cut.parts, stream.buffer, stream.seed, taker, cut.identity)
    fingerprint = hashlib.sha256(f"{data.fingerprint} {cut.identity}".encode()).hexdigest()
    sample = data.splits["train"]
    texts = [name for name in ("text", "text_pair") if name in sample.column_names]
    letters = [sum(len(row[name]) for name in texts) for row in sample]
    report = cut.describe(data.report, made.rows, stream.buffer, letters)
    return replace(data, report=report, fingerprint=fingerprint, stream=made)


def streamed_batches(
    stream: Stream,
    epoch: int,
    numbers: Iterable[int],
    size: int,
    tokenizer: PreTrainedTokenizerBase,
    length: LengthArgs,
    padding: Padding,
) -> Iterator[Batch]:
    """The micro-batches of these numbers of an epoch, as train_batches (loaders.py) makes them.
    `tokenizer` is used by whichever thread asks for them, and by no other."""

    def encode(rows: list[Taken]) -> list[Taken]:
        texts = [row["text"] for row in rows]
        pairs = [row["text_pair"] for row in rows] if "text_pair" in rows[0] else None
        encoded = encode_texts(tokenizer, texts, pairs, length)
        return [
            {**tokens, "labels": row["label"], "row": row["row"]}
            for tokens, row in zip(encoded, rows, strict=True)
        ]

    return (collate(rows, padding) for rows in stream.micro_batches(epoch, numbers, size, encode))
