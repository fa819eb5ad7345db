"""Examine data before an hour is spent on it.

    python check.py --config configs/imdb_lora.toml
    python check.py --csv reviews.csv data.group=film

What the plan says of the rows, and what it cannot know: near duplicates, doubtful labels, groups on
two sides of a cut, rare classes, templates, garbled letters, other languages. docs/data-check.md
"""

import argparse
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
        epilog="example: python check.py --csv reviews.csv. Exit status: 0, 1 where something is "
        "wrong (✘), 2 where the data or the command cannot be read.",
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="section.key=value", help="change a setting"
    )
    parser.add_argument("--config", type=Path, help="the recipe, a TOML file")
    parser.add_argument("--csv", type=Path, help="a table (CSV, TSV, JSON, Parquet, Excel)")
    parser.add_argument("--unset", action="append", default=[], metavar="KEY",
                        help="remove a section or key of the recipe; once for each")  # fmt: skip
    parser.add_argument("--json", action="store_true",
                        help="print one JSON object for each finding")  # fmt: skip
    parser.add_argument("--out", type=Path, metavar="FILE",
                        help="where the findings go (check.jsonl)")  # fmt: skip
    options = parser.parse_intermixed_args(arguments)
    if (options.config is None) == (options.csv is None):
        parser.error("give --config RECIPE.toml or --csv FILE: one of them")
    return options


def open_recipe(options: argparse.Namespace) -> "Config":
    """The recipe that is named, or the one that train.py --csv would guess."""
    from configs.read import parse_config, read_config

    if options.csv is None:
        return read_config(options.config, options.overrides, options.unset)
    from job.guess import guess_recipe, read_changes

    recipe, _ = guess_recipe(options.csv, read_changes(options.overrides, options.unset))
    title = f"the recipe guessed for {options.csv}"
    return parse_config(recipe, title, options.overrides, options.unset)


def check(options: argparse.Namespace) -> bool:
    """Examine, print, write the findings; whether something is wrong."""
    start = time.monotonic()
    config = open_recipe(options)
    from data.write import json_text
    from job.checking.examine import examine, findings_path, write_findings
    from report.check import check_lines, summary_lines
    from report.format import format_seconds

    path = findings_path(config, options.out)
    checks = []
    for one in examine(config):
        checks.append(one)
        if options.json:
            lines = [json_text(finding.as_dict()) for finding in one.findings]
        else:
            lines = list(check_lines(one))
        print("".join(f"{line}\n" for line in lines), end="", flush=True)
    old = write_findings(path, checks)
    told = summary_lines(checks, format_seconds(time.monotonic() - start), str(path))
    if old is not None:
        told.append(f"what {path} held is in {old}")
    print("\n".join(told), file=sys.stderr if options.json else sys.stdout)
    return any(one.state == "error" for one in checks)


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0; 1 where something is wrong with the data; 2 with one readable message for
    what cannot be read."""
    prepare_console()
    options = parse_arguments(read_words(sys.argv[1:] if arguments is None else arguments))
    wrong: list[bool] = []
    status = run_command("check.py", lambda: wrong.append(check(options)))
    return status or int(wrong == [True])


if __name__ == "__main__":
    sys.exit(main())
