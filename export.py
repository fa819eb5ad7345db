"""A finished run in other people's formats, each checked after it is written.

    python export.py --run runs/imdb_lora --to sentence-transformers
    python export.py --run runs/imdb_lora --to transformers --out imdb

docs/export.md
"""

import argparse
import sys
from pathlib import Path

from openloop import set_up_environment, verify_run
from job.console import prepare_console, read_words
from job.ending import run_command
from job.exporting.table import FORMATS

NOT_THE_SAME = 4  # exit status where the check failed


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Write a finished run in another format, and check it on its test rows in a "
        "process without openloop.",
        epilog="Exit status: 4 where the check failed; what was written is kept as DIR.rejected.",
    )
    parser.add_argument("--run", required=True, type=Path, help="folder of a finished run")
    parser.add_argument("--to", choices=[*FORMATS], help="the format (default: the first that fits)")
    parser.add_argument("--out", type=Path, metavar="DIR",
                        help="where it goes (default: RUN/exports/FORMAT)")  # fmt: skip
    parser.add_argument("--rows", type=int, default=500, metavar="N",
                        help="how many test rows it is checked on (500)")  # fmt: skip
    parser.add_argument("--base", type=Path, metavar="PATH",
                        help="where the base model of the run's adapter is now")  # fmt: skip
    parser.add_argument("--allow-code", action="store_true",
                        help="run code of your own (head, method)")  # fmt: skip
    parser.add_argument("--allow-drift", action="store_true",
                        help="go on although files of the run were changed")  # fmt: skip
    parser.add_argument("--allow-network", action="store_true",
                        help="fetch the base of the run's adapter from its hub")  # fmt: skip
    options = parser.parse_args(arguments)
    if options.rows < 1:
        parser.error(f"--rows is {options.rows}; expected 1 or more")
    return options


def export(options: argparse.Namespace) -> int:
    """Write, check, print; the exit status."""
    from job.exporting.card import Words
    from job.exporting.export import export_run
    from job.exporting.source import open_source
    from job.exporting.table import best_format
    from job.folder import Folder
    from report.parity import parity_lines

    set_up_environment()
    verify_run(options.run, options.allow_drift)
    folder = Folder(options.run)
    source = open_source(folder, options.allow_code, options.base, options.allow_network)
    to = options.to or best_format(source)
    done = export_run(source, to, options.out, options.rows, Words())
    print("\n".join([*parity_lines(done.table), f"written: {done.path}"]))
    return 0 if done.good else NOT_THE_SAME


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 where it holds; 2 with one readable message; 4 where the check failed."""
    prepare_console()
    options = parse_arguments(read_words(sys.argv[1:] if arguments is None else arguments))
    return run_command("export.py", lambda: export(options))


if __name__ == "__main__":
    sys.exit(main())
