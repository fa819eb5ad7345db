"""A finished run in other people's formats, each checked after it is written; and on to the hub.

    python export.py --run runs/imdb_lora --to sentence-transformers
    python export.py --run runs/chat_smollm2_lora --to transformers --out my_chat
    python export.py --run runs/imdb_lora --push USER/NAME --license apache-2.0 --dry-run

docs/export.md
"""

import argparse
import os
import shlex
import sys
from pathlib import Path

from job.console import prepare_console, read_words
from job.ending import end_at_signals, run_command
from job.exporting.table import FORMATS
from job.predicting.options import add_trust_options

CHECK_FAILED = 4  # exit status


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Write a finished run in another format, and check it on its test rows in a "
        "process without openloop; push it to the hub.",
        epilog="Exit status: 4 where the check failed; what was written is kept as DIR.rejected.",
    )
    parser.add_argument("--run", required=True, type=Path, help="folder of a finished run")
    parser.add_argument("--to", choices=[*FORMATS], metavar="FORMAT",
                        help=f"{', '.join(FORMATS)} (default: the first that fits)")  # fmt: skip
    parser.add_argument("--out", type=Path, metavar="DIR",
                        help="where it goes (RUN/exports/FORMAT)")  # fmt: skip
    parser.add_argument("--rows", type=int, default=500, metavar="N",
                        help="how many test rows it is checked on (500)")  # fmt: skip
    parser.add_argument("--push", metavar="USER/NAME", help="send it to this model of the hub")
    parser.add_argument("--license", metavar="ID", help="of the model: apache-2.0, mit, other, …")
    parser.add_argument("--language", action="append", default=[], metavar="CODE",
                        help="of the texts: en; once for each")  # fmt: skip
    parser.add_argument("--base-model", metavar="NAME", help="the hub's name of the base model")
    parser.add_argument("--dataset", metavar="NAME", help="the hub's name of the training rows")
    parser.add_argument("--private", action="store_true", help="push: where it is new, not public")
    parser.add_argument("--dry-run", action="store_true",
                        help="push: show what would go, open no connection")  # fmt: skip
    add_trust_options(parser)
    options = parser.parse_args(arguments)
    if options.rows < 1:
        parser.error(f"--rows is {options.rows}; expected 1 or more")
    for name in ("private", "dry_run"):
        if getattr(options, name) and not options.push:
            parser.error(f"--{name.replace('_', '-')} is about --push USER/NAME; there is none")
    if options.dry_run and options.allow_network:
        parser.error("--dry-run opens no connection, and --allow-network would: leave one out")
    if options.push and not options.license:
        parser.error("--push needs --license ID: nobody else can say under which licence it is")
    return options


def export(options: argparse.Namespace, repeat: str) -> int:
    """Write, check, print, push; the exit status."""
    from openloop import set_up_environment, verify_run
    from job.exporting.place import place_of
    from job.exporting.words import Words, check_license, check_name, check_repo
    from job.folder import Folder, check_finished

    words = Words(
        None if options.license is None else check_license(options.license),
        tuple(options.language),
        options.base_model and check_name("--base-model", options.base_model),
        options.dataset and check_name("--dataset", options.dataset),
        None if options.push is None else check_repo(options.push),
    )  # fmt: skip
    folder = Folder(options.run)
    check_finished(folder)
    if options.to is not None:
        FORMATS[options.to].needs()
    if options.to is not None or options.out is not None:
        place_of(folder, options.to or "", options.out)
    print(f"opening {options.run} …", file=sys.stderr, flush=True)
    set_up_environment()
    if options.dry_run:  # a run whose rows come from the hub would ask it
        os.environ["HF_HUB_OFFLINE"] = "1"
    verify_run(options.run, options.allow_drift)
    from job.exporting.export import export_run, written_before
    from job.exporting.source import open_source
    from job.exporting.table import best_format
    from report.parity import parity_lines

    source = open_source(
        folder, options.allow_code, options.base, options.allow_network, options.base_model
    )
    to = options.to or best_format(source)
    path = None
    if options.push and not options.allow_drift:  # which the earlier one may be without
        path = written_before(source, to, options.out, options.rows, words)
    if path is None:
        done = export_run(source, to, options.out, options.rows, words)
        end = "written" if done.good else "kept, rejected"
        print("\n".join([*parity_lines(done.table), f"{end}: {done.path}"]), flush=True)
        if not done.good:
            return CHECK_FAILED
        path = done.path
    else:
        print(f"{path} is this model already, checked")
    if options.push:
        push(options, path, repeat)
    return 0


def push(options: argparse.Namespace, path: Path, repeat: str) -> None:
    """Show what goes, and send it unless this is a dry run. Raises ValueError, with the command
    that tries again, where it cannot be sent."""
    from job.exporting.push import pack, send

    parcel = pack(path, options.push, options.run)
    print("\n".join([*parcel.lines(), "", parcel.front_matter()]), flush=True)
    if options.dry_run:
        print("a dry run: nothing was sent")
        return
    try:
        print("\n".join(send(parcel, options.private)))
    except ValueError as error:
        raise ValueError(f"{error}\nthe export is in {path}; to try again:\n  {repeat}") from None


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 where it holds; 2 with one readable message; 4 where the check failed;
    129, 130, 143 stopped."""
    prepare_console()
    words = read_words(sys.argv[1:] if arguments is None else arguments)
    options = parse_arguments(words)
    repeat = shlex.join(["python", "export.py", *words])
    return run_command("export.py", lambda: export(options, repeat))


if __name__ == "__main__":
    end_at_signals()
    sys.exit(main())
