"""Runs of the tiny recipe in forked processes: interrupted at a call, resumed, compared bit by bit.

    LD_PRELOAD=shim.so python tests/faults/trials.py SPEC.json

One process imports everything once and forks for each trial, so that a trial takes the time of a
tiny run and not that of importing torch. A line of JSON on standard output for each trial.
"""

import gc
import hashlib
import importlib
import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.faults.shim import COUNT, Shim

TEMPORARY = ".*.tmp"


def import_everything(model: str) -> None:
    """All that a run imports on its way, so that a fork has it."""
    for name in ("job.prepare", "job.run", "train"):
        importlib.import_module(name)
    import transformers

    from data.cache import code_digest

    code_digest()  # kept: an edit while the trials run makes no difference
    transformers.AutoModelForSequenceClassification.from_pretrained(model)
    transformers.AutoModel.from_pretrained(model)
    gc.collect()
    gc.freeze()


def run_child(words: Sequence[str], cache: Path, output: Path, arm: Any) -> tuple[int, str]:
    """train.py in a forked process: its exit status (negative: the signal that ended it), and the
    letters of the calls that it made where it came to its end."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        status = 99
        try:
            os.close(read)
            file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(file, 1)
            os.dup2(file, 2)
            os.environ["OPENLOOP_CACHE"] = str(cache)
            shim = Shim()
            arm(shim)
            status = run_train(words)
            os.write(write, shim.kinds().encode())
        finally:
            os._exit(status)
    os.close(write)
    with os.fdopen(read, encoding="ascii") as file:
        kinds = file.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), kinds


def run_train(words: Sequence[str]) -> int:
    """train.main() as `python train.py` runs it: what it lets through is printed."""
    import traceback

    import train

    try:
        status = train.main(list(words))
        sys.stdout.flush()
    except SystemExit as error:
        status = int(error.code or 0)
    except BaseException:
        traceback.print_exc()
        status = 98
    return status


def traces(run: Path) -> dict[str, Any]:
    """All that has to come out the same: weights, optimizer, metrics without timings, predictions,
    and no half-written file left over."""
    last = sorted((run / "checkpoints").glob("step-????????"))[-1]
    files = [last / name for name in ("trainable.safetensors", "optimizer.safetensors")]
    files += [*sorted((run / "model").rglob("*.safetensors")), run / "test_predictions.jsonl"]
    lines = [
        {k: v for k, v in json.loads(line).items() if k != "train/tokens_per_s"}
        for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    result = json.loads((run / "result.json").read_text(encoding="utf-8"))
    return {
        "bits": {
            str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in files
        },
        "metrics": lines,
        "test": result["test"],
        "samples": (run / "samples.json").read_text(encoding="utf-8"),
        "leftovers": sorted(path.name for path in run.rglob(TEMPORARY)),
    }


def one_trial(
    spec: dict[str, Any], reference: dict[str, Any], mode: int, at: int
) -> dict[str, Any]:
    """Interrupt a run at its `at`-th call, resume it, and compare."""
    folder = Path(spec["folder"]) / f"{mode}-{at}"
    folder.mkdir()
    cache, output = folder / "cache", Path(f"{folder}.txt")  # outside: printing is no crash point
    if spec["warm"]:
        shutil.copytree(Path(spec["folder"]) / "whole" / "cache", cache)
    words = [*spec["words"], f"run.dir={folder / 'runs'}"]
    status, _ = run_child(words, cache, output, lambda shim: shim.arm(folder, mode, at))
    first = output.read_text(encoding="utf-8", errors="replace")
    resumed, _ = run_child([*words, "--resume"], cache, output, lambda shim: None)
    told = output.read_text(encoding="utf-8", errors="replace")
    outcome = {"mode": mode, "at": at, "status": status, "resumed": resumed, "problem": None}
    if "Traceback" in told or resumed != 0:
        outcome["problem"] = told[-3000:]
    elif status == 2 and not first.strip().splitlines()[-1].startswith(("train.py:", "run folder")):
        outcome["problem"] = f"its last words: {first[-500:]}"
    else:
        now = traces(folder / "runs" / spec["name"])
        different = [key for key in reference if now[key] != reference[key]]
        if different:
            outcome["problem"] = f"{different} differ: {[now[key] for key in different]}"[:3000]
    if outcome["problem"] is None:
        shutil.rmtree(folder)
    return outcome


def reference_run(spec: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """The run left alone, its calls counted."""
    folder = Path(spec["folder"]) / "whole"
    folder.mkdir(parents=True)
    words = [*spec["words"], f"run.dir={folder / 'runs'}"]
    cache, output = folder / "cache", Path(f"{folder}.txt")
    if spec["warm"]:
        run_child([*words, "run.name=before"], cache, output, lambda shim: None)
    status, kinds = run_child(words, cache, output, lambda shim: shim.arm(folder, COUNT))
    assert status == 0, output.read_text(encoding="utf-8")
    return traces(folder / "runs" / spec["name"]), kinds


def main(path: str) -> None:
    spec = json.loads(Path(path).read_text(encoding="utf-8"))
    import_everything(spec["model"])
    reference, kinds = reference_run(spec)
    print(json.dumps({"kinds": kinds}), flush=True)
    points = json.loads(sys.stdin.readline())  # what the test chose of them: [mode, at]
    workers = []
    for worker in range(spec["workers"]):
        child = os.fork()
        if child == 0:
            for mode, at in points[worker :: spec["workers"]]:
                line = json.dumps(one_trial(spec, reference, mode, at)) + "\n"
                os.write(1, line.encode())
            os._exit(0)
        workers.append(child)
    for child in workers:
        os.waitpid(child, 0)


if __name__ == "__main__":
    main(sys.argv[1])
