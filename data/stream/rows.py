"""The rows of a stream, taken in, in the order of order.py.

Each process reads every row of a block and makes its own micro-batches of some: what it trains
depends on no other. The next block is read piece by piece beside the micro-batches of this one, so
that no step waits for a whole block; two blocks of rows are all that memory holds.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

import numpy as np

from data.reading.rows import BadRow, Row
from data.stream.order import block_order, part_order
from data.stream.parts import Part, rows_at
from data.tables import Table

Taken = dict[str, Any]  # a row with the columns of a prepared split
Encode = Callable[[list[Taken]], list[Any]]  # each as tokens; None where it gives none


class Taker(Protocol):
    """What takes rows in, and notes those that it cannot use."""

    def needed(self) -> list[str]:
        """The columns that it looks at."""

    def take(self, row: Row | BadRow, number: int, table: Table) -> Taken | None:
        """The row with this number in the source; None where it cannot be used."""

    def check(self) -> None:
        """Raise ValueError where rows could not be used that the run may not skip."""

    def lines(self) -> list[str]:
        """What became of rows that were not used, for people."""


@dataclass(frozen=True)
class Stream:
    """Training rows that are read while a run trains. `identity` tells the content of its parts,
    as far as it is looked at before."""

    parts: tuple[Part, ...]
    buffer: int  # rows of a block
    seed: int
    taker: Taker
    identity: str

    @property
    def rows(self) -> int:
        """Rows of an epoch."""
        return sum(part.rows for part in self.parts)

    def micro_batches(
        self, epoch: int, numbers: Iterable[int], size: int, encode: Encode
    ) -> Iterator[list[Any]]:
        """The rows of the micro-batches of these numbers of an epoch as `encode` gives them, `size`
        each, the epoch's last one what is left. The numbers go up. Raises ValueError for rows that
        cannot be used, unless they are skipped."""
        blocks, before = None, 0
        for number in numbers:
            first = number * size
            if blocks is None:
                blocks = Blocks(self, epoch, first // self.buffer)
            else:
                blocks.read_ahead(first - before)
            before = first
            end = min(first + size, self.rows)
            rows = encode([blocks.at(place) for place in range(first, end)])
            made = [row for row in rows if row is not None]
            yield made + blocks.stand_ins(end, end - first - len(made), encode)

    def take_from(self, epoch: int, start: int) -> Iterator[Taken | None]:
        """The rows of an epoch from place `start` of its parts on, before blocks are shuffled."""
        needed = self.taker.needed()
        for number in part_order(len(self.parts), self.seed, epoch).tolist():
            part = self.parts[number]
            if start < part.rows:
                for place, row in part.read(needed, start):
                    yield self.taker.take(row, place, part.table)
            start = max(0, start - part.rows)

    def find(self, numbers: Sequence[int]) -> list[Taken]:
        """The rows of these numbers, to be shown; those that cannot be used are left out."""
        wanted = np.array(sorted(set(numbers)), dtype=np.int64)
        rows = rows_at(self.parts, wanted, self.taker.needed())
        taken = [
            self.taker.take(row, number, self.parts[0].table)
            for number, row in zip(wanted.tolist(), rows, strict=True)
        ]
        return [row for row in taken if row is not None]


class Blocks:
    """The shuffled blocks of an epoch from number `first` on. The place of a row that cannot be
    used is taken by another one of its block: a micro-batch has its size, and no row moves."""

    def __init__(self, stream: Stream, epoch: int, first: int) -> None:
        self.stream, self.epoch, self.number = stream, epoch, first - 1
        self.coming: list[Taken | None] = []  # of the next block, as far as it is read
        self.rows: list[Taken] = []
        self.source = stream.take_from(epoch, first * stream.buffer)

    def size(self, number: int) -> int:
        """Rows of a block; the last one has what is left."""
        return min(self.stream.buffer, self.stream.rows - number * self.stream.buffer)

    def at(self, place: int) -> Taken:
        """The row at a place of the epoch; places go up."""
        number, inside = divmod(place, self.stream.buffer)
        while self.number < number:
            self._next()
        return self.rows[inside]

    def stand_ins(self, place: int, wanted: int, encode: Encode) -> list[Any]:
        """So many rows of the block as tokens, from its place on and round, for some that give
        none."""
        made: list[Any] = []
        tried = 0
        while len(made) < wanted and tried < len(self.rows):
            at = [(place + tried + i) % len(self.rows) for i in range(wanted - len(made))]
            tried += len(at)
            made += [row for row in encode([self.rows[i] for i in at]) if row is not None]
        if wanted and not made:
            raise self._useless(len(self.rows))
        return [made[i % len(made)] for i in range(wanted)]

    def read_ahead(self, rows: int) -> None:
        """Read so many rows of the next block."""
        left = max(0, self.size(self.number + 1) - len(self.coming))
        self.coming.extend(islice(self.source, min(rows, left)))

    def _next(self) -> None:
        self.number += 1
        size = self.size(self.number)
        self.coming.extend(islice(self.source, size - len(self.coming)))
        self.stream.taker.check()
        order = block_order(size, self.stream.seed, self.epoch, self.number).tolist()
        usable = [row for row in map(self.coming.__getitem__, order) if row is not None]
        if not usable:
            raise self._useless(size)
        self.rows, self.coming = [usable[i % len(usable)] for i in range(size)], []

    def _useless(self, size: int) -> ValueError:
        """The error for a block without a row to train on."""
        return ValueError(
            f"not one of {size:,} rows that follow each other can be used (block {self.number + 1} "
            f"of epoch {self.epoch + 1}):\n  " + "\n  ".join(self.stream.taker.lines())
        )
