"""Columns that say what belongs together, and their values on more than one side of a cut."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from data.intake import group_name
from data.prepare import DataArgs, file_format
from data.reading.rows import Row, has_column
from data.sources import open_source
from data.tables import Table

# What such columns are called, without the "id" at either end.
NAMES = {
    "film", "movie", "title", "book", "song", "product", "item", "asin", "author", "user",
    "username", "reviewer", "customer", "client", "patient", "person", "speaker", "subject",
    "group", "session", "thread", "conversation", "dialogue", "dialog", "document", "doc",
    "article", "page",
    "url", "source url", "family", "company", "account", "game", "hotel", "restaurant", "business",
}  # fmt: skip
LOOKED_AT = 100  # rows of a JSON file, whose fields are its columns
LEAST_GROUPS = 10  # fewer are categories
LARGEST = 0.2  # share of the rows in one group, above which it is a category too
REPEATED = 0.2  # share of the rows that have another of their group, at least


@dataclass(frozen=True)
class Leak:
    """Groups of a column that stand in two splits: their names, and the rows of each split that are
    in one of them, as indices."""

    column: str
    groups: int  # of all
    shared: list[str]
    rows: dict[str, list[int]]


def likely_columns(args: DataArgs) -> list[str]:
    """Columns whose names say that they group rows, none of those that are read already."""
    tables = _open(args)["train"]
    names = tables[0].columns or _json_names(tables[0])
    used = {*args.text, *args.label}
    return [name for name in names if name not in used and _bare(name) in NAMES]


def _bare(name: str) -> str:
    """film_id, filmId and FILM -> film."""
    spaced = "".join(f" {c}" if c.isupper() and i and name[i - 1].islower() else c
                     for i, c in enumerate(name))  # fmt: skip
    words = spaced.casefold().replace("_", " ").replace("-", " ").split()
    return " ".join(word for word in words if word not in ("id", "name", "no", "number"))


def _json_names(table: Table) -> list[str]:
    rows = (row for row in islice(table.rows(()), LOOKED_AT) if isinstance(row, Row))
    return list(dict.fromkeys(name for row in rows for name in row.values))


def _open(args: DataArgs) -> dict[str, list[Table]]:
    return open_source(args.source, args.config, args.revision, args.splits, file_format(args))[0]


def read_groups(args: DataArgs, column: str, addresses: Sequence[str]) -> list[str]:
    """The group of each row, as a cut by `column` takes it."""
    wanted = set(addresses)
    held: dict[str, str] = {}
    for tables in _open(args).values():
        for table in tables:
            if table.columns is not None and not has_column(column, table.columns):
                continue
            for row in table.rows([column]):
                if isinstance(row, Row) and row.address in wanted:
                    held[row.address] = group_name(row.values.get(column), row.address)
    return [held.get(address, f"\0{address}") for address in addresses]


def groups_rows(groups: Sequence[str]) -> bool:
    """Whether the values of a column group rows: many of them, that repeat, and none everywhere."""
    counts = Counter(groups)
    repeated = sum(n for n in counts.values() if n > 1)
    return (
        len(counts) >= LEAST_GROUPS
        and max(counts.values()) <= LARGEST * len(groups)
        and repeated >= REPEATED * len(groups)
    )


def find_leak(column: str, groups: Sequence[str], splits: Sequence[str]) -> Leak | None:
    """The groups that stand in more than one of `splits`, the split of each row; None for none."""
    sides: dict[str, set[str]] = {}
    for group, split in zip(groups, splits, strict=True):
        sides.setdefault(group, set()).add(split)
    shared = {group for group, there in sides.items() if len(there) > 1}
    if not shared:
        return None
    rows: Mapping[str, list[int]] = {split: [] for split in dict.fromkeys(splits)}
    for i, (group, split) in enumerate(zip(groups, splits, strict=True)):
        if group in shared:
            rows[split].append(i)
    return Leak(column, len(sides), sorted(shared), dict(rows))
