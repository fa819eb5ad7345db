"""A teacher and its student side by side, measured on the same rows in one process."""

from collections.abc import Sequence
from dataclasses import dataclass

from report.format import align_table, clean_line, format_bytes, format_count, format_number


@dataclass(frozen=True)
class Side:
    """What one of the two reaches and costs."""

    name: str
    metric: str
    value: float  # on the test rows
    bytes: int  # of its weights on disk, the base of an adapter included
    parameters: int
    rows_per_second: float  # from text to answer
    device: str


def side_table(sides: Sequence[Side]) -> list[tuple[str, ...]]:
    """A header and a row each; all columns but the first hold numbers. Where they were timed on two
    devices, the last one says on which."""
    header = ("", sides[0].metric, "weights on disk", "parameters", "rows a second")
    speeds = [format_number(side.rows_per_second) for side in sides]
    if len({side.device for side in sides}) > 1:
        speeds = [f"{s} on {side.device}" for s, side in zip(speeds, sides, strict=True)]
    rows = [
        (
            clean_line(side.name),
            format_number(side.value),
            format_bytes(side.bytes),
            format_count(side.parameters),
            speed,
        )
        for side, speed in zip(sides, speeds, strict=True)
    ]
    return [header, *rows]


def side_lines(sides: Sequence[Side]) -> str:
    """The same for a terminal."""
    return "\n".join(align_table(side_table(sides), right=(1, 2, 3, 4)))
