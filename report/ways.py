"""How a model could be spread over several processes, as a table of plain text."""

from collections.abc import Sequence
from dataclasses import dataclass

from report.format import align_table, format_bytes, wrap

COLUMNS = 100
HEAD = ("each process", "weights", "gradients", "optimizer", "gathered", "activations", "in all",
        "sends a step")  # fmt: skip


@dataclass(frozen=True)
class Row:
    """Bytes of one process, by how the model is spread; or why it cannot be."""

    way: str
    bytes: tuple[int, ...] = ()  # as in HEAD
    reason: str = ""


def ways_lines(processes: str, step: str, rows: Sequence[Row], choice: str) -> list[str]:
    """The table, with what is said above it and below."""
    table = [HEAD, *((row.way, *map(format_bytes, row.bytes)) for row in rows if row.bytes)]
    refused = [f"{row.way}: not here, {row.reason}" for row in rows if row.reason]
    text = [line for one in [*refused, choice] for line in wrap(one, COLUMNS)]
    return [processes, step, "", *align_table(table, range(1, len(HEAD))), "", *text]
