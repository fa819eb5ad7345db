"""What rows that check.py --next chooses are worth beside rows drawn by chance.

    python benchmarks/next_rows.py              # five seeds, about ten minutes

For each seed a model learns from LABELLED real reviews, COUNT more are chosen out of a pool, by
--next and by chance, and a model learns from both again; all are tested on the same 2,000 others.
Prints each accuracy, and the mean gain of --next over chance with its 95 % interval over the seeds.
"""

import argparse
import contextlib
import csv
import io
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import child  # noqa: F401  makes the project importable
import numpy as np

import check
import train
from configs.read import read_config
from data.prepare import load_data
from job.rows import data_args
from report.intervals import mean_interval

RECIPE = Path(__file__).parent.parent / "configs/imdb_ngrams.toml"
LABELLED, COUNT, POOL, VALIDATION, TEST = 500, 500, 5000, 500, 2000
NAMES = ("negative", "positive")
Review = tuple[str, str]


def draw_reviews(seed: int) -> list[Review]:
    """Enough real reviews with their labels, in an order of the seed's."""
    config = read_config(RECIPE, ["data.validation=0", "data.test=0", "data.subset={}"])
    rows = load_data(data_args(config)).splits["train"]
    wanted = LABELLED + POOL + VALIDATION + TEST
    picked = rows.select(np.random.default_rng(seed).permutation(len(rows))[:wanted])
    return [(t, NAMES[i]) for t, i in zip(picked["text"], picked["label"], strict=True)]


def write_table(path: Path, rows: Sequence[Review]) -> str:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *rows])
    return str(path)


def accuracy(name: str, rows: Sequence[Review], folder: Path, held_out: dict[str, str]) -> float:
    """Of a model that learned from these rows; its run is `name`."""
    tables = {"train": write_table(folder / f"{name}.csv", rows), **held_out}
    source = ", ".join(f"{split} = {json.dumps(path)}" for split, path in tables.items())
    words = [f"run.name={name}", f"run.dir={folder}", f"data.source={{{source}}}"]
    words += ["eval.baseline=false", "data.subset={}", "--unset", "data.filter"]
    words += ["--unset", "samples"]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        status = train.main(["--config", str(RECIPE), *words])
    assert status == 0, f"{name} ended with {status}"
    result = json.loads((folder / name / "result.json").read_text(encoding="utf-8"))
    return float(result["test"]["accuracy"])


def chosen_rows(run: Path, pool: Sequence[Review], folder: Path) -> list[Review]:
    """Those of the pool that --next takes, with their labels; line i + 2 is row i."""
    table, out = folder / "pool.csv", folder / "next.jsonl"
    write_table(table, pool)
    words = ["--run", str(run), "--next", str(table), "--count", str(COUNT), "--out", str(out)]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        assert check.main(words) == 0
    rows = [json.loads(line)["row"] for line in out.read_text(encoding="utf-8").splitlines()]
    return [pool[int(row.rpartition(":")[2]) - 2] for row in rows]


def measure(seed: int, folder: Path) -> tuple[float, float, float]:
    """Accuracy before, with the rows of --next, and with as many by chance."""
    rows = draw_reviews(seed)
    labelled, rows = rows[:LABELLED], rows[LABELLED:]
    pool, rows = rows[:POOL], rows[POOL:]
    held_out = {
        "validation": write_table(folder / "validation.csv", rows[:VALIDATION]),
        "test": write_table(folder / "test.csv", rows[VALIDATION:]),
    }
    before = accuracy("before", labelled, folder, held_out)
    chosen = chosen_rows(folder / "before", pool, folder)
    picked = [pool[i] for i in np.random.default_rng(seed).permutation(POOL)[:COUNT]]
    return (
        before,
        accuracy("next", [*labelled, *chosen], folder, held_out),
        accuracy("chance", [*labelled, *picked], folder, held_out),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="What rows chosen by check.py --next are worth.")
    parser.add_argument("--seeds", type=int, default=5, help="how often (5)")
    options = parser.parse_args()
    gains = []
    print(f"seed  {LABELLED} rows  + {COUNT} of --next  + {COUNT} by chance")
    for seed in range(options.seeds):
        with tempfile.TemporaryDirectory() as folder:
            before, chosen, chance = measure(seed, Path(folder))
        gains.append(chosen - chance)
        print(f"{seed:<4}  {before:>8.4f}  {chosen:>14.4f}  {chance:>15.4f}", flush=True)
    if len(gains) > 1:
        mean, low, high = mean_interval(gains)
        print(f"--next less chance: {mean:+.4f} ({low:+.4f} to {high:+.4f})")


if __name__ == "__main__":
    main()
