"""Finished runs side by side.

    python compare.py runs/a runs/b      what differs, and whether b is better than a
    python compare.py runs/*             all finished runs, best first
    python compare.py runs/a --html      runs/a/report.html, of an unfinished run too
    python compare.py runs/* --html      all of these pages, and runs/compare.html

Differences are those on the same test rows: paired, with a 95 % interval and the exact p of
McNemar's test.
"""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from job.console import prepare_console, read_words
from job.ending import run_command

if TYPE_CHECKING:
    from job.reporting.compare import Finished, Pair


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Finished runs side by side: two are compared row by row, more are listed, "
        "best first, seeds of one recipe together.",
        epilog="example: python compare.py runs/imdb_lora runs/second",
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folders of runs")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--html",
        action="store_true",
        help="write report.html of each run, and of several compare.html beside them",
    )
    return parser.parse_args(arguments)


def compare(options: argparse.Namespace) -> None:
    """Open the runs, compare, print; or write their pages."""
    if options.html:
        write_pages(options.runs)
        return
    from job.reporting.compare import as_json, list_lines, pair_lines

    runs, pair = open_runs(options.runs)
    if options.json:
        differences = [] if pair is None else [asdict(one) for one in pair.differences]
        print(json.dumps(as_json(runs) | {"differences": differences}, ensure_ascii=False))
    else:
        two = len(options.runs) == 2
        lines = pair_lines(runs[0], runs[1], pair) if two else list_lines(runs)
        print("\n".join(lines))


def open_runs(paths: list[Path]) -> "tuple[list[Finished], Pair | None]":
    """The finished runs; two of them compared. Says which folders hold none."""
    from job.reporting.compare import open_all, open_finished, pair_of

    if len(paths) == 2:
        runs = [open_finished(path) for path in paths]
        return runs, pair_of(runs[0], runs[1])
    runs, others = open_all(paths)
    if not runs:
        raise ValueError("no finished run is among them:\n  " + "\n  ".join(others))
    for line in others:
        print(f"compare.py: left out: {line}", file=sys.stderr)
    return runs, None


def write_pages(paths: list[Path]) -> None:
    """The page of each run, finished or not, and where several are finished that of all."""
    from job.folder import Folder
    from job.reporting.compare import open_all, pair_of
    from job.reporting.page import write_page
    from job.reporting.sheet import write_sheet

    for path in paths:
        try:
            print(write_page(Folder(path)))
        except ValueError as error:  # among several, as runs/* has them, some are no runs
            if len(paths) == 1:
                raise
            print(f"compare.py: left out: {path}: {error}", file=sys.stderr)
    runs, _ = open_all(paths)
    if len(runs) > 1:
        alike = len(runs) == 2 and (len(paths) == 2 or runs[0].rows == runs[1].rows)
        print(write_sheet(runs, pair_of(*runs) if alike else None))


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0; 2 with one readable message for what a user can mend, as where runs were
    scored on other rows."""
    prepare_console()
    options = parse_arguments(read_words(sys.argv[1:] if arguments is None else arguments))
    return run_command("compare.py", lambda: compare(options))


if __name__ == "__main__":
    sys.exit(main())
