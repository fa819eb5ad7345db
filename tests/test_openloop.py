"""openloop from Python: what a program replaces is used, tried before step 1 and written down; and
another project's package of our name is told at once."""

import json
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch

import openloop
from openloop import load_run, open_job, read_config, run_job
from engine.loop import fit
from engine.losses import loss_from_logits

ROOT = Path(__file__).parent.parent


@pytest.fixture
def config(recipe):
    """`config(*changes)`: a run of two steps."""
    return lambda *changes: read_config(recipe(train={"max_steps": 2}), list(changes))


def losses(folder):
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [row["train/loss"] for row in map(json.loads, lines) if "train/loss" in row]


def test_a_run_from_python_is_the_run_of_the_command_line(config, tmp_path):
    import train

    result = run_job(open_job(config()))
    assert train.main(["--config", str(tmp_path / "recipe.toml"), "run.name=other"]) == 0
    assert losses(tmp_path / "runs/tiny") == losses(tmp_path / "runs/other")
    assert load_run(tmp_path / "runs/tiny")(["good film"])[0].label in ("neg", "pos")
    assert result["progress"]["step"] == 2


def test_open_job_writes_nothing_and_run_job_refuses_what_is_in_the_way(config, tmp_path):
    job = open_job(config())
    assert not (tmp_path / "runs").exists()
    run_job(job)
    with pytest.raises(ValueError, match="finished run; it is not touched"):
        run_job(open_job(config()))
    before = (tmp_path / "runs/tiny/result.json").read_text(encoding="utf-8")
    again = run_job(open_job(config(), resume=True))
    assert again["test"]["loss"] == json.loads(before)["test"]["loss"]
    before = (tmp_path / "runs/tiny/result.json").read_text(encoding="utf-8")
    run_job(open_job(config(), fresh=True))
    assert (tmp_path / "runs/tiny.old-1/result.json").read_text(encoding="utf-8") == before
    with pytest.raises(ValueError, match="one of them"):
        open_job(config(), resume=True, fresh=True)


def test_a_loss_of_ones_own_trains_and_is_written_down(config, tmp_path, capsys):
    plain = tmp_path / "runs" / "plain"
    run_job(open_job(config("run.name=plain")))
    job = open_job(config())
    job.compute_loss = loss_from_logits(lambda logits, labels: 3 * job.loss_fn(logits, labels))
    result = run_job(job)
    assert losses(tmp_path / "runs/tiny")[0] == pytest.approx(3 * losses(plain)[0], rel=1e-5)
    assert result["test"]["loss"] < 2  # evaluations keep to the recipe's loss
    assert "compute_loss is a program's own: losses.py:" in capsys.readouterr().out
    card = (tmp_path / "runs/tiny/README.md").read_text(encoding="utf-8")
    assert "was a program's own: losses.py:" in card


def test_another_loss_does_not_resume_a_run(config, tmp_path):
    job = open_job(config("run.save_every=1"))

    def stop_early(*arguments):
        *before, on_step, run_evaluation, save, stop = arguments

        def step_and_stop(*figures):
            on_step(*figures)
            signal.raise_signal(signal.SIGTERM)

        fit(*before, step_and_stop, run_evaluation, save, stop)

    job.fit = stop_early
    with pytest.raises(SystemExit):
        run_job(job)
    with pytest.raises(ValueError, match=r"test_openloop\.py:.*stop_early"):
        run_job(open_job(config("run.save_every=1"), resume=True))
    job = open_job(config("run.save_every=1"), resume=True)
    assert run_job(job, allow_drift=True)["progress"]["step"] == 2


def test_a_fit_of_ones_own_is_the_one_that_runs(config):
    job, called = open_job(config()), []

    def own_fit(*arguments):
        called.append(len(arguments))
        fit(*arguments)

    job.fit = own_fit
    run_job(job)
    assert called == [14]


def per_row(model, batch):
    logits = model(**batch["inputs"])
    return torch.nn.functional.cross_entropy(logits, batch["labels"], reduction="none")


def without_gradient(model, batch):
    return per_row(model, batch).sum().detach()


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (per_row, r"test_openloop.py:per_row returned \(3,\) for 3 rows; expected the sum"),
        (without_gradient, "depends on the model's parameters"),
        (lambda model, batch: 1.5, "returned a float"),
        (lambda model, batch: per_row(model, batch).sum() * float("nan"), "returned nan"),
    ],
)
def test_what_is_no_loss_is_refused_before_the_run_begins(config, tmp_path, loss, message):
    job = open_job(config())
    job.compute_loss = loss
    with pytest.raises(ValueError, match=message):
        run_job(job)
    assert not (tmp_path / "runs").exists()


def test_a_mean_in_place_of_a_sum_is_warned_of(config, capsys):
    job = open_job(config())
    job.compute_loss = lambda model, batch: per_row(model, batch).mean()
    run_job(job)
    assert "1 times as large for twice the rows, expected 2" in capsys.readouterr().out


def test_every_package_is_looked_for():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    checked = project["tool"]["mypy"]["files"]
    packages = {name for name in checked if not name.endswith(".py")} - {"examples"}
    assert set(openloop.PACKAGES) == packages


def start(tmp_path, code):
    """Import in a process of its own, where another project's folder comes first."""
    code = f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]; {code}"
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, encoding="utf-8",
        cwd=tmp_path, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("data/__init__.py", "import openloop"), ("models.py", "import train"),
        ("job/__init__.py", "import predict"), ("report.py", "import report, openloop"),
    ],
)  # fmt: skip
def test_another_package_of_our_name_is_told_at_once(tmp_path, name, code):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("", encoding="utf-8")
    ours = name.partition("/")[0].removesuffix(".py")
    last = start(tmp_path, code).stderr.splitlines()[-1]
    expected = (
        f"ImportError: openloop needs its package '{ours}' in {ROOT / ours}, but Python finds "
    )
    assert last.startswith(expected + str(tmp_path)), last
    assert f"sys.path.insert(0, {str(ROOT)!r})" in last


def test_a_folder_of_our_name_that_is_no_package_is_in_nobodys_way(tmp_path):
    for name in ("data", "configs"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "own.py").write_text("", encoding="utf-8")
    assert start(tmp_path, "import openloop").returncode == 0
