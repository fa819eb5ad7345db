"""What happened to the rows on their way: everything dropped, changed or found is counted here."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

WORDS = {
    "html": "held HTML tags or entities",
    "control": "held control characters",
    "unicode": "changed by Unicode normalisation",
    "spaces": "held surplus white space",
    "too_short": "too short after cleaning",
    "duplicates": "exact duplicates of an earlier text",
    "duplicates_after_cleaning": "equal to an earlier text after cleaning",
    "duplicates_conflicting": "equal to an earlier text, with another label",
    "conflicting_after_cleaning": "equal to an earlier text after cleaning, with another label",
    "drop_rows": "named in data.drop_rows",
    "drop_rows_again": "equal to an earlier text that data.drop_rows names",
    "missing_column": "a column was missing",
    "ragged_row": "wrong number of fields",
    "broken_csv": "broken CSV",
    "broken_json": "broken JSON",
    "header_again": "the header, in the middle of the file",
    "swallowed_lines": "a quote would swallow the lines below",
    "bad_encoding": "bytes that are not in the encoding",
    "bad_text": "the text was no text",
    "empty_text": "no text",
    "no_label": "no label",
    "bad_label": "malformed label",
    "label_outside": "label outside the set",
    "bad_filter_value": "not comparable by the filter",
    "ends": "had white space at the ends of a turn",
    "empty_chat": "no turn",
    "bad_turn": "a turn that cannot be read",
    "empty_turn": "a turn without a word",
    "unknown_role": "a speaker without a role",
    "many_speakers": "more than two speakers",
    "late_system": "a system message that is not the first",
    "no_prompt": "the assistant speaks first",
    "no_reply": "no reply of the assistant",
}


@dataclass(frozen=True)
class DataReport:
    """Counts of rows. `read` is per source table split; `splits` is what came out."""

    read: dict[str, int]
    filtered: int  # rows that data.filter left out
    bad: dict[str, int]  # rows skipped, by reason (on_bad_row = "skip")
    changed: dict[str, int]  # rows changed, by cleaning step
    spoilt: list[str]  # what cleaning emptied or made contradictory, a sentence a step
    dropped: dict[str, int]  # rows dropped after cleaning, by reason
    overlap: dict[str, int]  # rows whose text stands on both sides, by "train/test"
    overlap_dropped: dict[str, int]  # of these, rows removed, by split
    splits: dict[str, int]
    origin: dict[str, str]  # where each split comes from
    labels: dict[str, dict[str, int]]  # rows of each label, by split
    notes: list[str]

    def as_dict(self) -> dict[str, Any]:
        """The same as JSON-able values."""
        return asdict(self)

    def lines(self) -> list[str]:
        """The same for people, one fact a line."""
        return list(self._lines())

    def _lines(self) -> Iterator[str]:
        yield "rows read: " + ", ".join(f"{n:,} {split}" for split, n in self.read.items())
        if self.filtered:
            yield f"left out by the filter: {self.filtered:,}"
        for reason, n in self.bad.items():
            yield f"bad rows skipped: {n:,} ({WORDS[reason]})"
        for step, n in self.changed.items():
            yield f"cleaned: {n:,} rows {WORDS[step]}"
        for sentence in self.spoilt:
            yield f"WARNING: {sentence}"
        for reason, n in self.dropped.items():
            yield f"dropped: {n:,} rows {WORDS[reason]}"
        for sides, n in self.overlap.items():
            left, right = sides.split("/")
            yield f"WARNING: {n:,} {left} rows have the text of a {right} row"
        for split, n in self.overlap_dropped.items():
            yield f"dropped for that: {n:,} rows of {split}"
        for split, n in self.splits.items():
            counts = ", ".join(f"{name} {rows:,}" for name, rows in self.labels[split].items())
            yield f"{split}: {n:,} rows, {self.origin[split]}" + (f" ({counts})" if counts else "")
        yield from self.notes
