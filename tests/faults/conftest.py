"""What the rounds work on: a base, its data and recipe, a finished run and one that was stopped."""

import os
import shutil
from pathlib import Path

import pytest
import tomli_w

from tests.faults.watched import Place
from tests.killed import kill_after_save

STEPS = 4


def write_recipe(place):
    """A tiny LoRA recipe; its paths lie in the folder that it is used in."""
    sections = {
        "run": {"name": "one", "dir": "runs", "keep": 2, "save_every": 1},
        "model": {"source": "base"},
        "head": {"kind": "linear", "pool": "mean"},
        "lora": {"rank": 2, "alpha": 4.0, "targets": ["query", "value"]},
        "data": {"source": "reviews.csv", "max_length": 32, "validation": 8, "test": 8},
        "train": {"max_steps": STEPS, "micro_batch_size": 4, "lr": 1e-2},
        "eval": {"baseline": False},
        "speed": {"native": "off"},
        "precision": {"dtype": "fp32", "device": "cpu"},
        "samples": {"texts": ["good film", "bad film"]},
    }
    (place / "recipe.toml").write_text(tomli_w.dumps(sections), encoding="utf-8")


@pytest.fixture(scope="session")
def places(tmp_path_factory, tiny_folder, reviews_csv):
    """Two places, each with base/, reviews.csv, recipe.toml, cache/, runs/one, which is finished,
    and runs/two, which was stopped after two of its steps."""
    import predict
    import train

    made, cache, here = [], os.environ["OPENLOOP_CACHE"], Path.cwd()
    for name in ("a", "b"):
        path = tmp_path_factory.mktemp("place") / name
        path.mkdir()
        shutil.copytree(tiny_folder, path / "base")
        shutil.copy(reviews_csv, path / "reviews.csv")
        write_recipe(path)
        os.chdir(path)
        os.environ["OPENLOOP_CACHE"] = str(path / "cache")
        if made:
            shutil.copytree(made[0].pristine / "cache", path / "cache", symlinks=True)
        try:
            assert train.main(["--config", "recipe.toml"]) == 0
            kill_after_save(2, lambda: train.main(["--config", "recipe.toml", "run.name=two"]))
            predict.load_run("runs/one")(["good film"])
        finally:
            os.chdir(here)
            os.environ["OPENLOOP_CACHE"] = cache
        pristine = path.with_name("pristine")
        shutil.copytree(path, pristine, symlinks=True)
        made.append(Place(path, pristine))
    return made
