"""openloop and the stock Trainer with PEFT side by side, on the same rows of the same machine.

    python benchmarks/speed.py                     all tasks, then what they learn
    python benchmarks/speed.py --tasks lora256     one task
    python benchmarks/speed.py --tasks chat512,gpt2_128     the language models
    python benchmarks/speed.py --accuracy          what they learn from the same rows, alone
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
from random_gpt2 import build_gpt2, random_gpt2
from tables import (
    learning_table,
    legend,
    machine_lines,
    speed_table,
    summarise,
)
from tasks import COMPARISONS, SEEDS, TASKS, make_config, why_not
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

Curves = dict[str, list[list[list[float]]]]  # of each seed, by contestant


def run_task(
    store: Store, machine: dict[str, Any], task: str, names: Sequence[str], rounds: int,
    seconds: float,
) -> dict[str, dict[str, Any]]:  # fmt: skip
    """All windows of a task, and their summary."""
    if TASKS[task].source == random_gpt2():
        build_gpt2()
    dtype = machine["fingerprint"]["fast_dtype"]

    def start(name: str) -> Child:
        return start_child(name, TASKS[task].work, make_config(task, name, dtype))

    windows = alternate(store, task, names, rounds, seconds, start)
    return summarise(windows, store.get("peak") or {})


def run_comparison(store: Store, task: str, fast_dtype: str) -> Curves:
    """Learning curves of each seed, the contestants in turn."""
    compared = COMPARISONS[task]
    curves: Curves = {name: [] for name in compared.names}
    for seed in SEEDS:
        for name in compared.names:
            config = make_config(task, name, fast_dtype, compared.changes, [f"run.seed={seed}"])
            chosen = f"{config.data.subset} {config.data.max_length} {config.train.lr:g}"
            key = f"{compared.figure}/{name}/seed {seed}/{chosen} {config.eval.every}"
            learned = store.get(key)
            if learned is None:
                worker = start_child(name, "learn", config)
                try:
                    worker.wait_ready()
                    learned = worker.read()
                finally:
                    worker.close()
                store.put(key, learned)
                _, seconds, value = learned["curve"][-1]
                print(f"{task}, seed {seed}: {name} {compared.figure} {value:.4f} "
                      f"after {seconds:.0f} s", flush=True)  # fmt: skip
            curves[name].append(learned["curve"])
    return curves


def save(
    store: Store, machine: dict[str, Any], command: str, results: dict[str, Any],
    curves: dict[str, Curves],
) -> str:  # fmt: skip
    """Write results.json and results.md, with what earlier commands measured; returns the
    Markdown."""
    content = store.content
    results = content.get("results", {}) | results
    results = {task: results[task] for task in TASKS if task in results}
    curves = content.get("curves", {}) | curves
    commands = [*(c for c in content.get("commands", []) if c != command), command]
    parts = [
        "# Results of benchmarks/speed.py",
        machine_lines(machine, store.get("peak") or {}, commands),
    ]
    if results:
        dtype = machine["fingerprint"]["fast_dtype"]
        parts += [speed_table(results, dtype), legend(list(results))]
    for task in [name for name in COMPARISONS if name in curves]:
        compared = COMPARISONS[task]
        parts += [f"## {compared.says}", learning_table(curves[task], compared)]
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
        help="with --tasks: compare what they learn too; alone: nothing else (by default all)",
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
    dtype = machine["fingerprint"]["fast_dtype"]
    results: dict[str, Any] = {}
    curves: dict[str, Curves] = {}
    for task in tasks:
        if results:  # again: a shared machine has slow moments
            keep_peak(store, look_at_machine()["peak"])
        names = [name for name in TASKS[task].contestants if why_not(name, dtype) is None]
        results[task] = run_task(store, machine, task, names, options.rounds, options.seconds)
        save(store, machine, command, results, curves)
    for task in COMPARISONS:
        if (options.accuracy or not options.tasks) and task in (tasks or COMPARISONS):
            curves[task] = run_comparison(store, task, dtype)
            save(store, machine, command, results, curves)
    print("\n" + save(store, machine, command, results, curves))
    return 0


if __name__ == "__main__":
    sys.exit(main())
