"""Every way to fine-tune on the same rows with the same model: accuracy, time, size, memory.

    python benchmarks/methods.py                     all of them; what is measured already is kept
    python benchmarks/methods.py --ways lora,prompt  some
    python benchmarks/methods.py --table             the table and the plot again, nothing measured

MiniLM on IMDb. Each way tries three learning rates with seed 0; the best on validation rows is run
with seeds 1 and 2 as well. Every run is train.py in a process of its own. Writes methods.json,
methods.md and methods.svg beside itself, or in --out. An interrupted command goes on where it was.
"""

import argparse
import itertools
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from child import ROOT  # makes the project importable
from machine import processor, usable_cores
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tfidf import load_rows
from ways import WAYS, Way
from windows import HERE, Store

from configs.read import read_config
from files.write import save_text
from report.format import format_bytes
from report.intervals import mean_interval
from report.page.charts import line_chart

SEEDS = (0, 1, 2)
ROWS = {"train": 400, "validation": 300, "test": 600}  # sixty runs take two slow cores two hours
TOKENS = 96
SHARED = (
    f"data.subset={{train = {ROWS['train']}, validation = {ROWS['validation']}, "
    f"test = {ROWS['test']}}}",
    f"data.max_length={TOKENS}",
    "eval.baseline=false",
    "samples.texts=[]",
)
EPOCHS = "train.epochs=2"  # a way that says another number has it in its overrides
CONFIGS = ROOT / "configs"


def settings_of(way: Way, rate: float, seed: int, folder: Path) -> list[str]:
    """The overrides of one run."""
    return [
        f"run.dir={folder}", "run.name=way", f"run.seed={seed}", *SHARED, EPOCHS, *way.overrides,
        f"train.lr={rate:g}",
    ]  # fmt: skip


def command_of(way: Way, rate: float, seed: int, folder: Path) -> list[str]:
    """One run of train.py."""
    unset = [part for key in way.unset for part in ("--unset", key)]
    return [
        sys.executable, str(ROOT / "train.py"), "--config", str(CONFIGS / f"{way.recipe}.toml"),
        *unset, *settings_of(way, rate, seed, folder),
    ]  # fmt: skip


def run_train(command: Sequence[str], log: Path, cache: Path) -> Any:
    """A command to its end, with its caches in `cache`; returns what it used. Raises RuntimeError
    with its last words where it fails."""
    environment = {**os.environ, "OPENLOOP_CACHE": str(cache)}
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, cwd=ROOT, env=environment)
        _, status, used = os.wait4(process.pid, 0)
    if code := os.waitstatus_to_exitcode(status):
        words = log.read_text(encoding="utf-8", errors="replace")[-3000:]
        raise RuntimeError(f"{' '.join(command)} ended with {code}:\n{words}")
    return used


def measure(way: Way, rate: float, seed: int, warm: Path) -> dict[str, Any]:
    """One run from command to end. It begins with what lies in `warm`, kernels and token rows; what
    a run keeps of frozen parts is not there, or the second would look faster."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        command = command_of(way, rate, seed, folder)
        shutil.copytree(warm, folder / "cache")
        start = time.time()
        used = run_train(command, folder / "log", folder / "cache")
        seconds = time.time() - start
        return {
            "seconds": seconds,
            "cpu_seconds": used.ru_utime + used.ru_stime,
            "peak": used.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
            **read_run(folder / "way", start),
        }


def read_run(run: Path, start: float) -> dict[str, Any]:
    """What a finished run tells: figures, the curve of validation accuracy over seconds since
    `start`, and what it must keep beside its base model."""
    result = json.loads((run / "result.json").read_text(encoding="utf-8"))
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    curve = [(e.wall_time - start, e.value) for e in events.Scalars("eval/accuracy")]
    kept = max((run / "checkpoints").glob("step-*/trainable.safetensors"))
    with kept.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    shapes = [entry["shape"] for name, entry in header.items() if name != "__metadata__"]
    return {
        "curve": curve,
        "validation": result["progress"]["best_value"],
        "test": result["test"]["accuracy"],
        "trainable": sum(math.prod(shape) for shape in shapes),
        "file": kept.stat().st_size,
    }


def warm_up(way: Way, cache: Path) -> None:
    """Build the kernels and the token rows of a way into `cache`."""
    command = command_of(way, way.rates[0], SEEDS[0], cache / "runs")
    run_train([*command, "--dry-run"], cache / "log", cache)


def run_way(store: Store, name: str, warm: Path) -> dict[str, Any]:
    """All runs of a way that the store has not; returns its row. `warm`: the folder of caches that
    each begins with."""
    way = WAYS[name]
    warm_up(way, warm)

    def run(rate: float, seed: int) -> dict[str, Any]:
        key = f"{name}/{rate:g}/seed {seed}"
        if store.get(key) is None:
            store.put(key, measure(way, rate, seed, warm))
        told = store.get(key)
        assert told is not None
        print(
            f"{name}, rate {rate:g}, seed {seed}: validation {told['validation']:.4f}, test "
            f"{told['test']:.4f}, {told['seconds']:.0f} s", flush=True,
        )  # fmt: skip
        return told

    trials = {rate: run(rate, SEEDS[0]) for rate in way.rates}
    best = max(trials, key=lambda rate: trials[rate]["validation"])
    return {"rate": best, "runs": [trials[best], *(run(best, seed) for seed in SEEDS[1:])]}


def fit_baseline(store: Store) -> dict[str, Any]:
    """TF-IDF with logistic regression on the same rows."""
    from job.testing.baseline import fit_bag_of_words, right_rows

    if store.get("baseline") is None:
        start = time.perf_counter()
        rows, _ = load_rows(read_config(CONFIGS / "imdb_quick.toml", list(SHARED)))
        bag = fit_bag_of_words("single", rows)
        assert bag is not None
        hits = right_rows(bag.answers, rows["test"].labels)
        seconds = time.perf_counter() - start
        fitted = {"test": float(hits.mean()), "validation": bag.validation, "seconds": seconds}
        store.put("baseline", fitted)
    told = store.get("baseline")
    assert told is not None
    return told


# From measurements to a table and a plot


def epoch_seconds(run: dict[str, Any]) -> float:
    """An epoch after the first, its evaluation included."""
    times = [seconds for seconds, _ in run["curve"]]
    return (times[-1] - times[0]) / max(1, len(times) - 1)


def best_seconds(run: dict[str, Any]) -> float:
    """From the command to the best validation accuracy."""
    return max(run["curve"], key=lambda point: (point[1], -point[0]))[0]


def spread(runs: Sequence[dict[str, Any]]) -> str:
    """Test accuracy: the mean over seeds with its 95 % interval."""
    mean, low, high = mean_interval([run["test"] for run in runs])
    return f"{mean:.3f} ({max(0, low):.3f} to {min(1, high):.3f})"


def table(rows: dict[str, dict[str, Any]], baseline: dict[str, Any]) -> str:
    """One line a way; medians over seeds for times, means for accuracies."""
    lines = [
        "| way | rate | trainable | file | s an epoch | s to the best | peak memory | validation "
        "| test (95 % over seeds) |",
        "| :-- | --: | --: | --: | --: | --: | --: | --: | --: |",
    ]
    for name, row in rows.items():
        runs = row["runs"]

        def middle(figure: Any, runs: Any = runs) -> float:
            return statistics.median(figure(run) for run in runs)

        validation = statistics.fmean(run["validation"] for run in runs)
        peak = format_bytes(max(run["peak"] for run in runs))
        lines.append(
            f"| {name}: {WAYS[name].line} | {row['rate']:g} | {runs[0]['trainable']:,} "
            f"| {format_bytes(runs[0]['file'])} | {middle(epoch_seconds):.1f} "
            f"| {middle(best_seconds):.0f} | {peak} | {validation:.3f} "
            f"| {spread(runs)} |"
        )
    lines.append(
        f"| TF-IDF with logistic regression | | | | | {baseline['seconds']:.0f} | "
        f"| {baseline['validation']:.3f} | {baseline['test']:.3f} |"
    )
    return "\n".join(lines)


def plot(rows: dict[str, dict[str, Any]]) -> str:
    """Validation accuracy over seconds from the command: seed 0 of each way, at its best rate."""
    lines = {name: best_so_far(row["runs"][0]["curve"]) for name, row in rows.items()}
    title = "Best validation accuracy so far, seed 0 of each way"
    return line_chart(lines, title, "seconds from the command", "accuracy", log_x=True)


def best_so_far(curve: Sequence[Sequence[float]]) -> list[tuple[float, float]]:
    """What one would have, stopping there."""
    values = itertools.accumulate((value for _, value in curve), max)
    return [(seconds, best) for (seconds, _), best in zip(curve, values, strict=True)]


def save(store: Store, out: Path, command: str) -> str:
    """Write methods.md and methods.svg from what is measured; returns the table."""
    rows: dict[str, dict[str, Any]] = {n: r for n in WAYS if (r := store.get(f"row/{n}"))}
    shown = table(rows, fit_baseline(store))
    counts = ", ".join(f"{count:,} {split}" for split, count in ROWS.items())
    machine = store.content["fingerprint"]
    text = f"""# Ways to fine-tune, on the same rows

    {command}

- machine: {machine["processor"]}, {machine["cores"]} cores
- MiniLM, IMDb, the last {TOKENS} tokens of each review; two epochs (features: thirty, probe: its
  optimum; contrast: as many rows in pairs; ngrams: ten epochs over whole texts)
- distillation is not in it: it needs a teacher that was trained before
- rows: {counts}
- three rates tried for each with seed 0, the best on validation kept; then seeds 0, 1 and 2
- file: what a checkpoint keeps of what trains, the head included; seconds begin at the command

{shown}

![accuracy over seconds](methods.svg)
"""
    save_text(out / "methods.md", text)
    save_text(out / "methods.svg", plot(rows))
    return shown


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--ways", default=",".join(WAYS), help=f"some of {','.join(WAYS)}")
    parser.add_argument("--table", action="store_true", help="measure nothing")
    parser.add_argument("--fresh", action="store_true", help="measure again what is there already")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of methods.json, .md, .svg")
    options = parser.parse_args()
    names = [] if options.table else options.ways.split(",")
    if unknown := [name for name in names if name not in WAYS]:
        parser.error(f"no way {', '.join(unknown)}; there are {', '.join(WAYS)}")
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "methods.json"
    machine = {"processor": processor(), "cores": usable_cores(), "rows": ROWS, "tokens": TOKENS}
    if options.table:  # of what was measured, on whatever machine
        machine = json.loads(path.read_text(encoding="utf-8"))["fingerprint"]
    store = Store(path, machine, options.fresh)
    print(store.note)
    with tempfile.TemporaryDirectory() as warm:
        for name in names:
            store.put(f"row/{name}", run_way(store, name, Path(warm)))
    print("\n" + save(store, options.out, "python benchmarks/methods.py"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
