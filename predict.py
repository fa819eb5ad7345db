"""Use a finished run.

    python predict.py --run runs/imdb_lora "It was good." "Not a fan."
    python predict.py --run runs/imdb_lora --file reviews.csv --keep --output answers.csv
    python predict.py --run runs/pairs --pair "a first text" "and a second one"
    cat reviews.txt | python predict.py --run runs/imdb_lora --json -
    python predict.py --run runs/chat_smollm2_lora                       a chat
    python predict.py --run runs/chat_smollm2_lora --file prompts.jsonl --output replies.jsonl

In Python:  from openloop import load_run;  load_run("runs/imdb_lora")(["It was good."])
"""

import argparse
import sys
from functools import partial
from pathlib import Path

from openloop import load_run, open_run, verify_run  # noqa: F401  load_run: its older place
from engine.wait_policy import wait_passively
from job.console import prepare_console, read_words
from job.ending import end_at_signals, run_command
from job.predicting.options import add_decision_options, add_opening_options


def add_chat_options(parser: argparse.ArgumentParser) -> None:
    """What a language model is told, and how it replies."""
    parser.add_argument("--system", metavar="TEXT", help="chat: what the model is told first")
    parser.add_argument("--temperature", type=float, metavar="T",
                        help="chat: 0 takes the likeliest token, above it is drawn")  # fmt: skip
    parser.add_argument("--top-p", type=float, metavar="P",
                        help="chat: draw from tokens of this probability together")  # fmt: skip
    parser.add_argument("--max-tokens", type=int, metavar="N", help="chat: most tokens of a reply")
    parser.add_argument("--seed", type=int, metavar="N", help="chat: what is drawn follows from it")


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Predict with a finished run. Every row gets an answer, in order; one that "
        "cannot be read or holds no text gets an error in place of a label.",
        epilog='example: python predict.py --run runs/imdb_lora "It was good." "Not a fan."',
    )
    parser.add_argument("texts", nargs="*", help="texts to label; - reads one text a line")
    parser.add_argument("--run", required=True, help="folder of a finished run")
    parser.add_argument("--pair", nargs=2, action="append", default=[], metavar="TEXT",
                        help="two texts, for a run on pairs; once for each pair")  # fmt: skip
    parser.add_argument("--file", type=Path, help="table of texts (CSV, TSV, JSON, Parquet, Excel)"
                        " or .txt, one text a line; also packed: .gz, .bz2, .xz")  # fmt: skip
    parser.add_argument("--column", action="append", metavar="NAME",
                        help="column of the text in --file (default: as in the run); "
                        "twice for pairs of texts")  # fmt: skip
    parser.add_argument("--expect", type=Path, metavar="FILE", help="check answers against JSON "
                        'lines {"text": …, "label": …}; exit status 3 if one differs')  # fmt: skip
    parser.add_argument("--encoding", help="of --file or standard input, if it is not UTF-8")
    parser.add_argument("--output", type=Path, help="write answers here instead of printing them: "
                        ".jsonl, .csv or .parquet")  # fmt: skip
    parser.add_argument("--keep", action="store_true", help="keep the other columns of --file")
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")
    add_decision_options(parser)
    parser.add_argument("--top-k", type=int, metavar="K", help="only the K largest probabilities; "
                        "in a chat: draw from the K likeliest tokens")  # fmt: skip
    add_chat_options(parser)
    parser.add_argument("--explain", action="store_true", help="mark what each answer rests on")
    parser.add_argument("--strict", action="store_true", help="stop at the first row with an error")
    add_opening_options(parser)
    parser.add_argument("-v", "--verbose", action="store_true",
                        help="say which kernels, threads and fast paths run")  # fmt: skip
    options = parser.parse_args(arguments)
    if sum(map(bool, (options.texts, options.pair, options.file, options.expect))) > 1:
        parser.error("give texts, or - for standard input, --pair, --file or --expect: one of them")
    for name in ("output", "top_k", "explain", "strict"):
        if options.expect and getattr(options, name) is not parser.get_default(name):
            parser.error(f"--{name.replace('_', '-')} is about answers; --expect checks them")
    if "-" in options.texts and len(options.texts) > 1:
        parser.error("- reads standard input and stands alone; got other texts beside it")
    for name in ("column", "keep"):
        if getattr(options, name) and not options.file:
            parser.error(f"--{name} is about the columns of --file; there is no --file")
    if options.encoding and not (options.file or options.texts == ["-"]):
        parser.error("--encoding is that of --file or of standard input (-); there is neither")
    if options.keep and not (options.output or options.json):
        parser.error("--keep goes with --output FILE or --json, which have room for columns")
    return options


def predict(options: argparse.Namespace) -> int:
    """Check everything that needs no model, then let the run's task answer; the exit status."""
    from job.folder import Folder, finished_config

    verify_run(options.run, options.allow_drift)
    config = finished_config(Folder(Path(options.run)))
    opened = partial(
        open_run, options.run, options.device, options.allow_code, options.base, options.verbose,
        options.allow_network,
    )  # fmt: skip
    from job.tasks.table import task_of

    return task_of(config).answer(options, config, opened)


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 where every row has an answer, with or without errors; 2 with one readable
    message for what a user can mend; 3 where an answer is not the one that --expect names; 129,
    130, 143 stopped; 141 where nobody reads on."""
    wait_passively()
    prepare_console()
    options = parse_arguments(read_words(sys.argv[1:] if arguments is None else arguments))
    return run_command("predict.py", lambda: predict(options))


if __name__ == "__main__":
    end_at_signals()
    sys.exit(main())
