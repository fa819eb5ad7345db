"""Seconds and bytes of a run's report.html, and of one whose test rows are repeated until there are
many.

    python benchmarks/pages.py runs/imdb_quick --rows 20000
"""

import argparse
import itertools
import json
import shutil
import tempfile
import time
from pathlib import Path

import child  # noqa: F401  makes the project importable

from job.folder import Folder
from job.reporting.page import write_page


def repeat_rows(run: Path, rows: int) -> None:
    """Test predictions of a run, again and again, each under an address of its own."""
    path = run / "test_predictions.jsonl"
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    with path.open("w", encoding="utf-8") as file:
        for number, line in enumerate(itertools.islice(itertools.cycle(lines), rows)):
            file.write(json.dumps({**line, "row": f"{line['row']}.{number}"}) + "\n")


def measure(run: Path) -> tuple[float, int]:
    """Seconds to write the page, and its bytes."""
    start = time.perf_counter()
    size = write_page(Folder(run)).stat().st_size
    return time.perf_counter() - start, size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, nargs="?", default=Path("runs/imdb_quick"))
    parser.add_argument("--rows", type=int, default=20_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "run"
        shutil.copytree(options.run, copy, ignore=shutil.ignore_patterns("checkpoints", "model"))
        for rows in (None, options.rows):
            if rows is not None:
                repeat_rows(copy, rows)
            seconds, size = measure(copy)
            name = "its own rows" if rows is None else f"{rows:,} rows"
            print(f"{name}: {seconds:.2f} s, {size / 1000:,.0f} kB")


if __name__ == "__main__":
    main()
