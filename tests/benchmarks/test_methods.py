"""The comparison of ways to fine-tune: its recipes exist, and its figures mean what they say."""

import json
import shutil
from pathlib import Path

import methods
import pytest
from ways import WAYS

from configs.read import read_config


@pytest.mark.parametrize("name", WAYS)
def test_every_way_is_a_recipe_with_overrides_that_are_right(name, tmp_path):
    way = WAYS[name]
    for rate in way.rates:
        settings = methods.settings_of(way, rate, 1, tmp_path)
        config = read_config(methods.CONFIGS / f"{way.recipe}.toml", settings, list(way.unset))
        assert (config.train.lr, config.run.seed) == (rate, 1)
        assert config.data.subset == methods.ROWS


def test_every_way_has_its_own_line_and_as_many_rates_as_the_others():
    assert len({way.line for way in WAYS.values()}) == len(WAYS)
    assert {len(set(way.rates)) for way in WAYS.values()} == {3}


@pytest.mark.parametrize("name", WAYS)
def test_the_pages_say_what_was_measured(name):
    store = json.loads((methods.HERE / "methods.json").read_text(encoding="utf-8"))
    row = store["measurements"].get(f"row/{name}")
    if row is None:
        pytest.skip("not measured yet")
    figure = methods.spread(row["runs"])
    assert figure in (methods.HERE / "methods.md").read_text(encoding="utf-8")
    assert figure in (methods.ROOT / "docs/methods.md").read_text(encoding="utf-8")


def test_the_table_and_the_plot_are_those_of_the_measurements(tmp_path, monkeypatch):
    for name in ("methods.json", "methods.md", "methods.svg"):
        shutil.copy(methods.HERE / name, tmp_path)
    monkeypatch.setattr("sys.argv", ["methods.py", "--table", "--out", str(tmp_path)])
    monkeypatch.setattr(methods, "processor", lambda: "another machine")
    assert methods.main() == 0
    for name in ("methods.md", "methods.svg"):
        made, kept = (folder / name for folder in (tmp_path, methods.HERE))
        assert made.read_text(encoding="utf-8") == kept.read_text(encoding="utf-8")


def run(*curve):
    return {"curve": list(curve)}


def test_an_epoch_is_the_time_between_evaluations():
    assert methods.epoch_seconds(run((50, 0.6), (60, 0.7), (70, 0.7))) == 10


def test_of_equal_evaluations_the_first_is_the_best():
    assert methods.best_seconds(run((50, 0.6), (60, 0.7), (70, 0.7))) == 60


def test_a_line_of_the_plot_never_falls():
    line = methods.best_so_far([(1, 0.5), (2, 0.8), (3, 0.7)])
    assert line == [(1, 0.5), (2, 0.8), (3, 0.8)]


def test_the_best_rate_on_validation_rows_is_the_one_repeated(monkeypatch, tmp_path):
    asked = []

    def measured(way, rate, seed, warm):
        asked.append((rate, seed))
        return {"validation": rate, "test": 1 - rate, "seconds": 1.0}

    monkeypatch.setattr(methods, "measure", measured)
    monkeypatch.setattr(methods, "warm_up", lambda way, cache: None)
    store = methods.Store(tmp_path / "methods.json", {"processor": "p"})
    row = methods.run_way(store, "lora", tmp_path)
    best = max(WAYS["lora"].rates)
    assert row["rate"] == best
    assert asked[3:] == [(best, 1), (best, 2)]
    methods.run_way(methods.Store(Path(store.path), {"processor": "p"}), "lora", tmp_path)
    assert len(asked) == 5  # nothing is measured twice
