"""Rows a second of a bag of n-grams: its script on numpy alone, its run, and a transformer's run.

    python benchmarks/bags.py --bag runs/imdb_ngrams_distill --beside runs/imdb_quick

All three answer the same texts, from the text to the probabilities, in one process and in turns;
each turn counts as ratios, so that what else the machine does slows all of them. The texts are
those in the bag run's test_predictions.jsonl, as they were cleaned.
"""

import argparse
import importlib.util
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import child  # noqa: F401  makes the project importable
import numpy as np

AIM = 200.0  # times as many rows a second as the transformer
LONG = 4  # times as many rows for the run of the bag, 16 times for its script: they are soon done


def open_script(model: Path) -> Callable[[list[str]], Any]:
    """What predict_ngrams.py answers, as it lies in a run's model folder."""
    spec = importlib.util.spec_from_file_location("exported", model / "predict_ngrams.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    arrays = dict(np.load(model / "ngrams.npz"))

    def answer(texts: list[str]) -> None:
        for start in range(0, len(texts), 256):
            script.predict(arrays, texts[start : start + 256])

    return answer


def rows_a_second(answer: Callable[[list[str]], Any], texts: list[str]) -> float:
    start = time.perf_counter()
    answer(texts)
    return len(texts) / (time.perf_counter() - start)


def main() -> None:
    from openloop import load_run

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--bag", type=Path, required=True, help="finished run of a bag of n-grams")
    parser.add_argument("--beside", type=Path, required=True, help="finished run of a transformer")
    parser.add_argument("--rows", type=int, default=64, help="of the transformer in a turn")
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()
    lines = (options.bag / "test_predictions.jsonl").read_text(encoding="utf-8").splitlines()
    texts = [json.loads(line)["text"] for line in lines]
    contestants: list[tuple[str, Callable[[list[str]], Any], int]] = [
        ("transformer", load_run(options.beside), 1), ("bag's run", load_run(options.bag), LONG),
        ("bag's script", open_script(options.bag / "model"), LONG * LONG),
    ]  # fmt: skip
    ratios: dict[str, list[float]] = {}
    for turn in range(options.turns + 1):
        speeds = {}
        for name, answer, times in contestants:
            count = options.rows * times
            rows = [texts[(turn * options.rows + i) % len(texts)] for i in range(count)]
            speeds[name] = rows_a_second(answer, rows)
        if turn == 0:  # first products, first pages
            continue
        print(", ".join(f"{name} {speed:,.0f} rows/s" for name, speed in speeds.items()))
        for name, speed in speeds.items():
            ratios.setdefault(name, []).append(speed / speeds["transformer"])
    for name, values in ratios.items():
        if name != "transformer":
            print(
                f"{name}: median {median(values):,.0f} times the rows of the transformer "
                f"({min(values):,.0f} to {max(values):,.0f}; aim: {AIM:g})"
            )


if __name__ == "__main__":
    main()
