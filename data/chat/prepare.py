"""`load_chats` is what others call: a source of conversations becomes train, validation and test.

    source -> tables -> intake (filter, messages, clean) -> repeats -> cut -> sample -> overlap

The result is memory-mapped Arrow in the cache, under a key as that of `load_data` (prepare.py).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import datasets
import numpy as np
import pyarrow as pa

from data.allot import Piece, allot, describe_origin, treat_overlap
from data.cache import cache_root, make_key, open_built, read_arrow, write_arrow
from data.chat.intake import SCHEMA, ChatClean, ChatIntake, describe_turns, first_places
from data.chat.messages import MessageReader
from data.chat.turns import ALTERNATE, ROLES, TurnReader
from data.choices import ROW_CHOICES, unknown_splits, wrong_choices
from data.columns import check_columns
from data.drop import check_drop_rows, read_drop_rows
from data.filters import parse_filter
from data.grouped import describe_groups
from data.reading.columnar import CHUNK
from data.reading.formats import FIRST_LINE, Format, check_format, describe_format
from data.sources import Source, open_source
from data.summary import DataReport
from data.tables import Table
from files.read import read_json

if TYPE_CHECKING:
    from data.stream.rows import Stream

KEPT = ("messages", "row", "address")  # columns of a finished split


@dataclass(frozen=True)
class ChatArgs:
    """What to read and how; the names are those of the section [data] of a config, and what stands
    in DataArgs too means the same."""

    source: Source
    config: str | None = None
    revision: str | None = None
    splits: Mapping[str, str] | None = None
    encoding: str = "utf-8"
    delimiter: str | None = None
    quoting: Literal["standard", "none"] | None = None
    escape: str | None = None
    header: str | tuple[str, ...] = FIRST_LINE
    filter: str | None = None
    messages: tuple[str, ...] = (
        "messages",
    )  # or prompt, completion; or instruction, input, output
    roles: Mapping[str, str] | Literal["alternate"] | None = None  # who is who: turns.py
    turn: Mapping[str, str] | None = None  # {"role": …, "content": …}: the fields of a turn
    clean: ChatClean = field(default_factory=ChatClean)
    on_bad_row: Literal["error", "skip"] = "error"
    on_overlap: Literal["refuse", "drop", "warn"] = "refuse"
    validation: float = 0.1
    test: float = 0.1
    split_seed: int = 42
    group: str | None = None
    drop_rows: str | None = None
    subset: Mapping[str, int] = field(default_factory=dict)
    subset_seed: int = 42


@dataclass(frozen=True)
class Chats:
    """The splits that there are, of train, validation and test, memory-mapped: row i is found
    without reading those before it.

    Columns: messages (a list of {role, content}; of plain text one of role "text"), row (int64, the
    record's place in the whole source), address ("chats.jsonl:12"). `fingerprint` is a hash of the
    conversations of all splits: equal data, equal hash, wherever the files lie. Where training
    conversations `stream`, those in `splits` are a sample of them.
    """

    splits: dict[str, datasets.Dataset]
    report: DataReport
    fingerprint: str
    stream: Stream | None = None


def load_chats(args: ChatArgs, cache_dir: Path | None = None) -> Chats:
    """Read, clean and split the source, or open the cache of having done so.

    `cache_dir` is `$OPENLOOP_CACHE` or `~/.cache/openloop` unless given. Raises ValueError for
    whatever a source, a conversation or an argument has wrong, each named with its place.
    """
    check_args(args)
    fmt = chat_format(args)
    tables, notes = open_source(args.source, args.config, args.revision, args.splits, fmt)
    return load_chat_tables(args, tables, notes, cache_dir)


def load_chat_tables(
    args: ChatArgs, tables: dict[str, list[Table]], notes: list[str], cache_dir: Path | None = None
) -> Chats:
    """The same of a source that is opened, with `notes` for people."""
    notes = notes + describe_format(chat_format(args))
    named = read_drop_rows(args.drop_rows) if args.drop_rows is not None else {}
    identity = {split: [(t.path, t.digest) for t in parts] for split, parts in tables.items()}
    key = make_key(chats=asdict(args) | {"drop_rows": sorted(named)}, tables=identity)
    folder = (cache_dir or cache_root()) / "data" / key[:32]
    open_built(folder, lambda made: _build(args, tables, notes, named, made))
    meta = read_json(folder / "data.json", ("report", "fingerprint"))
    return Chats(
        splits={name: read_arrow(folder / f"{name}.arrow") for name in meta["report"]["splits"]},
        report=DataReport(**meta["report"]),
        fingerprint=meta["fingerprint"],
    )


def chat_format(args: ChatArgs) -> Format:
    """The part of the arguments that says how text files are written."""
    return Format(args.encoding, args.delimiter, args.quoting, args.escape, args.header)


def check_args(args: ChatArgs) -> None:
    """Raise ValueError for arguments that are wrong by themselves."""
    errors = check_format(chat_format(args))
    errors += wrong_choices(args, ROW_CHOICES)
    if isinstance(args.messages, str) or not 1 <= len(args.messages) <= 3:
        errors.append(
            f"data.messages: got {args.messages!r}, expected one column (turns, or plain text), "
            "two (prompt, completion) or three (instruction, input, output)"
        )
    if isinstance(args.roles, str) and args.roles != ALTERNATE:
        errors.append(f'data.roles: got {args.roles!r}, expected a table, or "{ALTERNATE}"')
    for speaker, role in args.roles.items() if isinstance(args.roles, Mapping) else ():
        if role not in ROLES:
            errors.append(f"data.roles: {speaker} is {role!r}, expected one of {', '.join(ROLES)}")
    if args.turn is not None and set(args.turn) != {"role", "content"}:
        errors.append(
            f"data.turn: got {dict(args.turn)}, expected the names of two fields, as "
            '{ role = "sender", content = "text" }'
        )
    errors += unknown_splits(args.subset)
    if errors:
        raise ValueError("\n".join(errors))


def _build(
    args: ChatArgs,
    tables: dict[str, list[Table]],
    notes: list[str],
    named: dict[str, str],
    made: Path,
) -> None:
    """Fill the folder `made` with an Arrow file a split and data.json."""
    intake = _read_tables(args, tables, named, made)
    places = {}  # of the rows that repeat no earlier one, by split of the source
    for split in tables:
        path = made / f"{split}.rows"
        if args.clean.duplicates:
            places[split], dropped = first_places(path, intake.left_out)
            intake.dropped.update(dropped)
        else:
            places[split] = np.arange(len(read_arrow(path)))
        if not len(places[split]):
            left = " (data.filter left out all others)" if intake.filtered else ""
            raise ValueError(f"data.source: no usable conversation for {split}{left}{_why(intake)}")
    read = {split: read_arrow(made / f"{split}.rows") for split in tables}
    pieces, more = _allot(args, intake, places)
    overlap, removed = treat_overlap(args.on_overlap, pieces, read)
    digest = hashlib.sha256()
    for split, piece in pieces.items():
        _write_split(made / f"{split}.arrow", split, piece, read, digest)
    turns = intake.reader.turns
    report = DataReport(
        read=intake.read,
        filtered=intake.filtered,
        bad=dict(intake.bad.counts),
        changed=dict(intake.changed),
        spoilt=[],
        dropped=dict(intake.dropped),
        overlap=overlap,
        overlap_dropped=removed,
        splits={split: len(kept) for split, (_, kept) in pieces.items()},
        origin=describe_origin(pieces, args.split_seed, args.subset, args.subset_seed),
        labels={split: {} for split in pieces},
        notes=notes + describe_turns(turns.unread, turns.merged, intake.texts) + more,
    )
    meta = {"report": report.as_dict(), "fingerprint": digest.hexdigest()}
    (made / "data.json").write_text(json.dumps(meta), encoding="utf-8")
    for split in tables:
        (made / f"{split}.rows").unlink()


def make_intake(args: ChatArgs, named: Collection[str] = ()) -> ChatIntake:
    """What takes conversations in as the arguments say; those `named` by their address are left
    out."""
    fields = None if args.turn is None else (args.turn["role"], args.turn["content"])
    reader = MessageReader(args.messages, TurnReader(args.roles, fields))
    kept_by = parse_filter(args.filter) if args.filter else None
    return ChatIntake(reader, args.clean, kept_by, args.group, named)


def _read_tables(
    args: ChatArgs, tables: Mapping[str, list[Table]], named: dict[str, str], made: Path
) -> ChatIntake:
    """The usable conversations of all tables, written into `made`, and what was met on the way."""
    intake = make_intake(args, named)
    check_columns(tables, intake.needed())
    for split, parts in tables.items():
        intake.read_split(split, parts, made / f"{split}.rows")
    check_drop_rows(named, intake.met, intake.last, str(args.drop_rows))
    intake.bad.check(args.on_bad_row, intake.read)
    intake.check_kind()
    return intake


def _why(intake: ChatIntake) -> str:
    """Why rows were bad, where any were: the first of them, each a line."""
    if not intake.bad.counts:
        return ""
    return f"; {intake.bad.counts.total():,} rows are bad:\n  " + "\n  ".join(intake.bad.examples)


def _allot(
    args: ChatArgs, intake: ChatIntake, places: Mapping[str, np.ndarray]
) -> tuple[dict[str, Piece], list[str]]:
    """Which of the rows at `places` make which split, and what to say of their groups."""
    groups: Sequence[str] | None = None
    if args.group is not None:
        groups = [intake.groups["train"][place] for place in places["train"]]
    among, _ = allot(
        {split: len(kept) for split, kept in places.items()}, None,
        {"test": args.test, "validation": args.validation},
        args.split_seed, args.subset, args.subset_seed, groups,
    )  # fmt: skip
    pieces = {split: (origin, places[origin][kept]) for split, (origin, kept) in among.items()}
    if args.group is None:
        return pieces, []
    return pieces, describe_groups(args.group, pieces, intake.groups)


def _write_split(
    path: Path,
    split: str,
    piece: Piece,
    read: Mapping[str, datasets.Dataset],
    digest: hashlib._Hash,
) -> None:
    """Write one split's Arrow file; every conversation also goes into the digest, as its key."""
    origin, places = piece
    rows = read[origin].with_format("arrow")
    schema = pa.schema([SCHEMA.field(name) for name in KEPT])

    def batches() -> Iterator[pa.RecordBatch]:
        for start in range(0, len(places), CHUNK):
            table = rows[places[start : start + CHUNK]]
            for row, key in zip(
                *(table[name].to_pylist() for name in ("row", "exact")), strict=True
            ):
                digest.update(f"{split}\0{row}\0{key.hex()}\n".encode())
            # one batch: what is gathered comes in a piece a row
            yield from table.select(KEPT).cast(schema).combine_chunks().to_batches()

    write_arrow(path, schema, batches())
