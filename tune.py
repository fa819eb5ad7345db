"""The best model that a time can buy: trials first, then the winner in full.

    python tune.py --config configs/imdb_quick.toml --minutes 10
    python tune.py --csv reviews.csv --minutes 10
    python tune.py --config R.toml --minutes 30 --space 'train.lr=1e-5..1e-3,lora.rank=4|8|16'
    python tune.py --config R.toml --grid train.lr=1e-4,3e-4
    python tune.py --config R.toml --lr-range

docs/tune.md says how trials are planned and what decides. Nothing heavy is imported before the
recipe is known to be right.
"""

import time

BEGUN = time.monotonic()  # loading is part of the time

import argparse  # noqa: E402
import shlex  # noqa: E402
import sys  # noqa: E402
from collections.abc import Callable  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import TYPE_CHECKING, Any  # noqa: E402

from engine.gate import open_gate  # noqa: E402
from engine.wait_policy import wait_passively  # noqa: E402
from job.console import parse_once, prepare_console, read_words  # noqa: E402
from job.ending import run_command  # noqa: E402

if TYPE_CHECKING:
    from configs.schema import Config
    from job.job import Job


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Search settings within a time, and train the best of them in full.",
        epilog="example: python tune.py --config configs/imdb_quick.toml --minutes 10. More: "
        "docs/tune.md",
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="section.key=value", help="change a setting"
    )
    parser.add_argument("--config", type=Path, help="the recipe, a TOML file")
    parser.add_argument("--csv", type=Path, help="a table, whose recipe is guessed")
    parser.add_argument("--unset", action="append", default=[], metavar="KEY",
                        help="remove a section or key of the recipe; once for each")  # fmt: skip
    parser.add_argument("--minutes", type=float, metavar="N",
                        help="time for all of it, from loading to the finished run")  # fmt: skip
    parser.add_argument("--space", action="append", default=[], metavar="KEY=LOW..HIGH,KEY=A|B",
                        help="what is tried, in place of the usual")  # fmt: skip
    parser.add_argument("--sampler", choices=("random", "tpe"),
                        help="tpe: optuna's, which learns from earlier trials")  # fmt: skip
    parser.add_argument("--seed", type=int, help="of the settings that are drawn (default: 0)")
    parser.add_argument("--grid", action="append", default=[], metavar="KEY=A,B",
                        help="in place of a search: a full run for each, or each pair")  # fmt: skip
    parser.add_argument("--lr-range", action="store_true",
                        help="in place of a search: the loss while the rate rises")  # fmt: skip
    parser.add_argument("--resume", action="store_true", help="go on where it stopped")
    parser.add_argument("--fresh", action="store_true", help="start again; the old one is kept")
    parser.add_argument(
        "--allow-code", action="store_true", help="run code of your own (head, method, loss)"
    )
    options = parser.parse_intermixed_args(arguments)
    if (options.config is None) == (options.csv is None):
        parser.error("give --config RECIPE.toml or --csv FILE: one of them")
    if options.resume and options.fresh:
        parser.error("--resume goes on, --fresh starts again: one of them")
    search = options.minutes is not None
    if search + bool(options.grid) + options.lr_range != 1:
        parser.error("give --minutes N for a search, --grid KEY=A,B or --lr-range: one of them")
    if search and not 0 < options.minutes < 1e5:
        parser.error(f"--minutes is {options.minutes:g}; expected more than 0")
    for name in ("space", "sampler", "seed"):
        if getattr(options, name) not in (None, []) and not search:
            parser.error(f"--{name} is for what a search tries: it goes with --minutes")
    if options.lr_range and (options.resume or options.fresh):
        parser.error("--lr-range is one short test: leave --resume and --fresh out")
    options.sampler, options.seed = options.sampler or "random", options.seed or 0
    if not 0 <= options.seed < 2**32:
        parser.error(f"--seed is {options.seed}; expected 0 to 2^32 - 1")
    return options


def read_recipe(options: argparse.Namespace) -> "Config":
    """The recipe that is named, or guessed for a table, which is said."""
    from job.checking.guess import open_recipe

    config, notes = open_recipe(options.config, options.csv, options.overrides, options.unset)
    print("".join(f"{note}\n" for note in notes), end="", flush=True)
    return config


def run(words: list[str], begun: float) -> int:
    """Read the recipe and do what the words ask for; the exit status. `begun`: when the time of a
    search began."""
    options = parse_once(parse_arguments, words)
    kept = [word for word in words if word not in ("--resume", "--fresh")]
    command = shlex.join(["python", "tune.py", *kept])
    from openloop import garbage_left_alone, open_job, run_job, set_up_environment

    open_gate()
    config = read_recipe(options)
    set_up_environment()
    with garbage_left_alone():
        from job.tuning.command import Begin, show_rates, train_grid, tune
        from job.tuning.planned import Wanted
    begin = Begin(options.resume, options.fresh)

    def train(config: "Config", ready: "Callable[[Job], None]", goes_on: bool) -> dict[str, Any]:
        resume = begin.resume or goes_on
        fresh = begin.fresh and not resume
        job = open_job(config, resume=resume, fresh=fresh, allow_code=options.allow_code)
        ready(job)
        return run_job(job, command=command)

    if options.grid:
        train_grid(config, options.grid, begin, train)
    elif options.lr_range:
        show_rates(config, options.allow_code)
    else:
        space = tuple(options.space)
        wanted = Wanted(config, options.sampler, options.seed, space, options.allow_code, train)
        tune(wanted, options.minutes, begun, begin)
    return 0


def main(arguments: list[str] | None = None, begun: float | None = None) -> int:
    """Exit status: 0; 2 with one readable message for what a user can mend; 129, 130, 143 stopped;
    141 where nobody reads on."""
    wait_passively()
    prepare_console()
    words = read_words(sys.argv[1:] if arguments is None else arguments)
    start = time.monotonic() if begun is None else begun
    return run_command("tune.py", lambda: run(words, start), "go on with --resume")


if __name__ == "__main__":
    sys.exit(main(begun=BEGUN))
