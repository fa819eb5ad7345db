"""The same steps by several processes, measured: what their figures become, and real ranks."""

import pytest
import scale
from scale_tables import page

from tests.conftest import ROOT

SETTINGS = {
    "eval": {"baseline": False}, "speed": {"native": "off"},
    "train": {"epochs": 4, "micro_batch_size": 2, "accumulate": 4, "lr": 1e-2},
}  # fmt: skip


def rank(seconds, waiting, loss=0.5):
    return {
        "seconds": seconds, "steps": 10, "tokens": 1000, "waiting": waiting, "loss": loss,
        "summed_bytes": 10 * 4100, "gradient_bytes": 4000, "link_s": 1e-6, "device": "cpu",
        "backend": "gloo",
    }  # fmt: skip


def test_a_step_takes_as_long_as_its_slowest_rank():
    row = scale.summarise([rank(4.0, 1.0), rank(5.0, 2.0)])
    assert row["step_s"] == 0.5
    assert row["tokens_per_s"] == 200
    assert (row["waiting_s"], row["longest_waiting_s"]) == (pytest.approx(0.15), 0.2)
    assert row["arithmetic_bytes"] == 4000  # 2 (n-1)/n of them
    assert row["summed_bytes"] == 4100


def test_each_round_is_compared_with_its_own():
    one = [{"step_s": s, "load": 3.0, **scale.summarise([rank(10 * s, 0)])} for s in (1.0, 2.0)]
    two = [
        {"step_s": s / 2, "load": 4.0, **scale.summarise([rank(5 * s, 1), rank(5 * s, 1)])}
        for s in (1.0, 2.0)
    ]
    shown = page({
        "command": ["python", "benchmarks/scale.py"], "machine": {"processor": "P", "cores": 8},
        "steps": 10, "rounds": {"1": one, "2": two}, "recipe": ["a.toml", "train.lr=1"],
    })  # fmt: skip
    assert "3.0 to 4.0" in shown
    assert "`a.toml train.lr=1`" in shown
    assert "| 1 | 0.67 | 75 | 1.00 | 100% | – | – | – | – |" in shown
    assert "| 2 | 1.33 | 150 | 2.00 (2.00 to 2.00) | 100% | 0.100 (13%) " in shown
    assert "| 3.9 KiB | 4.0 KiB | 4.00 GB/s |" in shown


def test_losses_that_differ_are_an_error(monkeypatch):
    monkeypatch.setattr(scale, "start_all", lambda size, *_: [rank(1.0, 0, 0.5 * size)] * size)
    with pytest.raises(ValueError, match="same steps"):
        scale.measure([1, 2], 1, {}, 1.0)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_one_and_two_processes_take_the_same_steps(recipe, tmp_path):
    settings = {
        "config": str(recipe(**SETTINGS)), "steps": 4, "warm_up": 2,
        "words": ["train.max_steps=6", f"run.dir={tmp_path}"],
    }  # fmt: skip
    measured = scale.measure([1, 2], 1, settings, 180)
    (one,), (two,) = measured[1], measured[2]
    assert one["gradient_bytes"] == two["gradient_bytes"] == 4 * 578  # of LoRA and the head
    assert one["summed_bytes"] == one["waiting_s"] == 0
    # gradients, the loss, and counts: of items and tokens, of who has a gradient, of stops
    assert 0 < two["summed_bytes"] - two["gradient_bytes"] < 500
    assert 0 < two["waiting_s"] < two["step_s"]
    assert two["link_s"] > 0
    assert not list(tmp_path.glob("*/checkpoints"))  # nothing of a run is written


def test_a_failing_rank_is_heard(tmp_path):
    settings = {"config": str(tmp_path / "none.toml"), "steps": 1, "warm_up": 1, "words": []}
    with pytest.raises(ValueError, match=r"rank 0 of 1 failed:[\s\S]*none.toml"):
        scale.start_all(1, settings, 100)


def test_the_page_of_the_docs_has_the_measured_table():
    table = (ROOT / "benchmarks/scale/results.md").read_text(encoding="utf-8")
    shown = (ROOT / "docs/scale.md").read_text(encoding="utf-8")
    assert table.split("\n\n")[-1].strip() in shown
