"""What another model answered to each row of a split, computed once: memory-mapped, a row each.

A folder of the cache has them, under the rules of cache.py.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from data.cache import open_built

FILE = "answers.npy"


def open_answers(
    folder: Path, rows: int, width: int, compute: Iterable[tuple[list[int], np.ndarray]]
) -> tuple[np.ndarray, bool]:
    """(answers (rows, width) float32, whether they were in `folder` already). Where they are not
    there, whole, `compute` gives them: numbers of rows, and the answers of those rows (B, width).

    Raises ValueError where the cache cannot be written.
    """

    def write(made: Path) -> None:
        with (made / FILE).open("wb") as file:  # not mapped: a full disk is an error here
            header = {"descr": "<f4", "fortran_order": False, "shape": (rows, width)}
            np.lib.format.write_array_header_1_0(file, header)
            start = file.tell()
            for numbers, answers in compute:
                for number, row in zip(numbers, answers.astype("<f4"), strict=True):
                    file.seek(start + 4 * width * number)
                    file.write(row.tobytes())

    hit = open_built(folder, write)
    return np.load(folder / FILE, mmap_mode="r", allow_pickle=False), hit
