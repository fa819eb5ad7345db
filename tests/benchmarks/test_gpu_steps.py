"""The GPU check without a GPU: lengths, gaps, verdicts, and results however a step ends."""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from gpu_steps import check
from gpu_steps.cuda_tests import find_files, read_report
from gpu_steps.report import report
from gpu_steps.shapes import LENGTHS, SMALL, TASKS, make_rows, sample_lengths
from gpu_steps.targets import TARGETS, advertised_peak, judge, task_rows, verdict
from gpu_steps.timeline import Kernel, find_gaps, summarise

ROOT = Path(__file__).parent.parent.parent
BENCHMARKS = ROOT / "benchmarks"
STEPS = [step.name for step in check.STEPS]


def test_sampled_lengths_are_as_long_as_the_reviews():
    measured = json.loads(LENGTHS.read_text(encoding="utf-8"))
    lengths = sample_lengths(20_000, max_length=10_000, seed=0)
    assert np.mean(lengths) == pytest.approx(measured["mean"], rel=0.03)
    quantiles = measured["quantiles"]
    middle = quantiles[len(quantiles) // 2]
    assert np.median(lengths) == pytest.approx(middle, rel=0.03)


def test_lengths_are_cut_and_follow_the_seed():
    first, again, other = (sample_lengths(500, 512, seed) for seed in (0, 0, 1))
    assert first.max() == 512
    assert (first == again).all()
    assert (first != other).any()


def test_rows_serve_the_loaders_and_keep_their_length():
    rows = make_rows(SMALL)
    assert [len(ids) for ids in rows["input_ids"]] == rows["length"]
    assert rows.__getitems__([3, 1]) == [rows[3], rows[1]]
    assert rows.select_columns(["labels"])[0] == {"labels": 0}
    sorted_rows = rows.longest_first()
    assert sorted_rows["length"] == sorted(rows["length"], reverse=True)


def test_gaps_are_where_nothing_runs():
    kernels = [
        Kernel("long", 0, 10), Kernel("inside", 2, 4), Kernel("next", 10, 11),
        Kernel("late", 15, 16), Kernel("last", 19, 20),
    ]  # fmt: skip
    assert find_gaps(kernels) == [
        {"us": 4, "after": "next", "before": "late"},
        {"us": 3, "after": "late", "before": "last"},
    ]


def test_a_step_is_summed_up_from_the_kernels_of_several():
    kernels = [Kernel("a", 0, 6), Kernel("b", 7, 9), Kernel("a", 19, 20)]
    found = summarise(kernels, steps=2)
    assert (found["launches"], found["kernel_us"], found["span_us"]) == (1.5, 4.5, 10)
    assert found["idle_share"] == pytest.approx(11 / 20)
    assert (found["waits"], found["wait_us"]) == (0.5, 5)  # 1 us is two kernels in line
    assert found["kernels"][0] == {"name": "a", "calls": 2, "us": 7, "share": 7 / 9}


def test_without_kernels_there_is_nothing_to_sum_up():
    assert summarise([], steps=2) == {"launches": 0}


def row(tokens, flops=100, failed=None):
    """What a contestant left, two windows of one second."""
    windows = [{"tokens": tokens, "flops": flops, "seconds": 1.0, "peak": 7}] * 2
    if failed:
        return {"windows": [], "failed": failed}
    return {"windows": windows, "built": 5.0, "first_step": 2.0}


def test_ratios_and_shares_of_a_task():
    found = {"openloop": row(60, 300), "stock": row(10), "tuned": row(20)}
    ours, stock, _ = task_rows(found, measured=600, advertised=1000)
    assert (ours["to_stock"], ours["to_tuned"]) == (6, 3)
    assert (ours["of_measured"], ours["of_advertised"]) == (0.5, 0.3)
    assert (ours["first_step"], ours["peak"], stock["to_stock"]) == (7.0, 7, 1)


def test_who_failed_is_a_row_without_figures_and_leaves_the_others_theirs():
    found = {"openloop": row(60), "stock": row(0, failed="out of memory"), "tuned": row(20)}
    ours, stock, _ = task_rows(found, None, None)
    assert (ours["to_stock"], ours["to_tuned"], ours["of_measured"]) == (None, 3, None)
    assert stock["failed"] == "out of memory"
    assert stock["tokens_per_s"] is None


def test_the_best_of_ours_is_judged():
    found = {"openloop": row(50), "uncompiled": row(60), "stock": row(10), "tuned": row(20)}
    judged = judge("minilm_lora", task_rows(found, None, 1000), "NVIDIA H100")
    assert judged["to_stock"] == {"best": 6, "target": 6, "verdict": "met"}
    assert judged["to_tuned"]["verdict"] == "missed"
    assert judged["of_advertised"]["verdict"] == "missed"


def test_without_a_gpu_nothing_is_judged():
    rows = task_rows({"openloop": row(50), "stock": row(10)}, None, None)
    assert {part["verdict"] for part in judge("bert_eval", rows, None).values()} == {"–"}


@pytest.mark.parametrize(("value", "said"), [(None, "–"), (2.0, "met"), (1.99, "missed")])
def test_a_verdict(value, said):
    assert verdict(value, 2) == said


def test_every_task_has_its_target_and_h100s_their_peak():
    assert TASKS.keys() == TARGETS.keys()
    assert advertised_peak("NVIDIA H100 80GB HBM3") == 989e12
    assert advertised_peak("some other card") is None


def test_a_files_lack_of_a_package_is_no_failure():
    cases = """<testsuites><testsuite>
        <testcase classname="a" name="passes"/>
        <testcase classname="a" name="skips"><skipped/></testcase>
        <testcase classname="a" name="fails"><failure message="assert">x</failure></testcase>
        <testcase classname="" name="b"><error message="collection failure"
          >E   ModuleNotFoundError: No module named 'datasets'</error></testcase>
        </testsuite></testsuites>"""
    assert read_report(cases) == {
        "passed": 1, "skipped": 1, "failed": ["a::fails"], "lacking": {"b": "datasets"},
    }  # fmt: skip


def test_files_with_cuda_tests_are_found():
    assert ROOT / "tests" / "engine" / "test_cuda.py" in find_files()


def test_a_step_leaves_the_later_ones_their_least():
    first, second = check.Step("a", 90, 30, 0), check.Step("b", 60, 30, 20)
    assert check.limit_of(first, [second], "full", 480) == 90
    assert check.limit_of(first, [second], "full", 100) == 80
    assert check.limit_of(first, [second], "quick", 480) == 30
    assert check.limit_of(first, [second], "quick", 20) == 20


def test_a_quick_run_leaves_out_the_curves():
    assert "curves" not in [step.name for step in check.chosen_steps("quick", None)]
    assert [step.name for step in check.chosen_steps("full", None)] == STEPS
    assert [step.name for step in check.chosen_steps("full", ["syncs"])] == ["syncs"]


@pytest.mark.parametrize(
    ("left_behind", "code", "status"),
    [
        ({"status": "ok", "reason": "", "figures": {"a": 1}}, 0, "ok"),
        ({"status": "cut off", "reason": "", "figures": {"a": 1}}, None, "cut off"),
        ({"status": "cut off", "reason": "", "figures": {"a": 1}}, -11, "failed"),
        (None, 1, "failed"),
    ],
)
def test_a_step_that_ended_early_keeps_its_figures(tmp_path, left_behind, code, status):
    path = tmp_path / "result.json"
    if left_behind:
        path.write_text(json.dumps(left_behind), encoding="utf-8")
    found = check.read_result(path, code, 5.0)
    assert found["status"] == status
    assert found["figures"] == (left_behind or {"figures": {}})["figures"]


def test_a_process_that_takes_too_long_is_ended_with_what_it_started(tmp_path, monkeypatch):
    monkeypatch.setattr(check, "GRACE", 0.0)
    command = ["sh", "-c", "sleep 60 & echo $!; sleep 60"]
    with (tmp_path / "log").open("w+", encoding="utf-8") as log:
        assert check.run_child(command, log, 3.0) is None
    started = int((tmp_path / "log").read_text(encoding="utf-8"))
    end = time.monotonic() + 10  # a signal takes a moment to arrive
    while is_alive(started) and time.monotonic() < end:
        time.sleep(0.05)
    assert not is_alive(started)


def is_alive(process):
    try:
        status = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    except OSError:
        return False
    return "Z (zombie)" not in status


def test_a_report_shows_what_there_is():
    steps = {
        "environment": {"status": "ok", "reason": "", "seconds": 3, "figures": {}},
        "resume": {"status": "failed", "reason": "other bits", "seconds": 9, "figures": {}},
        "throughput": {
            "status": "cut off", "reason": "not done after 3 s", "seconds": 3,
            "figures": {"tasks": {"bert_eval": {"openloop": row(60), "stock": row(10)}}},
        },
    }  # fmt: skip
    content = {"command": "c", "date": "d", "commit": "e", "seconds": 1.0, "steps": steps}
    text = report(content)
    assert "| resume | failed | 9 | other bits |" in text
    assert "| bert_eval | openloop | 60 | 6.00 | – |" in text


@pytest.mark.slow
def test_all_steps_import_where_datasets_and_pydantic_are_missing():
    modules = ", ".join(f"gpu_steps.{name}" for name in [*STEPS, "contestant", "step"])
    code = f"import sys, {modules}, trainer\n"
    code += "assert not {'datasets', 'pydantic', 'tomli_w'} & set(sys.modules)\n"
    code += "from importlib.util import find_spec; assert find_spec('datasets') is None"
    path = [BENCHMARKS / "gpu_steps" / "bare", BENCHMARKS, ROOT]
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": ":".join(map(str, path))},
        capture_output=True, encoding="utf-8", check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
