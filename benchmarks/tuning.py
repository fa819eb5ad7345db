"""tune.py beside the recipe that it is given: validation figures of both, over three seeds.

    python benchmarks/tuning.py --minutes 10
    python benchmarks/tuning.py --minutes 5 --tasks five --seeds 0

IMDb is configs/imdb_quick.toml. The other two are made of what is installed with openloop, since
no other text with such labels is: first words of docstrings, of five packages (of which is it?),
and how many arguments a function has, as log2(1 + n), from the words of its docstring. Their
recipes are those that train.py --csv guesses. Each recipe is trained in full too, without a limit
of time. Writes benchmarks/tuning.json as it goes, and tuning.md; what is there is not run again.
"""

import argparse
import csv
import importlib
import inspect
import json
import math
import pkgutil
import random
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

from child import ROOT
from machine import processor, usable_cores

PACKAGES = ("numpy", "scipy", "sklearn", "torch", "transformers")
WORDS = 40  # of a docstring; the rest names its package again and again
LEAST_WORDS = 8
ERRORS = ("rmse", "loss", "mae")


def docstrings(package: str) -> dict[str, int]:
    """The first words of the docstrings of a package's public functions and classes, each with its
    number of arguments; the package's own name is taken out."""
    module, texts = importlib.import_module(package), dict[str, int]()
    paths = [info.name for info in pkgutil.iter_modules(module.__path__, package + ".")]
    for path in [package, *(name for name in sorted(paths) if "._" not in name)]:
        try:
            members = vars(importlib.import_module(path))
        except Exception:  # a part that wants what is not installed
            continue
        for name, one in sorted(members.items()):
            if name.startswith("_") or not callable(one) or not inspect.getdoc(one):
                continue
            words = (inspect.getdoc(one) or "").replace(package, "").split()[:WORDS]
            try:
                arguments = len(inspect.signature(one).parameters)
            except (TypeError, ValueError):
                continue
            if len(words) >= LEAST_WORDS:
                texts[" ".join(words)] = arguments
    return texts


def write_tables(folder: Path, rows: int) -> None:
    """five.csv and arguments.csv, of so many docstrings of each package."""
    five, arguments = [], []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for package in PACKAGES:
            texts = docstrings(package)
            chosen = random.Random(0).sample(sorted(texts), min(rows, len(texts)))
            five += [(text, package) for text in chosen]
            arguments += [(text, f"{math.log2(1 + texts[text]):.4f}") for text in chosen]
    for name, lines in (("five", five), ("arguments", arguments)):
        with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("text", "label"), *lines])


def words_of(task: str, folder: Path) -> list[str]:
    """What names a task's recipe on a command line."""
    if task == "imdb":
        return ["--config", str(ROOT / "configs/imdb_quick.toml")]
    kind = ["data.kind=regression"] if task == "arguments" else []
    return ["--csv", str(folder / f"{task}.csv"), "data.max_length=96", *kind]


def run(script: str, words: list[str], log: Path) -> float:
    """A command to its end; its seconds."""
    start = time.perf_counter()
    with log.open("w", encoding="utf-8") as file:
        subprocess.run(
            [sys.executable, str(ROOT / script), *words], check=True, stdout=file,
            stderr=subprocess.STDOUT,
        )  # fmt: skip
    return time.perf_counter() - start


def best_of(run_folder: Path) -> tuple[str, float]:
    """The deciding figure of a run's best checkpoint on its validation rows."""
    result = json.loads((run_folder / "result.json").read_text(encoding="utf-8"))
    metric = "loss" if "rmse" in result["test"] else "accuracy"
    return metric, result["progress"]["best_value"]


def measure(task: str, seed: int, minutes: float, folder: Path) -> dict[str, Any]:
    """Recipe and search, in folders of their own."""
    place = folder / f"{task}-{seed}"
    place.mkdir(parents=True, exist_ok=True)
    common = [*words_of(task, folder), f"run.dir={place}", f"run.seed={seed}", "run.name=one"]
    own = run("train.py", [*common, "--fresh"], place / "train.log")
    words = [*common, "--minutes", f"{minutes:g}", "--seed", str(seed), "--fresh"]
    searched = run("tune.py", words, place / "tune.log")
    record = (place / "one-tune/tune.jsonl").read_text(encoding="utf-8").splitlines()
    lines = [json.loads(line) for line in record]
    metric, recipe = best_of(place / "one")
    return {
        "metric": metric, "recipe": recipe, "tuned": best_of(place / "one-tuned")[1],
        "recipe_seconds": own, "tuned_seconds": searched,
        "trials": sum(line["kind"] == "trial" for line in lines),
        "settings": next(line["settings"] for line in lines if line["kind"] == "winner"),
    }  # fmt: skip


def table(results: dict[str, dict[str, Any]], minutes: float, rows: int) -> str:
    """All of them as Markdown."""
    lines = [
        *("# A search beside its recipe", ""),
        *(f"    python benchmarks/tuning.py --minutes {minutes:g} --rows {rows}", ""),
        f"- machine: {processor()}, {usable_cores()} cores",
        "- figures of the best checkpoint on validation rows, both trained in full; of the numbers",
        "  the loss, the less the better",
        "",
        "| task | seed | figure | recipe | tuned | not worse | trials | s | search s | winner |",
        "|:--|--:|:--|--:|--:|:--|--:|--:|--:|:--|",
    ]
    for key, one in results.items():
        task, seed = key.rsplit("-", 1)
        sign = -1 if one["metric"] in ERRORS else 1
        better = "yes" if sign * (one["tuned"] - one["recipe"]) >= 0 else "no"
        words = " ".join(f"{k}={v}" for k, v in one["settings"].items()) or "the recipe itself"
        cells = [
            task, seed, one["metric"], f"{one['recipe']:.4f}", f"{one['tuned']:.4f}", better,
            one["trials"], f"{one['recipe_seconds']:.0f}", f"{one['tuned_seconds']:.0f}", words,
        ]  # fmt: skip
        lines.append("| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--tasks", default="imdb,five,arguments")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--rows", type=int, default=700, help="docstrings of each package")
    parser.add_argument("--folder", type=Path, default=Path("runs/tuning"))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    write_tables(options.folder, options.rows)
    store = options.out / "tuning.json"
    results = json.loads(store.read_text(encoding="utf-8")) if store.exists() else {}
    for seed in map(int, options.seeds.split(",")):
        for task in options.tasks.split(","):
            if f"{task}-{seed}" not in results:
                one = measure(task, seed, options.minutes, options.folder)
                results[f"{task}-{seed}"] = one
                store.write_text(json.dumps(results, indent=1), encoding="utf-8")
                print(f"{task}, seed {seed}: {one}", flush=True)
    (options.out / "tuning.md").write_text(
        table(results, options.minutes, options.rows), encoding="utf-8"
    )


if __name__ == "__main__":
    main()
