"""openloop and the stock Trainer with PEFT side by side, on the same rows of the same machine.

    python benchmarks/speed.py                     all tasks, then the accuracy comparison
    python benchmarks/speed.py --tasks lora256     one task
    python benchmarks/speed.py --accuracy          the accuracy comparison alone
    python benchmarks/speed.py --quick             three minutes; fails below 2.5 times

Each contestant works in a process of its own; they take turns, one window at a time, so that a
machine whose speed drifts slows all of them. The figure to quote is the median of the rounds'
ratios. Every finished window is kept in results.json: the same command does what is missing, with
--fresh all of it. Needs the development extras (peft, accelerate). Writes results.json and
results.md beside itself, or in --out.
"""

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from contestants import start_child
from machine import has_matrix_units
from tables import (
    accuracy_table,
    legend,
    machine_lines,
    speed_table,
    summarise,
)
from tasks import ACCURACY, CONTESTANTS, SEEDS, TASKS, make_config, why_not
from windows import (
    Child,
    Store,
    add_options,
    alternate,
    keep_peak,
    look_at_machine,
    open_store,
)

QUICK_TASK, QUICK_ROUNDS, QUICK_SECONDS, QUICK_LEAST = "lora256", 3, 8.0, 2.5
QUICK_NAMES = ("openloop", "stock", "stock_tuned")
ACCURACY_NAMES = ("openloop", "stock_tuned")


def run_task(
    store: Store, machine: dict[str, Any], task: str, names: Sequence[str], rounds: int,
    seconds: float,
) -> dict[str, dict[str, Any]]:  # fmt: skip
    """All windows of a task, and their summary."""
    dtype = machine["fingerprint"]["fast_dtype"]

    def start(name: str) -> Child:
        return start_child(name, TASKS[task].work, make_config(task, name, dtype))

    windows = alternate(store, task, names, rounds, seconds, start)
    return summarise(windows, store.get("peak") or {})


def run_accuracy(store: Store, fast_dtype: str) -> dict[str, list[list[list[float]]]]:
    """Learning curves of each seed, the contestants in turn."""
    curves: dict[str, list[list[list[float]]]] = {name: [] for name in ACCURACY_NAMES}
    for seed in SEEDS:
        for name in ACCURACY_NAMES:
            config = make_config("lora256", name, fast_dtype, ACCURACY, [f"run.seed={seed}"])
            chosen = f"{config.data.subset} {config.train.lr:g} {config.eval.every}"
            key = f"accuracy/{name}/seed {seed}/{chosen}"
            learned = store.get(key)
            if learned is None:
                worker = start_child(name, "learn", config)
                try:
                    worker.wait_ready()
                    learned = worker.read()
                finally:
                    worker.close()
                store.put(key, learned)
                last = learned["curve"][-1]
                print(f"accuracy, seed {seed}: {name} {last[2]:.4f} after {last[1]:.0f} s")
            curves[name].append(learned["curve"])
    return curves


def save(
    store: Store, machine: dict[str, Any], command: str, results: dict[str, Any],
    curves: dict[str, list] | None,
) -> str:  # fmt: skip
    """Write results.json and results.md, with what earlier commands measured; returns the
    Markdown."""
    content = store.content
    results = content.get("results", {}) | results
    results = {task: results[task] for task in TASKS if task in results}
    curves = content.get("curves") if curves is None else curves
    commands = [*(c for c in content.get("commands", []) if c != command), command]
    parts = [
        "# Results of benchmarks/speed.py",
        machine_lines(machine, store.get("peak") or {}, commands),
    ]
    if results:
        dtype = machine["fingerprint"]["fast_dtype"]
        parts += [speed_table(results, dtype), legend(list(results))]
    if curves is not None:
        parts += ["## Accuracy after the same epoch, lora256", accuracy_table(curves)]
    text = "\n\n".join(parts) + "\n"
    content |= {"commands": commands, "machine": machine, "results": results, "curves": curves}
    store.write()
    store.path.with_suffix(".md").write_text(text, encoding="utf-8")
    return text


def verdict(ratio: float, cores: int, peak: Mapping[str, float]) -> tuple[str, int]:
    """What to say of the quick comparison, and the exit code."""
    line = f"openloop is {ratio:.2f} times the best stock contestant on {QUICK_TASK}"
    lacking = ["two cores"] if cores < 2 else []
    lacking += ["bf16 matrix units"] if not has_matrix_units(peak) else []
    if lacking:
        return f"{line}; {QUICK_LEAST} is not enforced without {' and '.join(lacking)}", 0
    if ratio >= QUICK_LEAST:
        return f"{line}; at least {QUICK_LEAST} was asked for", 0
    return f"{line}: too slow, at least {QUICK_LEAST} is asked for", 1


def quick() -> int:
    """The short form: one task, three alternations, nothing kept. Returns the exit code."""
    machine = look_at_machine()
    fingerprint = machine["fingerprint"]
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "quick.json", fingerprint)
        keep_peak(store, machine["peak"])
        rows = run_task(store, machine, QUICK_TASK, QUICK_NAMES, QUICK_ROUNDS, QUICK_SECONDS)
    print("\n" + speed_table({QUICK_TASK: rows}, fingerprint["fast_dtype"]) + "\n")
    ratio = rows["openloop"]["to_best"]["median"]
    line, code = verdict(ratio, fingerprint["cores"], machine["peak"])
    print(line)
    return code


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tasks", help=f"some of {','.join(TASKS)}")
    add_options(parser, "results")
    parser.add_argument(
        "--accuracy",
        action="store_true",
        help="with --tasks: compare accuracies too; alone: nothing else (by default all is done)",
    )
    parser.add_argument("--quick", action="store_true", help="three minutes, exit code 1 if slow")
    options = parser.parse_args()
    if options.quick:
        return quick()
    everything = [] if options.accuracy else list(TASKS)
    tasks = options.tasks.split(",") if options.tasks else everything
    if unknown := [name for name in tasks if name not in TASKS]:
        parser.error(f"no task {', '.join(unknown)}; there are {', '.join(TASKS)}")
    command = " ".join(["python benchmarks/speed.py", *sys.argv[1:]])
    store, machine = open_store(options.out, "results", options.fresh)
    dtype, curves = machine["fingerprint"]["fast_dtype"], None
    results: dict[str, Any] = {}
    names = [name for name in CONTESTANTS if why_not(name, dtype) is None]
    for task in tasks:
        if results:  # again: a shared machine has slow moments
            keep_peak(store, look_at_machine()["peak"])
        results[task] = run_task(store, machine, task, names, options.rounds, options.seconds)
        save(store, machine, command, results, curves)
    if options.accuracy or not options.tasks:
        curves = run_accuracy(store, dtype)
    print("\n" + save(store, machine, command, results, curves))
    return 0


if __name__ == "__main__":
    sys.exit(main())
