"""Examine data before an hour is spent on it.

    python check.py --config configs/imdb_lora.toml
    python check.py --csv reviews.csv data.group=film
    python check.py --run runs/imdb_lora --next unlabelled.csv --count 50      # or --curve

Near duplicates, doubtful labels, groups on two sides of a cut, rare classes, templates, garbled
letters; which rows to label next, and what more would be worth. docs/data-check.md
"""

import argparse
import contextlib
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from job.console import prepare_console, read_words
from job.ending import run_command

if TYPE_CHECKING:
    from configs.schema import Config


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Examine the data of a recipe, or of a table, before training on it.",
        epilog="example: python check.py --csv reviews.csv. Exit status: 1 where a line has ✘.",
    )
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="a setting")
    parser.add_argument("--config", type=Path, help="the recipe, a TOML file")
    parser.add_argument("--csv", type=Path, help="a table (CSV, TSV, JSON, Parquet, Excel)")
    parser.add_argument("--unset", action="append", default=[], metavar="KEY",
                        help="remove a section or key of the recipe; once for each")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print one JSON object a finding")
    parser.add_argument("--out", type=Path, metavar="FILE",
                        help="where it goes (check.jsonl, next.jsonl)")  # fmt: skip
    parser.add_argument("--show", type=int, default=0, metavar="N",
                        help="print N training rows as the model reads them")  # fmt: skip
    parser.add_argument("--run", type=Path, help="a finished run, with --next or --curve")
    parser.add_argument("--next", type=Path, metavar="POOL", dest="pool",
                        help="rows of this table that are best labelled next")  # fmt: skip
    parser.add_argument("--column", action="append", default=[], metavar="NAME",
                        help="column of the text in POOL; twice for pairs")  # fmt: skip
    parser.add_argument("--count", type=int, default=50, help="how many of them (50)")
    parser.add_argument("--curve", action="store_true",
                        help="train on 12, 25, 50 %%: what doubling the rows is worth")  # fmt: skip
    parser.add_argument("--allow-code", action="store_true",
                        help="with --run: run code of your own (head, method, loss)")  # fmt: skip
    options = parser.parse_intermixed_args(arguments)
    if [options.config, options.csv, options.run].count(None) != 2:
        parser.error("give --config RECIPE.toml, --csv FILE or --run RUN: one of them")
    if (options.pool is not None) + options.curve != (options.run is not None):
        parser.error("--next POOL or --curve goes with --run RUN: one of them")
    if options.curve and options.out is not None:
        parser.error("--curve writes no file for --out")
    if options.run is not None and (options.overrides or options.unset):
        parser.error("--run is a finished run, whose settings stay as they are")
    if options.column and options.pool is None:
        parser.error("--column is about --next POOL; there is none")
    if options.count < 1:
        parser.error(f"--count is {options.count}; expected 1 or more")
    return options


def check(options: argparse.Namespace) -> bool:
    """Examine, print, write the findings; whether something is wrong."""
    start = time.monotonic()
    from job.checking.guess import open_recipe

    config, guessed = open_recipe(options.config, options.csv, options.overrides, options.unset)
    from job.checking.examine import findings_path, write_findings
    from job.console import write_marked
    from job.rows import refuse_stream
    from job.tasks.table import task_of
    from report.check import check_lines, summary_lines
    from report.format import format_seconds

    refuse_stream(config)
    path = findings_path(config, options.out, [options.config, options.csv])
    checks = []
    task = task_of(config)
    for one in task.examine(config, guessed):
        checks.append(one)
        show(options, [finding.as_dict() for finding in one.findings], list(check_lines(one)))
    old = write_findings(path, checks)
    for line in task.row_lines(config, options.show) if options.show else ():
        write_marked(sys.stderr if options.json else sys.stdout, line)
    told = summary_lines(checks, format_seconds(time.monotonic() - start), str(path))
    told += [f"what {path} held is in {old}"] if old else []
    print("\n".join(told), file=sys.stderr if options.json else sys.stdout)
    return any(one.state == "error" for one in checks)


def choose(options: argparse.Namespace) -> None:  # --next: print and write rows of a pool
    from openloop import load_run
    from job.checking.choose import choose_next, describe, write_chosen
    from job.checking.written import check_out
    from job.folder import Folder, finished_config
    from report.check import chosen_lines

    path, config = options.out or Path("next.jsonl"), finished_config(Folder(options.run))
    check_out(path, config, [options.pool])
    chosen, left_out = choose_next(
        config, options.pool, options.column, options.count,
        lambda: load_run(options.run, allow_code=options.allow_code),
    )  # fmt: skip
    old = write_chosen(path, chosen)
    show(options, [one.as_dict() for one in chosen], chosen_lines(chosen))
    kept = f"; what it held is in {old}" if old else ""
    print(f"{len(chosen)} rows in {path}{kept}; left out: {describe(left_out)}", file=sys.stderr)


def draw_curve(options: argparse.Namespace) -> None:
    """Train on shares of a run's rows, and say what doubling them is worth."""
    from openloop import open_job, run_job
    from job.checking.curve import learning_curve
    from report.check import curve_lines

    def train(config: "Config", go_on: bool) -> None:
        print(f"{'resuming' if go_on else 'training'} {config.run.name} …", file=sys.stderr)
        with open(os.devnull, "w", encoding="utf-8") as nobody, contextlib.redirect_stdout(nobody):
            run_job(open_job(config, resume=go_on, allow_code=options.allow_code))

    points = learning_curve(options.run, train)
    show(options, [one.as_dict() for one in points], curve_lines(points))


def show(options: argparse.Namespace, objects: list[dict], lines: list[str]) -> None:
    """Print lines for people, or with --json one object a line."""
    if options.json:
        from data.write import json_text

        lines = [json_text(one) for one in objects]
    print("".join(f"{line}\n" for line in lines), end="", flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0; 1 where something is wrong with the data; 2 with one readable message."""
    prepare_console()
    options = parse_arguments(read_words(sys.argv[1:] if arguments is None else arguments))
    wrong: list[bool | None] = []
    task = check if options.run is None else draw_curve if options.curve else choose
    status = run_command("check.py", lambda: wrong.append(task(options)))
    return status or int(wrong == [True])


if __name__ == "__main__":
    sys.exit(main())
