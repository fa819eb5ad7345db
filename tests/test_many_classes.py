"""A run of thousands of classes takes a small one's memory: nothing grows with their square."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CLASSES = 3000
CHILD = """
import sys, torch, train
from engine.estimate import peak_memory
status = train.main(sys.argv[1:])
print("peak", peak_memory(torch.device("cpu")) >> 20)
sys.exit(status)
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the peak counts the parent's too")
def test_three_thousand_classes_train_and_are_tested_in_a_gigabyte(recipe, tmp_path):
    rows = [{"text": f"film {i % CLASSES}", "label": f"class {i % CLASSES}"} for i in range(6000)]
    source = tmp_path / "rows.jsonl"
    source.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    path = recipe(
        data={"source": str(source), "kind": "single", "max_length": 8, "validation": 0.1,
              "test": 0.1, "on_overlap": "warn"},
        train={"max_steps": 2, "epochs": 1, "accumulate": 1},
        speed={"plain": True},
    )  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", CHILD, "--config", str(path)], cwd=ROOT, encoding="utf-8",
        stdout=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:]
    assert int(done.stdout.split()[-1]) < 1000  # MB; the matrix's picture alone took 23,800
    run = tmp_path / "runs" / "tiny"
    assert (run / "test_predictions.jsonl").stat().st_size < 5e6
    result = json.loads((run / "result.json").read_text(encoding="utf-8"))
    assert len(result["test"]["confusion"]) == 50
