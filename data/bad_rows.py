"""Rows that cannot be used: counted by reason, a few kept to be shown, and fitting advice."""

import json
import keyword
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data.reading.detect import detect_encoding
from data.reading.rows import BadRow
from data.refused import RefusedError
from data.tables import Table

SHOWN = 5  # bad rows spelled out in an error
FEW = 0.1  # share up to which bad rows are slips in single rows, and no misread file

# What helps where a reason is at work in many rows.
WAYS_OUT = {
    "swallowed_lines": 'where quotes are letters like any other, set data.quoting = "none"',
    "broken_csv": 'where quotes are letters like any other, set data.quoting = "none"; where a '
    "character such as \\ protects them, name it in data.escape",
    "broken_json": "write one JSON object a line, or one list of them; a table whose fields are "
    "separated by commas or tabs has to be called .csv or .tsv",
    "header_again": 'take the lines out, or set data.on_bad_row = "skip"',
    "ragged_row": "check data.delimiter, data.quoting and data.escape against the file, and that "
    "its first line holds the column names",
    "missing_column": "check {columns} against the rows",
    "empty_text": "leave rows without a text out with data.filter ({filter})",
    "no_label": "leave rows without a label out with data.filter ({filter}), or, where such a word "
    "is a class, name all classes in data.labels",
    "bad_label": "check data.label and data.kind against the column",
    "label_outside": "check data.labels against the column",
    "bad_text": "check {columns}: a column holds something other than texts",
    "bad_filter_value": "check data.filter against the column",
    "unknown_role": 'say in data.roles who the speakers are, as { agent = "assistant" }; or set '
    'data.roles = "alternate": who speaks first is the user',
    "many_speakers": "name the speakers and their roles in data.roles",
    "bad_turn": 'name the two fields of a turn in data.turn, as { role = "sender", content = '
    '"text" }',
    "no_reply": "nobody answers in them, which is so where a person waited in vain; check "
    'data.roles, or set data.on_bad_row = "skip" to leave them out and count them',
}


@dataclass
class BadRows:
    """The bad rows of a whole source. `settings`: those that name its columns."""

    settings: str = "data.text and data.label"
    counts: Counter[str] = field(default_factory=Counter)  # by reason
    by_split: Counter[tuple[str, str]] = field(default_factory=Counter)  # (split, reason)
    examples: list[str] = field(default_factory=list)
    addresses: list[str] = field(default_factory=list)
    paths: dict[str, None] = field(default_factory=dict)
    columns: dict[str, str] = field(default_factory=dict)  # reason -> the column first hit
    values: dict[str, dict[str, None]] = field(default_factory=dict)  # reason -> what stands there

    def note(self, row: BadRow, table: Table, split: str) -> None:
        """Count one."""
        self.counts[row.reason] += 1
        self.by_split[split, row.reason] += 1
        self.paths[table.path] = None
        self.addresses.append(row.address)
        self.columns.setdefault(row.reason, row.column)
        self.values.setdefault(row.reason, {})[_literal(row.value)] = None
        if len(self.examples) < SHOWN:
            self.examples.append(f"{row.address}: {row.message}")

    def check(self, on_bad_row: str, read: Mapping[str, int]) -> None:
        """Raise RefusedError with the first of them and advice, unless bad rows are skipped; `read`
        is rows by split. A split without any label is a ValueError either way."""
        for split, rows in read.items():
            if split != "train" and rows and self.by_split[split, "no_label"] == rows:
                raise ValueError(unlabelled(split, rows, self.examples[0]))
        total = self.counts.total()
        if not total or on_bad_row == "skip":
            return
        more = f"\n  and {total - SHOWN:,} more" if total > SHOWN else ""
        paths = list(self.paths)
        files = ", ".join(paths[:3]) + (f" and {len(paths) - 3} more" if len(paths) > 3 else "")
        message = (
            f"{total:,} bad row{'s' if total > 1 else ''} in {files}:\n  "
            + "\n  ".join(self.examples)
            + more
            + "\n"
            + self._advice(total, sum(read.values()))
        )
        raise RefusedError(message, "bad_row", self.addresses)

    def forget(self) -> None:
        """Keep counts and examples alone, where bad rows are skipped however many there are."""
        self.addresses.clear()
        self.values.clear()

    def _advice(self, total: int, rows: int) -> str:
        reason, count = self.counts.most_common(1)[0]
        way_out = self._encoding_advice() if reason == "bad_encoding" else WAYS_OUT.get(reason, "")
        way_out = way_out.replace("{columns}", self.settings)
        if "{filter}" in way_out:
            column, values = self.columns[reason], list(self.values[reason])
            way_out = way_out.replace("{filter}", _filter_without(column, values))
        if total == 1 or total <= FEW * rows:
            correct = (
                'correct them, or set data.on_bad_row = "skip" to leave them out and count them'
            )
            return f"{correct}; {way_out}" if way_out and count > 1 else correct
        if 2 * count <= total and reason != "bad_encoding":  # nothing explains most of them
            causes = ", ".join(f"{n:,} {r.replace('_', ' ')}" for r, n in self.counts.most_common())
            return (
                f"these are {total / rows:.0%} of the rows, of several causes ({causes}): correct "
                'them, or set data.on_bad_row = "skip" to leave them out and count them'
            )
        return (
            f"these are {total / rows:.0%} of the rows, which is no slip in single ones: "
            f"{way_out or f'check how the file is read (data.source; {self.settings})'}"
        )

    def _encoding_advice(self) -> str:
        """The encoding that the bytes of the first such file suggest."""
        path = Path(next(iter(self.paths)))
        if not path.is_file():
            return ""
        encoding, _ = detect_encoding(path)
        if encoding == "utf-8":
            return "write the texts as UTF-8"
        return f'the bytes look like {encoding}: set data.encoding = "{encoding}"'


def _literal(value: Any) -> str:
    """A value as a filter spells it; a missing one equals the empty text."""
    if value is None or value != value:
        return '""'
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else str(value)


def _is_plain_name(part: str) -> bool:
    """Whether Python reads it as a name, and as the same one: it folds letters of one meaning."""
    folded = unicodedata.normalize("NFKC", part)
    return part.isidentifier() and not keyword.iskeyword(part) and folded == part


def _filter_without(column: str, values: Sequence[str]) -> str:
    """The filter that leaves out rows with one of these values in a column."""
    plain = all(map(_is_plain_name, column.split(".")))
    name = column if plain else f"row[{_literal(column)}]"
    if len(values) == 1:
        return f"{name} != {values[0]}"
    return f"{name} not in [{', '.join(values)}]"


def unlabelled(split: str, rows: int, example: str) -> str:
    """The message for a split that comes without its labels."""
    return (
        f"data.source: none of the {rows:,} rows of {split} has a label ({example}): a split whose "
        "answers are kept secret. Leave it out: of a hub set by naming the others in data.splits, "
        f"of files by leaving {split} out of data.source; data.{split} then cuts one off train"
    )
