"""tune.jsonl: what a search did and decided, a line each, on the disk before the next thing begins.

A search that goes on reads its plan, its trials and its winner from here and decides anew only what
stands in no line. The lines by their "kind": search (what was asked for), plan (rungs, and the
seconds that had gone by), trial, winner, final (the run in full) and done.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from files.read import parse_json, read_lines
from files.write import to_json

NAME = "tune.jsonl"
Line = dict[str, Any]


@dataclass
class Record:
    """The lines so far, and where further ones go."""

    path: Path
    lines: list[Line] = field(default_factory=list)

    def add(self, kind: str, **values: Any) -> Line:
        """Append a line, which is on the disk when this returns."""
        line = {"kind": kind, **values}
        with self.path.open("ab") as file:
            file.write((to_json(line) + "\n").encode())
            file.flush()
            os.fsync(file.fileno())
        self.lines.append(line)
        return line

    def last(self, kind: str) -> Line | None:
        """The newest line of a kind; None where there is none."""
        return next((line for line in reversed(self.lines) if line["kind"] == kind), None)

    def of(self, kind: str) -> Iterator[Line]:
        """All lines of a kind in their order."""
        return (line for line in self.lines if line["kind"] == kind)

    @property
    def spent(self) -> float:
        """Seconds of the search's time that had gone by at the newest line that says so."""
        return max((line["spent"] for line in self.lines if "spent" in line), default=0.0)


def read_record(path: Path) -> Record:
    """The record of a search. A last line that a crash cut short is taken off the file.

    Raises ValueError where another line is no JSON object with a kind, or the first is no search.
    """
    lines: list[Line] = []
    whole = 0
    for number, content in enumerate(read_lines(path), start=1):
        if not content.endswith(b"\n"):
            break
        line = parse_json(content, f"{path}, line {number}")
        if not isinstance(line, dict) or not isinstance(line.get("kind"), str):
            raise ValueError(f"{path}, line {number}: no object with a kind; it is damaged")
        lines.append(line)
        whole += len(content)
    if not lines or lines[0]["kind"] != "search":
        raise ValueError(f"{path} holds no search; start again with --fresh")
    os.truncate(path, whole)
    return Record(path, lines)
