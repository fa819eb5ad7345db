"""All steps in order of worth, each in a process of its own with its own time limit.

benchmarks/gpu_check.sh calls it. gpu_check.json is written after each step, so a run that is cut
off keeps what it has; a step that fails or takes too long never stops the next.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from child import ROOT

from gpu_steps.context import write_json
from gpu_steps.report import report, say

TOTAL = {"full": 480.0, "quick": 120.0, "dry": 600.0}  # seconds in all; a dry run judges no speed
LEAST = 5.0  # seconds with which a step is begun at all
GRACE = 5.0  # seconds between being told to end and being ended


@dataclass(frozen=True)
class Step:
    """`limit`: the most seconds, `quick` those of a quick run (0: not part of it), `least` what a
    full run keeps back for it while the steps before it run."""

    name: str
    limit: float
    quick: float
    least: float


STEPS = (
    Step("environment", 40, 20, 0),
    Step("cuda_tests", 150, 22, 10),
    Step("resume", 90, 25, 15),
    Step("syncs", 60, 18, 10),
    Step("curves", 90, 0, 10),
    Step("throughput", 330, 28, 150),
    Step("profiles", 60, 10, 20),
)


def chosen_steps(size: str, names: Sequence[str] | None) -> list[Step]:
    """The steps of a run, or those of them that are named."""
    steps = [step for step in STEPS if size != "quick" or step.quick]
    return [step for step in steps if names is None or step.name in names]


def limit_of(step: Step, later: Sequence[Step], size: str, left: float) -> float:
    """Seconds for a step, of `left` for it and all later ones."""
    if size == "full":
        return min(step.limit, left - sum(other.least for other in later))
    return min(step.quick, left) if size == "quick" else left


def commit() -> str:
    """The commit of this checkout, "+" where files differ from it."""
    try:
        head, changes = (
            subprocess.run(
                ["git", *words], cwd=ROOT, capture_output=True, encoding="utf-8", check=True
            ).stdout.strip()
            for words in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown (no git here)"
    return head[:12] + ("+" if changes else "")


def run_child(command: Sequence[str], log: Any, seconds: float) -> int | None:
    """The exit code of a process that may take so long; None where it was ended, with all that it
    started."""
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
    )
    try:
        return process.wait(seconds + GRACE)
    except subprocess.TimeoutExpired:
        return None
    finally:  # also what a step that ended left behind
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def read_result(path: Path, code: int | None, seconds: float) -> dict[str, Any]:
    """What a step left behind, however it ended."""
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        result = {"status": "cut off", "reason": "", "figures": {}}
    if code is None:
        result |= {"status": "cut off", "reason": f"not done after {seconds:.0f} s"}
    elif code != 0 or result["status"] == "cut off":
        result |= {"status": "failed", "reason": f"the process ended with {code}: see the log"}
    return result


def run_step(
    step: Step, size: str, out: Path, seconds: float, before: Mapping[str, Any], log: Any
) -> dict[str, Any]:
    """A step's result: status, reason, figures and seconds."""
    start = time.monotonic()
    if seconds < LEAST:
        return {"status": "skipped", "reason": "no time was left", "figures": {}, "seconds": 0.0}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        scratch, result = Path(folder), Path(folder) / "result.json"
        write_json(scratch / "before.json", before)
        arguments = {
            "size": size, "scratch": folder, "out": str(out), "result": str(result),
            "before": str(scratch / "before.json"), "seconds": seconds,
        }  # fmt: skip
        command = [sys.executable, "-m", "gpu_steps.step", step.name, json.dumps(arguments)]
        log.write(f"\n===== {step.name} =====\n")
        log.flush()
        code = run_child(command, log, seconds)
        content = read_result(result, code, seconds)
    return content | {"seconds": time.monotonic() - start}


def run_all(size: str, out: Path, names: Sequence[str] | None) -> dict[str, Any]:
    """All steps; gpu_check.json and gpu_check.md hold at any time what there is."""
    start, steps = time.monotonic(), chosen_steps(size, names)
    content: dict[str, Any] = {
        "command": " ".join(["bash benchmarks/gpu_check.sh", *sys.argv[1:]]), "size": size,
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"), "commit": commit(),
        "seconds": 0.0, "steps": {},
    }  # fmt: skip
    with (out / "gpu_check.log").open("w", encoding="utf-8") as log:
        for index, step in enumerate(steps):
            left = TOTAL[size] - (time.monotonic() - start)
            seconds = limit_of(step, steps[index + 1 :], size, left)
            before = {name: done["figures"] for name, done in content["steps"].items()}
            done = run_step(step, size, out, seconds, before, log)
            content["steps"][step.name] = done
            content["seconds"] = time.monotonic() - start
            write_json(out / "gpu_check.json", content)
            (out / "gpu_check.md").write_text(report(content), encoding="utf-8")
            line = f"{step.name}: {done['status']} ({done['seconds']:.0f} s) {say(step.name, done)}"
            print(line, flush=True)
    return content


def main() -> int:
    parser = argparse.ArgumentParser(prog="gpu_check.sh", description="Proves what CUDA must do.")
    parser.add_argument("--quick", action="store_true", help="two minutes instead of eight")
    parser.add_argument("--dry", action="store_true", help="walk the steps on the CPU, tiny models")
    parser.add_argument("--steps", help=f"some of {','.join(step.name for step in STEPS)}")
    options = parser.parse_args()
    names = options.steps.split(",") if options.steps else None
    if unknown := set(names or []) - {step.name for step in STEPS}:
        parser.error(f"no step {', '.join(sorted(unknown))}")
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))  # leaves no step
    out = Path(os.environ.get("OUT") or ROOT / "benchmarks" / "gpu").resolve()
    out.mkdir(parents=True, exist_ok=True)
    size = "dry" if options.dry else "quick" if options.quick else "full"
    content = run_all(size, out, names)
    print(f"{out}: gpu_check.json, gpu_check.md, gpu_check.log\n\n{report(content)}")
    return int(any(done["status"] in ("failed", "cut off") for done in content["steps"].values()))


if __name__ == "__main__":
    sys.exit(main())
