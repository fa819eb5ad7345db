"""Whether the probabilities of finished runs are what they say, without a temperature and with it.

    python train.py --config configs/imdb_quick.toml --seeds 0,1,2
    python benchmarks/calibration.py runs/imdb_quick-seed*

From test_predictions.jsonl: what a temperature did to probabilities is undone again. Intervals are
those of a bootstrap over the test rows.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import child  # noqa: F401  makes the project importable
import numpy as np

DRAWS = 2000


def read_shares(run: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
    """(N, C) probabilities without the temperature, and with it; (N,) the number of the label; and
    the run's figures. Raises ValueError where it has none for each class."""
    from job.folder import Folder
    from job.reporting.predictions import read_predictions

    folder = Folder(run)
    figures = folder.read_json("result.json", "calibration")["calibration"]
    lines = list(read_predictions(folder.predictions))
    if figures is None or not lines or not isinstance(lines[0].label, str):
        raise ValueError(f"{run} answers with no one class a row, or was not calibrated")
    names = list(lines[0].shares)
    after = np.array([[line.shares[name] for name in names] for line in lines])
    logits = np.log(np.maximum(after, 1e-300)) * figures["temperature"]
    before = np.exp(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True))
    labels = np.array([names.index(line.label) for line in lines])
    return before, after, labels, figures


def errors(shares: np.ndarray, labels: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """The calibration error of each draw of the rows. draws (D, N) numbers of rows."""
    from engine.calibrate import Bins

    sure, right = shares.max(axis=1), shares.argmax(axis=1) == labels
    made = []
    for draw in draws:
        bins = Bins()
        bins.add(sure[draw], right[draw])
        made.append(bins.error())
    return np.array(made)


def row(run: Path, seed: int = 0) -> list[str]:
    """The cells of a run: temperature, loss and error before and after, with their intervals."""
    before, after, labels, figures = read_shares(run)
    count = len(labels)
    generator = np.random.default_rng(seed)
    draws = generator.integers(0, count, size=(DRAWS, count))
    whole = np.arange(count)[None]
    cells = [run.name, f"{count:,}", f"{figures['temperature']:.3f}"]
    for name, shares in (("before", before), ("after", after)):
        error = errors(shares, labels, whole)[0]
        assert abs(error - figures["test"][f"ece_{name}"]) < 1e-6, "not what the run found"
        low, high = np.quantile(errors(shares, labels, draws), [0.025, 0.975])
        loss = -np.log(shares[np.arange(count), labels]).mean()
        cells += [f"{loss:.4f}", f"{error:.4f} ({low:.4f} to {high:.4f})"]
    return cells


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, help="folders of finished runs")
    options = parser.parse_args(words)
    columns = ("run", "test rows", "temperature", "-log p", "calibration error", "with it: -log p",
               "calibration error")  # fmt: skip
    print("| " + " | ".join(columns) + " |")
    print("| :-- |" + " --: |" * (len(columns) - 1))
    for run in options.runs:
        print("| " + " | ".join(row(run)) + " |")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
