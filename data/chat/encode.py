"""Conversations become token ids and labels, once and cached: not padded, of at most max_length.

Labels are shifted here and nowhere else: labels[t] is the token that follows position t, or
IGNORED.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any, Literal

import datasets
import numpy as np
import pyarrow as pa
from transformers import PreTrainedTokenizerBase

from data.cache import make_key, open_built, read_arrow, write_arrow
from data.chat.counts import ChatCounts
from data.chat.length import (
    Excess,
    Overlong,
    cut,
    exchanges,
    is_text,
    split_text,
    split_turns,
    targets,
)
from data.chat.render import Learn, Masked, Renderer
from data.chat.templates import choose_template
from data.chat.turns import Message
from data.choices import wrong_choices
from data.encode import Encoded, tokenizer_digest
from data.reading.rows import BadRow
from files.read import read_json

CHUNK = 500  # conversations given to the tokenizer at a time
IGNORED = -100  # the label of a position whose next token is not learned
IDS = pa.list_(pa.int32())
SCHEMA = pa.schema(
    [("input_ids", IDS), ("labels", IDS), ("row", pa.int64()), ("length", pa.int32()),
     ("full_length", pa.int32())]
)  # fmt: skip


@dataclass(frozen=True)
class ChatEncoding:
    """How conversations become rows; the names are those of the section [data] of a config.
    `overlong` has no default: without it, a conversation longer than `max_length` tokens is an
    error that says what each choice would do."""

    max_length: int
    overlong: Overlong | None = None
    learn: Learn = "replies"
    template: str | None = None  # "plain", a file, or the text of one; None: the model's own
    on_bad_row: Literal["error", "skip"] = "error"


def encode_chats(
    rows: datasets.Dataset,
    tokenizer: PreTrainedTokenizerBase,
    encoding: ChatEncoding,
    cache_dir: Path | None,
    fingerprint: str,
    split: str = "train",
) -> tuple[Encoded, ChatCounts]:
    """Encode a split with the columns messages, row and address: the columns of SCHEMA, full_length
    being the tokens of the whole conversation; and what became of the rest.

    `fingerprint` is that of the data; with the rows, the tokenizer's bytes, the template, the
    options and this package's code it makes the key under `cache_dir`. Without a `cache_dir` the
    result is held in memory. `split` is what errors call it. Raises ValueError where no choice is
    made for what is too long, for a template that cannot be masked, and RefusedError for
    conversations that give no row, unless they are skipped.
    """
    check_encoding(encoding)
    template = choose_template(tokenizer, encoding.template)
    renderer = Renderer(tokenizer, template, encoding.learn)
    counts = ChatCounts()
    key = make_key(
        tokenizer=tokenizer_digest(tokenizer),
        special=tokenizer.special_tokens_map,
        template=template.text,
        day=str(date.today()) if "strftime_now" in template.text else None,  # Llama-3 writes it
        encoding=asdict(encoding),
        fingerprint=fingerprint,
        rows=hashlib.sha256(np.array(rows["row"], dtype=np.int64).tobytes()).hexdigest(),
    )
    batches = _batches(rows, renderer, encoding, counts, split)
    if cache_dir is None:
        table = pa.Table.from_batches(list(batches), schema=SCHEMA)
        return _encoded(datasets.Dataset(table), key, False, counts), counts
    folder = cache_dir / "encoded" / key[:32]

    def write(made: Path) -> None:
        write_arrow(made / "rows.arrow", SCHEMA, batches)
        (made / "counts.json").write_text(json.dumps(counts.as_dict()), encoding="utf-8")

    hit = open_built(folder, write)
    counts = ChatCounts(**read_json(folder / "counts.json", counts.as_dict()))
    return _encoded(read_arrow(folder / "rows.arrow"), key, hit, counts), counts


def check_encoding(encoding: ChatEncoding) -> None:
    """Raise ValueError for a setting that is none of the choices, or that another one denies."""
    choices: dict[str, Sequence[Any]] = {
        "overlong": (None, "left", "right", "drop", "split"),
        "learn": ("replies", "all", "last"),
        "on_bad_row": ("error", "skip"),
    }
    errors = wrong_choices(encoding, choices)
    if encoding.max_length < 2:
        errors.append(f"data.max_length: got {encoding.max_length}, expected 2 tokens or more")
    if encoding.overlong == "split" and encoding.learn == "last":
        errors.append(
            'data.overlong: got "split" with data.learn = "last", and a conversation that is cut '
            'between turns has its last reply in one piece alone; expected "left", "right" or '
            '"drop"'
        )
    if errors:
        raise ValueError("\n".join(errors))


def _encoded(dataset: datasets.Dataset, key: str, hit: bool, counts: ChatCounts) -> Encoded:
    return Encoded(
        dataset, key, hit, counts.rows, counts.overlong, counts.tokens, counts.cut_tokens
    )


def _batches(
    rows: datasets.Dataset,
    renderer: Renderer,
    encoding: ChatEncoding,
    counts: ChatCounts,
    split: str,
) -> Iterator[pa.RecordBatch]:
    """The encoded rows, those of CHUNK conversations at a time; what is counted grows in `counts`,
    and is checked at the end."""
    excess = Excess()
    for chunk in rows.iter(batch_size=CHUNK):
        chats, addresses = chunk["messages"], chunk["address"]
        columns: dict[str, list[Any]] = {name: [] for name in SCHEMA.names}
        counts.read += len(chats)
        for masked, messages, row, address in zip(
            renderer.mask(chats, addresses), chats, chunk["row"], addresses, strict=True
        ):
            pieces = make_rows(masked, messages, address, renderer, encoding, counts, excess)
            for piece in pieces:
                assert isinstance(masked, Masked)
                _append(columns, piece, row, len(masked.ids), counts)
        yield pa.RecordBatch.from_pydict(columns, schema=SCHEMA)
    excess.check(encoding.max_length, counts.read, split, encoding.learn)
    counts.check(encoding.on_bad_row, split)


def make_rows(
    masked: Masked | BadRow,
    messages: list[Message],
    address: str,
    renderer: Renderer,
    encoding: ChatEncoding,
    counts: ChatCounts,
    excess: Excess,
) -> list[Masked]:
    """The rows that a conversation becomes; where it gives none, or is too long and nothing says
    what becomes of it, it is noted in `counts` or `excess`."""
    if isinstance(masked, BadRow):
        counts.note_bad(masked)
        return []
    if not targets(masked):
        counts.note_bad(BadRow(address, "nothing_learned", "no token of it is learned"))
        return []
    counts.whole_tokens += len(masked.ids)
    if len(masked.ids) <= encoding.max_length:
        return [masked]
    counts.overlong += 1
    if encoding.overlong is None:
        excess.note(masked, encoding.max_length)
        return []
    return fit(masked, messages, address, renderer, encoding, counts)


def _append(
    columns: dict[str, list[Any]], masked: Masked, row: int, full_length: int, counts: ChatCounts
) -> None:
    """Add a row to the columns, and count it."""
    counts.note_row(len(masked.ids), targets(masked))
    values = (masked.ids, shift_labels(masked), row, len(masked.ids), full_length)
    for column, value in zip(columns.values(), values, strict=True):
        column.append(value)


def shift_labels(masked: Masked) -> np.ndarray:
    """labels (T,): the token that follows each position where it is learned, else IGNORED; the last
    has none."""
    labels = np.full(len(masked.ids), IGNORED, dtype=np.int32)
    labels[:-1][masked.learned[1:]] = masked.ids[1:][masked.learned[1:]]
    return labels


def fit(
    masked: Masked,
    messages: list[Message],
    address: str,
    renderer: Renderer,
    encoding: ChatEncoding,
    counts: ChatCounts,
) -> list[Masked]:
    """The rows that a conversation longer than max_length becomes, counted."""
    size, most = len(masked.ids), encoding.max_length
    if encoding.overlong in ("left", "right"):
        kept = cut(masked, most, encoding.overlong)
        counts.cut_tokens += size - most
        if targets(kept):
            counts.unseen_tokens += size - most
            return [kept]
        counts.unseen_tokens += size
        counts.lost += 1
        counts.note_bad(BadRow(address, "answer_cut", (
            f"{size:,} tokens, and the {most:,} that data.overlong = {encoding.overlong!r} keeps "
            "hold no answer"
        )))  # fmt: skip
        return []
    pieces: list[Masked] = []
    if encoding.overlong == "split" and is_text(messages):
        pieces = [piece for piece in split_text(masked, most) if targets(piece)]
        short = size - sum(len(piece.ids) for piece in pieces)  # one token has none before it
        counts.cut_tokens += short
        counts.unseen_tokens += short
    elif encoding.overlong == "split":
        pieces = _split(messages, size, address, renderer, most, counts)
    if not pieces:
        counts.dropped += 1
        counts.dropped_tokens += size
        counts.unseen_tokens += size
        return []
    counts.split += 1
    counts.pieces += len(pieces)
    return pieces


def _split(
    messages: list[Message],
    size: int,
    address: str,
    renderer: Renderer,
    most: int,
    counts: ChatCounts,
) -> list[Masked]:
    """The rows of a conversation of `size` tokens that is cut between turns; what gives none is
    counted."""

    def fits(part: list[Message]) -> bool:
        tokens = renderer.measure(part)
        return tokens is not None and tokens <= most

    parts, alone = split_turns(messages, fits)
    for part in alone:
        refused = renderer.measure(part) is None
        counts.leave_out("template_refuses" if refused else "too_long", 1)
    rows, answered, seen = [], [], []
    for part in parts:
        if any(message["role"] == "assistant" for message in part):
            answered.append(part)
        else:
            counts.leave_out("no_reply", len(exchanges(part)[1]))
    made = renderer.mask(answered, [address] * len(answered)) if answered else []
    for part, masked in zip(answered, made, strict=True):
        if isinstance(masked, BadRow):
            counts.leave_out(masked.reason, len(exchanges(part)[1]))
        elif not targets(masked):
            counts.leave_out("nothing_learned", len(exchanges(part)[1]))
        else:
            rows.append(masked)
            seen.append(part)
    if seen and len(seen) < len(parts) + len(alone):
        head, _ = exchanges(messages)
        rest = renderer.measure([*head, *(m for part in seen for m in part[len(head) :])])
        rest = sum(len(masked.ids) for masked in rows) if rest is None else rest
        counts.unseen_tokens += max(0, size - rest)
    return rows
