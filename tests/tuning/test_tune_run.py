"""tune.py as a whole: killed and resumed, a grid, a range test; what is left is an ordinary run."""

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import help_seconds, result_of

import predict
import train
import tune
from openloop import open_job, run_job
from configs.read import read_config
from engine.stop import Stopped, StopRequest
from job.tuning import planned as planning
from job.tuning.grid import grid_configs, read_grid
from job.tuning.kept import keep_best, out_of_time, train_kept
from job.tuning.measure import Measured, measure
from job.tuning.plan import FEWEST_STEPS, Shape, Speeds
from job.tuning.rates import curve_of
from job.tuning.record import Record
from job.tuning.trial import open_pool
from report.rates import rates_lines, rates_svg

ROOT = Path(__file__).parent.parent.parent
SPACE = ["--space", "train.lr=1e-3|3e-2,lora.rank=2"]  # six settings: time would try more


def lines_of(path, kind):
    lines = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line["kind"] == kind]


def trials(path):
    keys = ("rung", "trial", "settings", "value", "loss", "right")
    return [tuple(line.get(key) for key in keys) for line in lines_of(path, "trial")]


@pytest.fixture
def fixed(monkeypatch):
    """Speeds that plan three trials; where this machine is faster there are more."""

    def measured(config, pool, test_rows, seconds, allow_code, stop):
        rows, validation = (len(pool.splits[name]) for name in ("train", "validation"))
        shape = Shape(rows, 2, 8, validation, test_rows, {32: 14.0})
        return Measured(shape, Speeds(300.0, 0.01, 0.001, 600.0), None, 0.0, ("query",), 128)

    monkeypatch.setattr(planning, "measure", measured)


def test_a_search_leaves_a_run_its_recipe_and_a_page(recipe, tmp_path, capsys, fixed):
    words = ["--config", str(recipe()), "--minutes", "40", *SPACE]
    assert tune.main(words) == 0
    output = capsys.readouterr().out
    runs = tmp_path / "runs"
    record = runs / "tiny-tune/tune.jsonl"
    assert len(trials(record)) >= 2
    assert trials(record)[0][2] == {}
    assert "within noise" in output or "beyond noise" in output
    assert sorted(path.name for path in (runs / "tiny-tune").iterdir()) == [
        "tune.html", "tune.jsonl",
    ]  # fmt: skip
    page = (runs / "tiny-tune/tune.html").read_text(encoding="utf-8")
    assert "Every trial over its settings" in page
    winner = lines_of(record, "winner")[0]
    compared = re.search("recipe itself (is within|beyond) noise", page)
    assert (compared is not None) == (winner["trial"] != 0)
    assert "tiny-tuned/report.html" in page
    config = read_config(runs / "tiny-tuned.toml")
    for key, value in winner["settings"].items():
        section, name = key.split(".")
        assert float(getattr(getattr(config, section), name)) == float(value)
    assert predict.load_run(runs / "tiny-tuned")(["good film"])[0].label in ("neg", "pos")
    assert tune.main([*words, "--resume"]) == 0  # nothing is left to do
    assert "finished already" in capsys.readouterr().out
    assert len(lines_of(record, "done")) == 1


def test_a_fresh_search_keeps_the_earlier_one_and_its_run(recipe, tmp_path, fixed):
    words = ["--config", str(recipe()), "--minutes", "40", *SPACE]
    assert tune.main(words) == 0
    runs = tmp_path / "runs"
    before = (runs / "tiny-tuned/result.json").read_bytes()
    assert tune.main(words) == 2  # neither asked for
    assert tune.main([*words, "--fresh"]) == 0
    assert (runs / "tiny-tuned.old-1/result.json").read_bytes() == before
    assert (runs / "tiny-tune.old-1/tune.jsonl").exists()
    assert result_of(runs / "tiny-tuned")["test"] == result_of(runs / "tiny-tuned.old-1")["test"]


def test_the_winner_is_the_run_of_its_recipe_to_the_bit(recipe, tmp_path, fixed):
    """Trained once, before it was known to win, in another folder."""
    assert tune.main(["--config", str(recipe()), "--minutes", "40", *SPACE]) == 0
    tuned = tmp_path / "runs/tiny-tuned"
    assert lines_of(tmp_path / "runs/tiny-tune/tune.jsonl", "winner")[0]["rung"] is not None
    assert read_config(tuned / "config.toml") == read_config(tmp_path / "runs/tiny-tuned.toml")
    words = ["--config", str(tmp_path / "runs/tiny-tuned.toml"), "run.name=alone"]
    assert train.main(words) == 0
    alone = tmp_path / "runs/alone"
    assert result_of(tuned)["test"] == result_of(alone)["test"]
    assert result_of(tuned)["progress"] == result_of(alone)["progress"]
    for name in ("model/adapter_model.safetensors", "test_predictions.jsonl"):
        assert (tuned / name).read_bytes() == (alone / name).read_bytes()


def test_a_run_that_pauses_has_looked_at_no_test_row_and_goes_on(recipe, tmp_path):
    config, folder = read_config(recipe()), tmp_path / "runs/tiny"
    job = open_job(config)
    job.pauses = True
    paused = run_job(job)
    assert set(paused) == {"progress"}
    assert paused["progress"]["step"] == job.plan.total_steps
    left = {path.name for path in folder.iterdir()}
    assert not left & {"result.json", "test_predictions.jsonl", "model", "README.md"}
    result = run_job(open_job(config, resume=True))
    assert result["progress"] == paused["progress"]
    assert result["test"]["n"] == 12


def test_a_trial_on_all_rows_that_is_stopped_stops_the_search(recipe):
    stop = StopRequest()

    def stopped(config, ready, goes_on):
        assert goes_on
        raise SystemExit(143)

    with pytest.raises(Stopped):
        train_kept(read_config(recipe()), stopped, stop, math.inf)
    assert stop.exit_code == 143


def test_a_stop_while_a_trial_is_opened_is_not_lost(recipe):
    stop = StopRequest()
    stop.signal = signal.SIGINT

    def train(config, ready, goes_on):
        ready(SimpleNamespace())
        raise AssertionError("it was asked to stop")

    with pytest.raises(Stopped):
        train_kept(read_config(recipe()), train, stop, math.inf)


def test_a_trial_on_all_rows_is_cut_off_where_its_time_is_over(recipe, tmp_path):
    def train(config, ready, goes_on):
        job = open_job(config, resume=goes_on)
        ready(job)
        return run_job(job)

    config = read_config(recipe())
    late = train_kept(config, train, StopRequest(), 0.0)  # long ago, on time.monotonic()
    assert late.late
    assert late.steps == FEWEST_STEPS
    assert len(late.rows) == 12


def test_of_the_runs_that_wait_the_best_is_kept_or_the_recipe_s(tmp_path):
    record = Record(tmp_path / "tune.jsonl")

    def ended(number, value):
        (tmp_path / f"trial-{number}/run").mkdir(parents=True)
        figure = {"failed": "late"} if value is None else {"value": value}
        record.add("trial", rung=1, trial=number, metric="accuracy", loss=1.0, **figure)
        keep_best(record, 1)
        return [path.name for path in tmp_path.glob("trial-*")]

    assert ended(0, 0.5) == ["trial-0"]
    assert ended(3, 0.4) == ["trial-0"]
    assert ended(5, None) == ["trial-0"]
    assert ended(7, 0.6) == ["trial-7"]
    assert ended(8, 0.6) == ["trial-7"]
    record.lines[0].pop("value")  # the recipe's own was cut off: nothing was compared with it
    (tmp_path / "trial-0").mkdir()
    assert ended(9, 0.9) == ["trial-0"]


@pytest.mark.parametrize(
    "sections",
    [
        {},
        {"lora": None, "model": {"train": "head"}},
        {"lora": None, "head": None, "model": {"source": "ngrams"}},
    ],
    ids=["lora", "kept vectors", "ngrams"],
)
def test_speeds_are_measured_on_the_recipe_s_own_steps(recipe, sections):

    config = read_config(recipe(**sections))
    pool = open_pool(config)
    measured = measure(config, pool, 12, 20.0, False, StopRequest())
    assert measured.shape.rows == len(pool.splits["train"])
    assert (measured.shape.batch, measured.shape.test) == (8, 12)
    assert measured.shape.tokens[32] > 5
    assert 0 < measured.speeds.check < 1
    assert 0 < measured.speeds.token < 1
    assert (measured.speeds.keeping > 0) == (config.model.train == "head")
    assert ("query" in measured.linears) == (config.model.source != "ngrams")


@pytest.mark.parametrize("least", [0, 3])
def test_a_training_whose_time_is_over_ends_evaluated_and_usable(recipe, tmp_path, least):
    job = open_job(read_config(recipe(samples=None)))
    job.until, job.least_steps = 0.0, least  # long ago, on time.monotonic()
    result = run_job(job)
    steps = max(1, least)
    assert job.plan.total_steps > steps
    assert (result["progress"]["step"], result["progress"]["best_step"]) == (steps, steps)
    assert out_of_time(job.config, result["progress"], job.plan.total_steps)
    assert not out_of_time(job.config, result["progress"], 1)
    assert predict.load_run(tmp_path / "runs/tiny")(["good film"])[0].label in ("neg", "pos")


def test_help_is_answered_at_once():
    assert help_seconds("tune.py") < 0.3


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["train.lr"], "SECTION.KEY=ONE,OTHER"),
        (["train.lrr=1,2"], "train.lr"),
        (["train.lr=fast"], "got fast"),
        (["train.lr=1e-3,1e-3"], "twice"),
        (["train.lr=1e-3,0.001"], "0.001 stands there twice"),
        (["run.name=a,b"], "a name of its own"),
        (["train.lr=1e-3", "train.lr=1e-4"], "twice"),
    ],
)
def test_what_is_wrong_with_a_grid_is_said(words, part):
    with pytest.raises(ValueError, match=part):
        read_grid(words)


def test_a_grid_has_each_combination_under_a_name_of_its_own(recipe):
    grid = read_grid(["train.lr=1e-3,3e-3", 'lora.targets=["query", "value"],all-linear'])
    shown = grid_configs(read_config(recipe()), grid)
    assert [one.run.name for _, one in shown] == [f"tiny-grid{n}" for n in range(1, 5)]
    assert [(one.train.lr, one.lora.targets) for _, one in shown] == [
        (1e-3, ["query", "value"]), (1e-3, "all-linear"), (3e-3, ["query", "value"]),
        (3e-3, "all-linear"),
    ]  # fmt: skip


def test_a_grid_trains_each_once_and_goes_on(recipe, tmp_path, capsys):
    words = ["--config", str(recipe(train={"max_steps": 1})), "--grid", "train.lr=1e-3,3e-3"]
    assert tune.main(words) == 0
    result = tmp_path / "runs/tiny-grid2/result.json"
    before = result.stat().st_mtime_ns
    capsys.readouterr()
    assert tune.main(words) == 2  # never over what is there
    assert "--resume" in capsys.readouterr().err
    assert tune.main([*words, "--resume"]) == 0
    output = capsys.readouterr().out
    assert output.count("nothing to do") == 2
    assert "tiny-grid1" in output.splitlines()[-1] + output.splitlines()[-2]
    assert result.stat().st_mtime_ns == before


def test_a_range_test_states_a_range_and_writes_no_recipe(recipe, tmp_path, capsys):
    path = recipe()
    before = path.read_bytes()
    assert tune.main(["--config", str(path), "--lr-range"]) == 0
    output = capsys.readouterr().out
    assert "no range can be told" in output or " to " in output.splitlines()[-2]
    assert [one.name for one in (tmp_path / "runs").iterdir()] == ["tiny-rates.svg"]
    assert path.read_bytes() == before


def test_the_range_is_where_the_loss_falls():
    rates = [10 ** (-5 + n / 20) for n in range(101)]  # to 1
    losses = [0.7 - 0.5 / (1 + (1e-3 / rate) ** 2) + 5 * rate * (rate > 0.02) for rate in rates]
    curve = curve_of(rates, losses, True)
    assert 1e-4 < curve.low < 1e-3 < curve.high < 2e-2
    lines = rates_lines(curve.rates, curve.smoothed, curve.low, curve.high, curve.broken)
    assert " to " in lines[-1]
    assert "lowest where the test ends" not in lines[-1]
    assert "left all bounds" in lines[-2]
    falling = curve_of(rates, [0.7 - 0.3 * n / 100 for n in range(101)], False)
    line = rates_lines(falling.rates, falling.smoothed, falling.low, falling.high, False)[-1]
    assert "it is lowest where the test ends, so higher rates may do as well" in line
    assert rates_svg(curve.rates, curve.losses, curve.smoothed).startswith("<svg")


def test_a_loss_that_never_falls_has_no_range():
    curve = curve_of([1e-4, 1e-3, 1e-2], [0.69, 0.69, 0.7], False)
    assert (curve.low, curve.high) == (None, None)
    assert "no range" in rates_lines(curve.rates, curve.smoothed, None, None, False)[-1]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_killed_and_resumed_it_has_the_same_trials_and_winner(recipe, tmp_path):
    """A space of five settings, so that speed decides nothing."""
    path = str(recipe(train={"epochs": 4}))
    words = ["--config", path, "--minutes", "20", "--space", "train.lr=1e-3|3e-2,lora.rank=4"]
    record = tmp_path / "runs/tiny-tune/tune.jsonl"
    process = subprocess.Popen([sys.executable, "tune.py", *words], cwd=ROOT)
    while not (record.exists() and record.read_bytes().count(b'"kind": "trial"') >= 2):
        assert process.poll() is None
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    before = record.read_bytes()
    before = before[: before.rindex(b"\n") + 1]  # the last line may be cut short
    assert b'"kind": "winner"' not in before
    assert tune.main([*words, "--resume"]) == 0
    assert record.read_bytes().startswith(before)
    assert tune.main([*words, f"run.dir={tmp_path / 'whole'}"]) == 0
    whole = tmp_path / "whole/tiny-tune/tune.jsonl"
    assert len(trials(record)) == 5
    assert trials(record) == trials(whole)
    winners = [lines_of(one, "winner")[0]["settings"] for one in (record, whole)]
    assert winners[0] == winners[1]
    runs = [tmp_path / "runs/tiny-tuned", tmp_path / "whole/tiny-tuned"]
    assert result_of(runs[0])["test"] == result_of(runs[1])["test"]
