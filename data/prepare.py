"""`load_data` is what others call: a source of labelled texts becomes train, validation and test.

    source -> tables -> intake (filter, label, clean) -> kind and names -> cut -> sample -> overlap

The result is memory-mapped Arrow in the cache, under a key made of the sources' content, the
arguments and this package's code: a second call opens that and reads nothing else.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import datasets
import numpy as np

from data.allot import allot, describe_origin, drop_seen, treat_overlap
from data.bad_rows import unlabelled
from data.cache import cache_root, make_key, open_built, read_arrow
from data.choices import ROW_CHOICES, unknown_splits, wrong_choices
from data.clean import CleanArgs
from data.columns import check_columns
from data.drop import check_drop_rows, read_drop_rows
from data.grouped import describe_groups
from data.intake import Intake
from data.labels.numbers import NumberStyle
from data.labels.settle import Kind, Settled, Spelling, convert_labels, label_counts, settle
from data.reading.formats import FIRST_LINE, Format, check_format, describe_format
from data.sources import Source, open_source
from data.split_files import write_split
from data.summary import DataReport
from data.tables import Table
from files.read import read_json

if TYPE_CHECKING:
    from data.stream.rows import Stream

LEFT_OUT = "left_out"  # the file of the training rows that a sample leaves out


@dataclass(frozen=True)
class DataArgs:
    """What to read and how; the names are those of the section [data] of a config."""

    source: Source
    config: str | None = None
    revision: str | None = None
    splits: Mapping[str, str] | None = None  # our split name -> the hub set's
    encoding: str = "utf-8"
    delimiter: str | None = None
    quoting: Literal["standard", "none"] | None = None
    escape: str | None = None
    header: str | tuple[str, ...] = FIRST_LINE
    filter: str | None = None
    text: tuple[str, ...] = ("text",)  # one column, or two for pairs
    label: tuple[str, ...] = ("label",)  # several: multi-label, each 0 or 1
    labels: tuple[str, ...] | None = None  # names, in order
    label_separator: str | None = None
    kind: Literal["auto", "single", "multi", "regression"] = "auto"
    clean: CleanArgs = field(default_factory=CleanArgs)
    on_bad_row: Literal["error", "skip"] = "error"
    on_overlap: Literal["refuse", "drop", "warn"] = "refuse"
    validation: float = 0.1  # share below 1, or rows; 0 for none
    test: float = 0.1
    split_seed: int = 42
    group: str | None = None  # the column whose values stay on one side of a cut
    drop_rows: str | None = None  # a file that names rows to leave out: data/drop.py
    subset: Mapping[str, int] = field(default_factory=dict)
    subset_seed: int = 42
    slices: tuple[str, ...] = ()  # columns kept of the test rows
    left_out: bool = False  # whether the training rows that `subset` leaves out are kept apart


@dataclass(frozen=True)
class Data:
    """The splits that there are, of train, validation and test, memory-mapped. `left_out`: where
    asked for, the training rows that the sample left out and whose text no held-out row has.

    Columns: text, text_pair (pairs only), label (class index int64 | list of 0/1 float32, one a
    class | float64), row (int64, the record's place in the whole source), address ("file.csv:12");
    of the test rows also slices (the values of `args.slices`), where there are any.
    `fingerprint` is a hash of the rows, labels and names of all splits: equal data, equal hash,
    wherever the files lie. `spelling` says how the source writes its labels. Where training rows
    `stream`, those in `splits` are a sample of them.
    """

    splits: dict[str, datasets.Dataset]
    kind: Kind
    label_names: tuple[str, ...]
    report: DataReport
    fingerprint: str
    left_out: datasets.Dataset | None = None
    spelling: Spelling = field(default_factory=Spelling)
    stream: Stream | None = None


def learnt_rows(data: Data) -> datasets.Dataset:
    """The training rows and those left out: all that anything in the run learns from."""
    if data.left_out is None:
        return data.splits["train"]
    return datasets.concatenate_datasets([data.splits["train"], data.left_out])


def all_rows(data: Data) -> datasets.Dataset:
    """The rows that anything learns from, then those of the other splits."""
    others = [rows for name, rows in data.splits.items() if name != "train"]
    return datasets.concatenate_datasets([learnt_rows(data), *others])


def load_data(args: DataArgs, cache_dir: Path | None = None) -> Data:
    """Read, clean and split the source, or open the cache of having done so.

    `cache_dir` is `$OPENLOOP_CACHE` or `~/.cache/openloop` unless given. Raises ValueError for
    whatever a source, a row or an argument has wrong, each named with its place.
    """
    check_args(args)
    tables, notes = open_source(
        args.source, args.config, args.revision, args.splits, file_format(args)
    )
    return load_tables(args, tables, notes, cache_dir)


def load_tables(
    args: DataArgs, tables: dict[str, list[Table]], notes: list[str], cache_dir: Path | None = None
) -> Data:
    """The same of a source that is opened, with `notes` for people."""
    notes = notes + describe_format(file_format(args))
    named = read_drop_rows(args.drop_rows) if args.drop_rows is not None else {}
    identity = {split: [(t.path, t.digest) for t in parts] for split, parts in tables.items()}
    which = asdict(args) | {"drop_rows": sorted(named)}  # what the file says, not where it lies
    key = make_key(args=which, tables=identity)
    folder = (cache_dir or cache_root()) / "data" / key[:32]
    open_built(folder, lambda made: _build(args, tables, notes, named, made))
    keys = ("kind", "label_names", "report", "fingerprint", "spelling")
    meta = read_json(folder / "data.json", keys)
    spelling = meta["spelling"]
    return Data(
        splits={name: read_arrow(folder / f"{name}.arrow") for name in meta["report"]["splits"]},
        kind=meta["kind"],
        label_names=tuple(meta["label_names"]),
        report=DataReport(**meta["report"]),
        fingerprint=meta["fingerprint"],
        left_out=read_arrow(folder / f"{LEFT_OUT}.arrow") if args.left_out else None,
        spelling=Spelling(NumberStyle(**spelling.pop("style")), **spelling),
    )


def file_format(args: DataArgs) -> Format:
    """The part of the arguments that says how text files are written."""
    return Format(args.encoding, args.delimiter, args.quoting, args.escape, args.header)


def check_args(args: DataArgs) -> None:
    """Raise ValueError for arguments that are wrong by themselves."""
    kinds = {"kind": ("auto", "single", "multi", "regression")}
    errors = wrong_choices(args, {**kinds, **ROW_CHOICES})
    if len(args.text) not in (1, 2) or isinstance(args.text, str):
        errors.append(f"data.text: got {args.text!r}, expected one column, or two for pairs")
    if not args.label or isinstance(args.label, str):
        errors.append(f"data.label: got {args.label!r}, expected one column or several")
    if args.labels and len(set(args.labels)) < max(2, len(args.labels)):
        errors.append(f"data.labels: got {list(args.labels)}, expected at least two, all different")
    errors += check_format(file_format(args))
    errors += unknown_splits(args.subset)
    if errors:
        raise ValueError("\n".join(errors))


def _build(
    args: DataArgs,
    tables: dict[str, list[Table]],
    notes: list[str],
    named: dict[str, str],
    made: Path,
) -> None:
    """Fill the folder `made` with an Arrow file a split and data.json."""
    intake = _read_tables(args, tables, named, made)
    read = {split: read_arrow(made / f"{split}.rows") for split in tables}
    settled = _settle_labels(args, tables, intake)
    kind, names = settled.kind, settled.names
    values = convert_labels(settled)
    wanted = {"test": args.test, "validation": args.validation}
    groups = None if args.group is None else intake.groups["train"]
    classes = np.array(values["train"]) if kind == "single" else None
    pieces, rest = allot(
        {split: len(labels) for split, labels in values.items()},
        classes, wanted, args.split_seed, args.subset, args.subset_seed, groups,
    )  # fmt: skip
    overlap, removed = treat_overlap(args.on_overlap, pieces, read)
    digest = hashlib.sha256(json.dumps([kind, names]).encode())
    for split, piece in pieces.items():
        write_split(made / f"{split}.arrow", split, piece, read, values, kind, digest)
    more = [] if args.group is None else describe_groups(args.group, pieces, intake.groups)
    if args.left_out:
        rest, seen = drop_seen(rest, pieces, read)
        more += seen
        write_split(made / f"{LEFT_OUT}.arrow", LEFT_OUT, rest, read, values, kind, digest)
    counts = {
        split: label_counts(read_arrow(made / f"{split}.arrow"), kind, names) for split in pieces
    }
    unseen = [name for name, n in counts["train"].items() if n == 0]
    report = DataReport(
        read=intake.read,
        filtered=intake.filtered,
        bad=dict(intake.bad.counts),
        changed=dict(intake.changed),
        spoilt=intake.damage.lines(),
        dropped=dict(intake.dropped),
        overlap=overlap,
        overlap_dropped=removed,
        splits={split: len(places) for split, (_, places) in pieces.items()},
        origin=describe_origin(pieces, args.split_seed, args.subset, args.subset_seed),
        labels=counts,
        notes=notes
        + more
        + settled.notes
        + [f"WARNING: no training row has the label {name}" for name in unseen],
    )
    meta = {
        "kind": kind,
        "label_names": names,
        "report": report.as_dict(),
        "fingerprint": digest.hexdigest(),
        "spelling": asdict(settled.spelling),
    }
    (made / "data.json").write_text(json.dumps(meta), encoding="utf-8")
    for split in tables:
        (made / f"{split}.rows").unlink()


def make_intake(args: DataArgs, named: Collection[str] = ()) -> Intake:
    """What takes rows in as the arguments say; those `named` by their address are left out."""
    return Intake(
        args.text, args.label, args.labels, args.kind, args.clean, args.filter,
        args.label_separator, args.slices, args.group, named,
    )  # fmt: skip


def _read_tables(
    args: DataArgs, tables: Mapping[str, list[Table]], named: dict[str, str], made: Path
) -> Intake:
    """The usable rows of all tables, written into `made`, and what was met on the way."""
    intake = make_intake(args, named)
    check_columns(tables, intake.needed())
    for split, parts in tables.items():
        intake.read_split(split, parts, made / f"{split}.rows")
    check_drop_rows(named, intake.met, intake.last, str(args.drop_rows))
    intake.bad.check(args.on_bad_row, intake.read)
    intake.damage.check(args.on_bad_row)
    _check_usable(intake)
    return intake


def _check_usable(intake: Intake) -> None:
    """Raise ValueError naming a split of the source without a usable row, or a column that is in
    none."""
    for split, labels in intake.labels.items():
        if not labels:
            left = " (data.filter left out all others)" if intake.filtered else ""
            nothing = f"data.source: no usable row for {split}{left}"
            raise ValueError("\n  ".join([nothing, *intake.damage.lines()]))
    intake.check_slices()


def _settle_labels(args: DataArgs, tables: dict[str, list[Table]], intake: Intake) -> Settled:
    """The labels' kind and their names in order; a hub set's own names stand for given ones."""
    column = ", ".join(args.label)
    for split, labels in intake.labels.items():
        if split != "train" and set(labels) == {"-1"} and "-1" not in intake.labels["train"]:
            raise ValueError(unlabelled(split, len(labels), f"{column} is -1 in all of them"))
    names = args.labels
    if names is None and len(args.label) > 1:
        names = args.label
    if names is None and args.kind != "regression":
        names = tables["train"][0].class_names.get(args.label[0])
    settled = settle(intake.labels, args.kind, names, column)
    if settled.kind == "single":
        held = {str(label) for labels in settled.labels.values() for label in labels}
        if strangers := sorted(held - set(settled.names)):
            raise ValueError(
                f"data.label {column}: {strangers[0]!r} is none of the set's own labels "
                f"{', '.join(settled.names)}"
            )
    return settled
