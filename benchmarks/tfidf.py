"""TF-IDF with logistic regression on the rows of a recipe: what a fine-tuned model has to beat.

    python benchmarks/tfidf.py --config configs/imdb_lora.toml
    python benchmarks/tfidf.py --config configs/imdb_lora.toml --run runs/a --run runs/b

One- and two-word terms, sublinear counts; the strength of the regularisation is chosen on the
validation rows. With finished runs (several seeds of one recipe): the difference in accuracy on
the same test rows, a mean over the runs, with a 95 % interval from a bootstrap over rows.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import child  # noqa: F401  makes the project importable
import numpy as np

from configs.read import read_config
from configs.schema import Config
from engine.intervals import paired_interval


def load_rows(config: Config) -> tuple[dict[str, Any], list[str]]:
    """split -> Rows of the recipe's own; the addresses of the test rows.

    Raises ValueError where a row has other than one class or a split is missing.
    """
    from data.prepare import load_data
    from job.rows import data_args
    from job.testing.baseline import rows_of

    data = load_data(data_args(config))
    if data.kind != "single":
        raise ValueError(f"labels are {data.kind}; expected one class a row")
    if missing := {"train", "validation", "test"} - data.splits.keys():
        raise ValueError(f"no {' and no '.join(sorted(missing))} rows; this needs all three splits")
    rows = {split: rows_of(data, split) for split in data.splits}
    return rows, list(data.splits["test"]["address"])


def read_hits(run: Path, addresses: Sequence[Any]) -> np.ndarray:
    """1 where a finished run is right, for each of these test rows. Raises ValueError where its
    test rows are others."""
    path = run / "test_predictions.jsonl"
    if not path.exists():
        raise ValueError(f"{run} has no {path.name}: give the folder of a finished run")
    lines = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    hits = {line["row"]: line["label"] == line["predicted"] for line in lines}
    if hits.keys() != set(addresses):
        common = len(hits.keys() & set(addresses))
        raise ValueError(
            f"{run} was tested on {len(hits)} rows, of which {common} are among the "
            f"{len(addresses)} here: give the same --config and overrides as that run"
        )
    return np.array([hits[address] for address in addresses], dtype=float)


def compare(hits: np.ndarray, runs: Sequence[Path], addresses: Sequence[Any]) -> str:
    """The runs' mean accuracy against TF-IDF's `hits` (N,) on the same test rows."""
    each = np.stack([read_hits(run, addresses) for run in runs])  # (runs, N)
    mean, low, high = paired_interval(each.mean(0), hits)
    shown = ", ".join(f"{value:.4f}" for value in each.mean(1))
    return (
        f"runs: {shown}, mean {each.mean():.4f}\n"
        f"runs minus TF-IDF: {mean:+.4f} (95 % {low:+.4f} to {high:+.4f}; {len(hits):,} rows, "
        f"{len(runs)} {'run' if len(runs) == 1 else 'runs'})"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--config", type=Path, required=True, help="recipe whose rows to take")
    parser.add_argument("--run", type=Path, action="append", default=[], help="a finished run")
    parser.add_argument("overrides", nargs="*", help="settings, as in data.subset={train=100}")
    options = parser.parse_args()
    from job.testing.baseline import fit_bag_of_words, right_rows

    try:
        rows, addresses = load_rows(read_config(options.config, options.overrides))
        for run in options.run:  # before the minutes of fitting
            read_hits(run, addresses)
        bag = fit_bag_of_words("single", rows)
        if bag is None:
            raise ValueError("nothing to learn: the training texts hold no words")
        hits = right_rows(bag.answers, rows["test"].labels)
        counts = ", ".join(f"{len(part.texts):,} {name}" for name, part in rows.items())
        print(f"rows: {counts}")
        print(
            f"TF-IDF, C {bag.strength:g}: validation {bag.validation:.4f}, test {hits.mean():.4f}"
        )
        if options.run:
            print(compare(hits, options.run, addresses))
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
