"""What an export was checked on: openloop and the other tool side by side."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from report.format import (
    NONE,
    align_table,
    format_bytes,
    format_count,
    format_number,
    wrap,
)
from report.markdown import bullets, escape_markdown, markdown_table

HEADER = ("", "answers alike", "probabilities", "logits", "accuracy", "a second", "size")


@dataclass(frozen=True)
class Side:
    """One line of the table. `alike` of how many; differences from openloop in fp32; `rate` a
    second; `size` in bytes. None is shown as nothing."""

    name: str
    rate: float | None
    size: int | None
    alike: tuple[int, int] | None = None
    shares: float | None = None
    outputs: float | None = None
    accuracy: float | None = None


@dataclass(frozen=True)
class ParityTable:
    """`rows` says what was asked, `unit` what is counted a second; `promise` what had to hold and
    `failed` what did not; `differing` quotes rows that were answered otherwise, for the terminal
    alone."""

    sides: Sequence[Side]
    rows: str
    unit: str
    promise: str
    failed: Sequence[str] = ()
    differing: Sequence[str] = ()
    notes: Sequence[str] = field(default=())

    @property
    def verdict(self) -> str:
        return "does not hold" if self.failed else "holds"


def parity_cells(table: ParityTable) -> list[list[str]]:
    """The header and a row for each side."""
    header = [*HEADER]
    header[5] = f"{table.unit} a second"
    return [header] + [
        [
            side.name,
            NONE if side.alike is None else "{:,} of {:,}".format(*side.alike),
            NONE if side.shares is None else f"{side.shares:.1e}",
            NONE if side.outputs is None else f"{side.outputs:.1e}",
            NONE if side.accuracy is None else f"{side.accuracy:.4f}",
            NONE if side.rate is None else format_number(round(side.rate, 1)),
            format_bytes(side.size),
        ]
        for side in table.sides
    ]


def parity_lines(table: ParityTable) -> list[str]:
    """The table for a terminal, what it was asked, and whether it holds."""
    cells = parity_cells(table)
    lines = [f"asked: {table.rows}", *align_table(cells, right=range(1, len(HEADER)))]
    lines += [part for note in table.notes for part in wrap(note, 100)]
    lines.append(f"{table.verdict}: {table.promise}")
    lines += [f"  {line}" for line in (*table.failed, *table.differing)]
    return lines


def parity_markdown(table: ParityTable) -> list[str]:
    """The same for a card, which goes to others: without texts of rows."""
    header, *rows = parity_cells(table)
    shown = [[escape_markdown(name), *figures] for name, *figures in rows]
    lines = [
        f"Checked after it was written, in a process without openloop, on {table.rows}. "
        "Differences are the largest, from openloop in fp32.",
        "",
        *markdown_table(header, shown, numbers=len(HEADER) - 1),
        "",
        f"What has to hold, and {table.verdict.replace('holds', 'does')}: {table.promise}.",
    ]
    return lines + (["", *bullets(table.failed)] if table.failed else [])


def count_words(count: int, word: str) -> str:
    """3 files, 1 file."""
    return f"{format_count(count)} {word}{'' if count == 1 else 's'}"
