"""Finished runs side by side.

    python compare.py runs/a runs/b      what differs, and whether b is better than a
    python compare.py runs/*             all finished runs, best first
    python compare.py runs/a --html      runs/a/report.html, of an unfinished run too

Differences are those on the same test rows: paired, with a 95 % interval and the exact p of
McNemar's test.
"""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from job.console import prepare_console, read_words
from job.ending import run_command


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Finished runs side by side: two are compared row by row, more are listed, "
        "best first, seeds of one recipe together.",
        epilog="example: python compare.py runs/imdb_lora runs/second",
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folders of runs")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--html", action="store_true", help="write report.html of each run")
    return parser.parse_args(arguments)


def compare(options: argparse.Namespace) -> None:
    """Open the runs, compare, print; or write their pages."""
    if options.html:
        from job.folder import Folder
        from job.reporting.page import write_page

        for path in options.runs:
            print(write_page(Folder(path)))
        return
    from job.reporting.compare import (
        as_json,
        compare_pair,
        list_lines,
        open_all,
        open_finished,
        pair_lines,
    )

    pair, others = None, list[str]()
    if len(options.runs) == 2:
        runs = [open_finished(path) for path in options.runs]
        pair = compare_pair(runs[0], runs[1])
        lines = pair_lines(runs[0], runs[1], pair)
    else:
        runs, others = open_all(options.runs)
        if not runs:
            raise ValueError("no finished run is among them:\n  " + "\n  ".join(others))
        lines = list_lines(runs)
    for line in others:
        print(f"compare.py: left out: {line}", file=sys.stderr)
    if options.json:
        differences = [] if pair is None else [asdict(one) for one in pair.differences]
        print(json.dumps(as_json(runs) | {"differences": differences}, ensure_ascii=False))
    else:
        print("\n".join(lines))


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0; 2 with one readable message for what a user can mend, as where runs were
    scored on other rows."""
    prepare_console()
    options = parse_arguments(read_words(sys.argv[1:] if arguments is None else arguments))
    return run_command("compare.py", lambda: compare(options))


if __name__ == "__main__":
    sys.exit(main())
