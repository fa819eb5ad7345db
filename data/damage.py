"""What cleaning spoils: rows that it empties, and rows with different labels that it makes equal.

Both are found here, told apart from what was so before cleaning, and said before rows are dropped.
"""

from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from data.clean import CleanArgs, Step, tell_step
from data.labels.reader import Label
from data.refused import RefusedError
from data.splits import text_key

SHOWN = 3  # rows spelled out for each step
LARGE_SHARE, LEAST_ROWS = 0.1, 3  # of a split: so much lost is no accident
HOPELESS_SHARE = 1 / 3  # leaving out so much is no advice
WHAT = {
    "html": "HTML tags or entities",
    "control": "control characters",
    "unicode": "the Unicode form",
    "spaces": "white space",
}


class Repeats:
    """The texts of one split, as keys of 16 bytes: which row repeats an earlier one, and how."""

    def __init__(self) -> None:
        self.labels: list[Label] = []  # of the rows kept, in order
        self.traces = array("Q")  # of the rows kept: what cleaning did to each
        self.places: dict[bytes, int] = {}  # cleaned text -> its first row among those kept
        # Raw text -> label of its first row. A kept row that cleaning left alone is not held here:
        # its raw text is its cleaned one.
        self.raw_labels: dict[bytes, Label] = {}
        self.left_out: set[bytes] = set()  # cleaned texts of rows that a person left out

    def leave_out(self, cleaned: tuple[str, ...]) -> None:
        """Note a text that is left out: else an equal one would come in its place."""
        self.left_out.add(text_key(*cleaned))

    def is_left_out(self, cleaned: tuple[str, ...]) -> bool:
        """Whether a text equals one that was left out."""
        return bool(self.left_out) and text_key(*cleaned) in self.left_out

    def find(
        self, texts: tuple[str, ...], cleaned: tuple[str, ...], label: Label, trace: int
    ) -> tuple[str | None, int]:
        """(reason, place): why the row counts as a repetition and of which kept row, or None.

        Texts that were equal before cleaning come first, so that nothing is laid to cleaning that
        stood in the source.
        """
        key = text_key(*cleaned)
        raw = text_key(*texts) if trace else key
        place = self.places.get(key)
        earlier = self.raw_labels.get(raw)
        if earlier is None and not trace and place is not None and not self.traces[place]:
            earlier = self.labels[place]
        if place is None:
            self.places[key] = len(self.labels)
            if trace:
                self.raw_labels[raw] = label
            return None, len(self.labels)
        if earlier is None:
            self.raw_labels[raw] = label
        elif earlier != label:
            return "duplicates_conflicting", place
        if self.labels[place] != label:
            return "conflicting_after_cleaning", place
        return "duplicates" if earlier is not None else "duplicates_after_cleaning", place

    def keep(self, label: Label, trace: int) -> None:
        """Take a row in, after `find`."""
        self.labels.append(label)
        self.traces.append(trace)


@dataclass
class Damage:
    """Rows spoilt by cleaning, by the step that did it, with a few addresses of each."""

    clean: CleanArgs
    emptied: Counter[str] = field(default_factory=Counter)
    conflicting: Counter[str] = field(default_factory=Counter)
    examples: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    lost: Counter[str] = field(default_factory=Counter)  # rows, by split
    seen: Counter[str] = field(default_factory=Counter)  # rows that came to cleaning, by split
    # (step, place of the earlier row, own address): the earlier address is in the file by then
    open_pairs: list[tuple[str, int, str]] = field(default_factory=list)

    def is_short(self, texts: tuple[str, ...]) -> bool:
        """Whether one of a row's texts has too few characters, blanks at its ends not counted."""
        least = max(1, self.clean.min_chars)
        return any(len(text.strip()) < least for text in texts)

    def note_short(
        self, texts: tuple[str, ...], steps: Sequence[Step], split: str, address: str
    ) -> None:
        """A row that is too short after cleaning, by its raw texts. One that was too short before
        is not laid to cleaning."""
        if self.is_short(texts):
            return
        left, rest, name = texts, iter(steps), ""
        while not self.is_short(left):
            name, step = next(rest)
            left = tuple(step(text) for text in left)
        self.emptied[name] += 1
        self.lost[split] += 1
        shown = self.examples.setdefault(("emptied", name), [])
        if len(shown) < SHOWN:
            text = texts[[self.is_short((one,)) for one in left].index(True)]
            shown.append(f"{address} ({text[:40]!r}{'…' if len(text) > 40 else ''})")

    def note_conflict(
        self, repeats: Repeats, place: int, trace: int, steps: Sequence[Step],
        split: str, address: str,
    ) -> None:  # fmt: skip
        """A row that cleaning made equal to the kept row at `place`, which has another label."""
        name = tell_step(repeats.traces[place], trace, steps)
        self.conflicting[name] += 1
        self.lost[split] += self.clean.duplicates
        if sum(step == name for step, _, _ in self.open_pairs) < SHOWN:
            self.open_pairs.append((name, place, address))

    def close_split(self, address_of: Callable[[int], str]) -> None:
        """Put the addresses of the earlier rows to the examples, once the split is written."""
        for name, place, address in self.open_pairs:
            shown = self.examples.setdefault(("conflicting", name), [])
            if len(shown) < SHOWN:
                shown.append(f"{address_of(place)} and {address}")
        self.open_pairs = []

    def lines(self) -> list[str]:
        """One sentence a step and kind of damage."""
        least = self.clean.min_chars
        nothing = (
            "nothing" if least <= 1 else f"fewer than data.clean.min_chars = {least} characters"
        )
        lines = []
        for name, rows in self.emptied.items():
            shown = ", ".join(self.examples["emptied", name])
            lines.append(
                f"cleaning ({name}) leaves {nothing} of {_count(rows)}, dropped: {shown}; "
                f"{_setting(name)} keeps {'them' if rows > 1 else 'it'}"
            )
        for name, rows in self.conflicting.items():
            shown = "; ".join(self.examples["conflicting", name])
            what = "dropped" if self.clean.duplicates else "kept all the same"
            lines.append(
                f"cleaning ({name}) makes {_count(rows)} equal to an earlier one with another "
                f"label, {what}: {shown} differ only in {WHAT[name]} before cleaning; "
                f"{_setting(name)} keeps them apart"
            )
        return lines

    def check(self, on_bad_row: str) -> None:
        """Raises RefusedError where cleaning spoils a tenth of a split or more, or all of it,
        unless bad rows are skipped."""
        if on_bad_row == "skip":
            return
        large = {
            split: rows
            for split, rows in self.lost.items()
            if rows == self.seen[split]
            or (rows >= LEAST_ROWS and rows >= LARGE_SHARE * self.seen[split])
        }
        if not large:
            return
        counts = ", ".join(f"{n:,} of {self.seen[s]:,} rows of {s}" for s, n in large.items())
        settings = " and ".join(map(_setting, self.emptied | self.conflicting))
        skip = ', or data.on_bad_row = "skip" to lose them'
        hopeless = any(rows >= HOPELESS_SHARE * self.seen[s] for s, rows in large.items())
        message = (
            f"data.clean: cleaning would lose {counts}:\n  "
            + "\n  ".join(self.lines())
            + f"\nset {settings}{'' if hopeless else skip}"
        )
        raise RefusedError(message, "cleaning", [])


def _count(rows: int) -> str:
    return f"{rows:,} row{'s' if rows > 1 else ''}"


def _setting(step: str) -> str:
    """The setting that leaves a step out."""
    return f"data.clean.{step} = " + ('"none"' if step == "unicode" else "false")
