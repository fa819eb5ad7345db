"""Train a model from a recipe: a run's table of contents.

    python train.py --config configs/imdb_lora.toml
    python train.py --config configs/imdb_lora.toml train.lr=3e-4 run.name=other --unset lora
    python train.py --csv reviews.csv

config -> data -> model -> fit -> test -> export, each in a package of its own. Nothing heavy is
imported before the config is known to be right, so a typo is answered at once.
"""

import argparse
import shlex
import sys
from pathlib import Path
from typing import Any

from openloop import open_job, run_job, set_up_environment
from configs.read import difference, parse_config, read_config, trajectory, write_config
from configs.schema import Config
from engine.gate import open_gate
from engine.wait_policy import wait_passively
from engine.world import started
from files.errors import UnreadableError
from job.console import parse_once, prepare_console, read_words, write_marked
from job.ending import run_command
from job.folder import Folder, check_folder, mend_config, read_recipe, run_folder, saved_config
from job.verify import read_result
from report.evaluation import result_line
from report.plan import Plan


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Fine-tune a transformer.",
        epilog="example: python train.py --config configs/imdb_lora.toml train.lr=3e-4 run.seed=1. "
        "All settings: configs/README.md",
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="section.key=value", help="change a setting"
    )
    parser.add_argument("--config", type=Path, help="the recipe, a TOML file")
    parser.add_argument(
        "--csv", type=Path, help="train on this table (CSV, TSV, JSON, Parquet, Excel)"
    )
    parser.add_argument("--unset", action="append", default=[], metavar="KEY",
                        help="remove a section or key of the recipe; once for each")  # fmt: skip
    parser.add_argument("--dry-run", action="store_true", help="print the plan and stop")
    parser.add_argument("--show", type=int, default=0, metavar="N",
                        help="with --dry-run: N training rows as the model reads them")  # fmt: skip
    parser.add_argument(
        "--processes", metavar="N", help="with --dry-run: what N of them (or MACHINESxN) would need"
    )
    parser.add_argument("-v", "--verbose", action="store_true",
                        help="the plan with kernels, threads and fast paths")  # fmt: skip
    parser.add_argument("--plain", action="store_true",
                        help="no fast path: short for speed.plain=true")  # fmt: skip
    parser.add_argument("--resume", action="store_true", help="go on where the run stopped")
    parser.add_argument("--fresh", action="store_true", help="start again; the old run is kept")
    parser.add_argument("--eval-only", action="store_true", help="score a finished run again")
    parser.add_argument("--base", type=Path, metavar="PATH",
                        help="with --eval-only: where the adapter's base is now")  # fmt: skip
    parser.add_argument("--strict", action="store_true",
                        help="exit status 3 where an [[expect]] is not met")  # fmt: skip
    parser.add_argument("--seeds", help="train once for each: 0,1,2")
    parser.add_argument("--allow-drift", action="store_true", help="go on although things changed")
    parser.add_argument("--allow-network", action="store_true", help="--eval-only: fetch the base")
    parser.add_argument(
        "--allow-code", action="store_true", help="run code of your own (head, method, loss)"
    )
    options = parser.parse_intermixed_args(arguments)
    if options.plain:
        options.overrides.append("speed.plain=true")
    if (options.config is None) == (options.csv is None):
        parser.error("give --config RECIPE.toml or --csv FILE: one of them")
    if options.base is not None and not options.eval_only:
        parser.error("--base goes with --eval-only; a run to train names its base in model.source")
    if options.resume and options.fresh:
        parser.error("--resume goes on, --fresh starts again: one of them")
    if options.eval_only and (options.seeds or options.fresh or options.dry_run or options.resume):
        parser.error("--eval-only scores one finished run; only --allow-… and --base go with it")
    if options.show and not options.dry_run:
        parser.error("--show prints rows beside the plan: it goes with --dry-run")
    if options.processes and not options.dry_run:
        parser.error("--processes is worked out beside the plan: it goes with --dry-run; to start "
                     "several, torchrun --nproc-per-node N train.py … (docs/scale.md)")  # fmt: skip
    if options.strict and (options.eval_only or options.dry_run):
        parser.error("--strict is about what a run answers when it is trained; a finished one is "
                     "asked with predict.py --expect FILE")  # fmt: skip
    if options.seeds and options.dry_run:
        parser.error("--dry-run shows the plan of one run; leave --seeds out")
    return options


def train_run(
    config: Config, options: argparse.Namespace, command: str, shown: Plan | None = None
) -> tuple[dict[str, Any], Plan | None]:
    """One run from start to end; its result, and the plan that was shown. Where one was `shown`
    before, only what differs is printed. Raises SystemExit(143, 130 or 129) when stopped."""
    folder, leads = run_folder(config), started().rank == 0
    if leads and (not options.dry_run or options.resume):
        check_folder(config, folder, options.resume, options.fresh)
    finished = finished_result(folder) if leads and options.resume else None
    if agree(config, finished is not None):
        if finished is None:  # rank 0 has it
            return {}, shown
        result, line = finished
        notes = [] if options.dry_run else mend_config(folder, saved_config(folder))
        print("".join(f"{note}\n" for note in notes), end="")
        print(f"{folder.path} is finished, nothing to do. {line}")
        if config.expect and not options.dry_run:
            result["expectations"] = ask_again(config, folder, result, options.allow_code)
        return result, shown
    job = open_job(
        config, resume=options.resume, fresh=options.fresh, allow_code=options.allow_code,
        verbose=options.verbose, shown=shown,
    )  # fmt: skip
    if options.dry_run:
        for line in job.task.row_lines(config, options.show) if options.show else ():
            write_marked(sys.stdout, line)
        if options.processes:
            print_processes(job, options.processes)
        return {}, job.banner
    if options.csv is not None:
        write_recipe(config)
    try:
        result = run_job(job, allow_drift=options.allow_drift, command=command)
    finally:
        if not options.seeds:
            print(f"run folder: {folder.path}")
    return result, shown or job.banner


def finished_result(folder: Folder) -> tuple[dict[str, Any], str] | None:
    """The result of a run that is finished, and its figure as a sentence; None where it is not, or
    where result.json is damaged, which is said: then the run is tested again."""
    if not folder.result.exists():
        return None
    try:
        result = read_result(folder)
        return result, result_line(result)
    except UnreadableError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        print(f"{folder.result} cannot be used ({error}): the run is tested again")
        return None


def print_processes(job: Any, processes: str) -> None:
    """What the run would be on so many."""
    from job.parallel.lines import parse_processes, processes_lines

    print("\n".join(processes_lines(job, parse_processes(processes))))


def agree(config: Config, answer: bool) -> bool:
    """Rank 0's answer, on all processes of the run."""
    if started().alone:
        return answer  # nothing heavy is imported to say so
    from engine.world import from_first
    from job.meeting import meet

    meet(config)
    return from_first(answer)


def ask_again(
    config: Config, folder: Folder, result: dict[str, Any], allow_code: bool
) -> list[dict[str, Any]]:
    """What a finished run answers to the recipe's expectations."""
    from job.testing.expect import finished_expectations

    return finished_expectations(config, folder, result, allow_code)


def unmet(result: dict[str, Any], options: argparse.Namespace) -> int:
    """The exit status for expectations that are not met, where --strict asks for one."""
    return 3 * (options.strict and any(not one["met"] for one in result.get("expectations", [])))


def train_seeds(config: Config, options: argparse.Namespace, command: str) -> int:
    """Each seed in a run of its own, then mean, spread and interval; the exit status."""
    from engine.memory import release_memory
    from job.reporting.card import main_metric
    from report.seeds import seeds_table

    try:
        seeds = [int(seed) for seed in options.seeds.split(",")]
    except ValueError:
        raise ValueError(f"--seeds is {options.seeds!r}; expected integers: 0,1,2") from None
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"--seeds is {options.seeds!r}; each seed once: two runs would be equal")
    tables = config.model_dump(exclude_none=True)
    configs = {}  # all checked before the first one trains
    for seed in seeds:
        names = [f"run.seed={seed}", f"run.name={config.run.name}-seed{seed}"]
        configs[seed] = parse_config(tables, f"--seeds {options.seeds}", names)
    values, name, shown, status = {}, "accuracy", None, 0
    for seed, one in configs.items():
        print(f"seed {seed}")
        result, shown = train_run(one, options, command, shown)
        status = max(status, unmet(result, options))
        if result.get("test"):
            name, values[seed] = main_metric(result["test"])
        release_memory()  # else the next plan would count what this run held
    if values:
        print(seeds_table(f"test {name}", values))
    return status


def score(config: Config, options: argparse.Namespace) -> None:
    """Score a finished run's model on its test rows again; nothing is written."""
    from job.tasks.table import task_of

    result = task_of(config).score(
        config, options.base, options.allow_code, options.allow_drift, options.allow_network
    )
    print(result_line(result))


def config_for_csv(options: argparse.Namespace) -> Config:
    """Guess the columns of a table, say why, and make a recipe, overrides included.

    Raises ValueError where another recipe of that name is there, which would be overwritten.
    """
    from job.checking.guess import config_for_table

    config, notes = config_for_table(options.csv, options.overrides, options.unset)
    for note in notes:
        print(note)
    path = guessed_recipe_path(config)
    if path.exists() and (lines := difference(trajectory(read_config(path)), trajectory(config))):
        raise ValueError(
            f"{path} exists and differs from what was guessed now:\n  "
            + "\n  ".join(lines)
            + f"\nTrain with it (--config {path}), or give this one another name (run.name=…)."
        )
    return config


def guessed_recipe_path(config: Config) -> Path:
    """Where the recipe guessed for a table is written."""
    return Path(config.run.dir).expanduser() / f"{config.run.name}.toml"


def write_recipe(config: Config) -> None:
    """Keep the recipe of a --csv run beside its folder, for the next time."""
    path = guessed_recipe_path(config)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_config(config, path)
    print(f"recipe: {path} (edit it and train with --config {path})")


def run(words: list[str]) -> int:
    """Read the recipe and do what the words ask for; the exit status."""
    options = parse_once(parse_arguments, words)
    words = [word for word in words if word not in ("--resume", "--fresh", "-v", "--verbose")]
    command = shlex.join(["python", "train.py", *words])  # as it is repeated elsewhere
    open_gate()
    if not started().alone and (options.eval_only or options.csv is not None):
        word = "--eval-only" if options.eval_only else "--csv"
        raise ValueError(f"{word} is for one process: leave torchrun out")
    if options.csv is not None:
        config = config_for_csv(options)
    else:
        config = read_recipe(options.config, options.overrides, options.unset, options.resume)
    if options.strict and not config.expect:
        raise ValueError("--strict is about [[expect]], and the recipe has none")
    set_up_environment()
    if options.eval_only:
        score(config, options)
    elif options.seeds:
        return train_seeds(config, options, command)
    else:
        return unmet(train_run(config, options, command)[0], options)
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0; 2 with one readable message for what a user can mend; 3 with --strict where
    the trained model does not answer as expected; 129, 130, 143 stopped; 141 where nobody reads
    on."""
    wait_passively()
    prepare_console()
    words = read_words(sys.argv[1:] if arguments is None else arguments)
    return run_command("train.py", lambda: run(words), "go on with --resume")


if __name__ == "__main__":
    sys.exit(main())
