"""What check.py finds of faults that were planted in real reviews.

    python benchmarks/planted.py              # five seeds, a few minutes

2,000 reviews of the IMDb recipe, in two copies for each seed: in one 40 rows are near copies of
others (words replaced, an end cut off, a sentence added, letters swapped), in the other the labels
of 200 are flipped. Prints how many of the copies were found beside how many pairs that were not
planted, and the share of flipped labels among the first 50 doubted.
"""

import argparse
import contextlib
import csv
import io
import json
import re
import tempfile
from collections.abc import Callable
from pathlib import Path

import child  # noqa: F401  makes the project importable
import numpy as np

import check
from configs.read import read_config
from data.prepare import load_data
from job.rows import data_args

RECIPE = Path(__file__).parent.parent / "configs/imdb_quick.toml"
ROWS, COPIES, FLIPS, FIRST = 2000, 40, 200, 50
CHANGED = 0.04  # of the words of a copy
SENTENCES = (
    "I watched this with my sister last week.",
    "By the way, the picture quality was fine.",
    "That is all I have to say about it.",
)
Review = tuple[str, str]


def draw_reviews(seed: int) -> list[Review]:
    """ROWS real reviews with their labels."""
    config = read_config(RECIPE, ["data.validation=0", "data.test=0", "data.subset={}"])
    rows = load_data(data_args(config)).splits["train"]
    chosen = np.random.default_rng(seed).permutation(len(rows))[:ROWS]
    names = ("negative", "positive")
    picked = rows.select(chosen)
    return [(t, names[i]) for t, i in zip(picked["text"], picked["label"], strict=True)]


def replace_words(text: str, draw: np.random.Generator) -> str:
    """Some words become others of the same text."""
    words = text.split()
    for place in draw.permutation(len(words))[: max(1, round(CHANGED * len(words)))]:
        words[place] = words[draw.integers(len(words))]
    return " ".join(words)


def swap_letters(text: str, draw: np.random.Generator) -> str:
    """Some words get a slip of the finger, and all of them another case."""
    words = text.upper().split()
    for place in draw.permutation(len(words))[: max(1, round(CHANGED * len(words)))]:
        word = words[place]
        words[place] = word[:1] + word[2:3] + word[1:2] + word[3:]
    return " ".join(words)


def cut_end(text: str, draw: np.random.Generator) -> str:
    """The last part, 5 to 20 % of the words, is missing."""
    words = text.split()
    return " ".join(words[: round(len(words) * draw.uniform(0.8, 0.95))])


def add_sentence(text: str, draw: np.random.Generator) -> str:
    """A sentence stands in front or behind, and the punctuation is gone."""
    extra = SENTENCES[draw.integers(len(SENTENCES))]
    plain = re.sub(r"[.,!?;:]", "", text)
    return f"{extra} {plain}" if draw.random() < 0.5 else f"{plain} {extra}"


EDITS: tuple[Callable[[str, np.random.Generator], str], ...] = (
    replace_words, swap_letters, cut_end, add_sentence,
)  # fmt: skip


def plant_copies(reviews: list[Review], seed: int) -> tuple[list[Review], list[tuple[int, int]]]:
    """The reviews with the last COPIES replaced by near copies of others; the pairs."""
    draw = np.random.default_rng(seed)
    kept = reviews[: ROWS - COPIES]
    pairs = []
    for i, original in enumerate(draw.permutation(len(kept))[:COPIES]):
        text, label = kept[original]
        pairs.append((int(original), len(kept) + i))
        reviews[len(kept) + i] = EDITS[i % len(EDITS)](text, draw), label
    return reviews, pairs


def examine(rows: list[Review], folder: Path) -> list[dict]:
    """The findings of check.py on a table of these rows; line i + 2 is row i."""
    table = folder / "planted.csv"
    with table.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *rows])
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(io.StringIO()):
        status = check.main(["--csv", str(table), "--json", "--out", str(folder / "check.jsonl")])
    assert status in (0, 1), printed.getvalue()
    return [json.loads(line) for line in printed.getvalue().splitlines()]


def row_of(address: str) -> int:
    """planted.csv:2 -> 0; no review has a line end."""
    return int(address.rpartition(":")[2]) - 2


def count_copies(seed: int, folder: Path) -> tuple[int, int]:
    """How many planted copies were found, and how many findings are of rows not planted."""
    rows, pairs = plant_copies(draw_reviews(seed), seed)
    findings = [one for one in examine(rows, folder) if one["kind"] == "near_duplicate"]
    told = [{row_of(address) for address in one["rows"]} for one in findings]
    met = sum(any({*pair} <= rows for rows in told) for pair in pairs)
    return met, sum(not any({*pair} <= rows for pair in pairs) for rows in told)


def count_flips(seed: int, folder: Path) -> tuple[float, float]:
    """The share of flipped labels among the first doubted, and of the flipped that are doubted."""
    rows = draw_reviews(seed)
    flipped = {int(i) for i in np.random.default_rng(seed).permutation(ROWS)[:FLIPS]}
    other = {"negative": "positive", "positive": "negative"}
    rows = [(t, other[name] if i in flipped else name) for i, (t, name) in enumerate(rows)]
    findings = [one for one in examine(rows, folder) if one["kind"] == "label_error"]
    doubted = [row_of(one["rows"][0]) for one in findings]
    right = [row in flipped for row in doubted]
    return sum(right[:FIRST]) / FIRST, sum(right) / FLIPS


def main() -> None:
    parser = argparse.ArgumentParser(description="What check.py finds of planted faults.")
    parser.add_argument("--seeds", type=int, default=5, help="how often (5)")
    options = parser.parse_args()
    print(f"seed  of {COPIES} copies  not planted  flipped in first {FIRST}  of all flipped")
    for seed in range(options.seeds):
        with tempfile.TemporaryDirectory() as folder:
            met, others = count_copies(seed, Path(folder))
            share, recall = count_flips(seed, Path(folder))
        print(f"{seed:<4}  {met:>12}  {others:>11}  {share:>19.2f}  {recall:>14.2f}", flush=True)


if __name__ == "__main__":
    main()
