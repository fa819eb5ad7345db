"""What a stranger planted in a run's folder: nothing is read, written or removed through it."""

import os
import shutil

import pytest

import predict
import train
from openloop import load_run, open_job, read_config

NAMES = ("config.toml", "environment.json", "data.json", "samples.json", "metrics.jsonl",
         "README.md", "test_predictions.jsonl", "tensorboard", "checkpoints", "model",
         "checkpoints/step-00000002", "checkpoints/step-00000002/state.json", "model/base",
         "model/openloop.json", "result.json", "tensorboard/new", "of no use")  # fmt: skip
SCORE = ["--eval-only", "--allow-drift"]


@pytest.fixture
def planted(run, tmp_path):
    """`planted(name)`: a copy of a finished run, what it has there moved out and linked to."""

    def plant(name):
        folder = shutil.copytree(run, tmp_path / "runs" / "one")
        path = folder / name
        if path.exists():
            path.rename(tmp_path / "outside")
        else:
            (tmp_path / "outside").mkdir()
        path.symlink_to(tmp_path / "outside")
        return folder

    return plant


def contents(path):
    files = [p for p in [path, *path.rglob("*")] if p.is_file()]
    return {p: p.read_bytes() for p in files}


@pytest.mark.parametrize(
    ("name", "words"),
    [*((name, ["--resume"]) for name in NAMES), *((name, SCORE) for name in NAMES[:3])],
)
def test_a_run_with_a_link_in_it_is_not_gone_on_with(planted, run, tmp_path, capsys, name, words):
    folder = planted(name)
    before = contents(tmp_path)
    config = ["--config", str(run / "config.toml"), f"run.dir={folder.parent}"]
    assert train.main([*config, *words]) == 2
    assert f"{folder / name} is a link" in capsys.readouterr().err
    assert contents(tmp_path) == before


@pytest.mark.parametrize("name", ["data.json", "model", "model/openloop.json", "checkpoints"])
def test_a_run_with_a_link_in_it_is_not_asked(planted, capsys, name):
    folder = planted(name)
    assert predict.main(["--run", str(folder), "--allow-drift", "good film"]) == 2
    assert f"{folder / name} is a link" in capsys.readouterr().err
    with pytest.raises(ValueError, match="is a link"):
        load_run(folder, allow_drift=True)


def test_a_pipe_in_a_run_is_refused_before_anybody_waits(run, tmp_path, capsys):
    folder = shutil.copytree(run, tmp_path / "one")
    os.mkfifo(folder / "checkpoints" / "pipe")
    assert predict.main(["--run", str(folder), "good film"]) == 2
    assert "pipe is no regular file" in capsys.readouterr().err


def test_a_config_that_is_a_link_is_not_mended_through_it(planted, capsys):
    folder = planted("config.toml")
    assert train.main(["--config", str(folder / "config.toml"), "--resume"]) == 2
    assert "config.toml is a link" in capsys.readouterr().err


def test_from_python_a_run_with_a_link_in_it_is_not_gone_on_with(planted, run):
    folder = planted("environment.json")
    config = read_config(run / "config.toml", [f"run.dir={folder.parent}"])
    with pytest.raises(ValueError, match=r"environment\.json is a link"):
        open_job(config, resume=True)


def test_a_run_with_a_link_in_it_is_kept_aside_when_it_starts_again(recipe, planted, tmp_path):
    folder = planted("checkpoints")
    before = contents(tmp_path / "outside")
    words = ["--config", str(recipe()), f"run.dir={folder.parent}", "run.name=one"]
    assert train.main([*words, "train.max_steps=1", "--fresh"]) == 0
    assert contents(tmp_path / "outside") == before
    assert not (folder / "checkpoints").is_symlink()
