"""An export asked by a program of checkers/, in a process of its own: isolated from our folder and
the user's own packages, elsewhere on the disk, and without a network."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from files.read import read_json
from report.format import shorten

KEPT = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "TMPDIR",
    "SYSTEMROOT",
    "LD_LIBRARY_PATH",
    "HF_HOME",  # where the base of an adapter may lie
    "HF_HUB_CACHE",
    "XDG_CACHE_HOME",
    "OMP_NUM_THREADS",
)
QUIET = {
    "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "TOKENIZERS_PARALLELISM": "true",
    "TRANSFORMERS_VERBOSITY": "error", "HF_HUB_DISABLE_TELEMETRY": "1", "PYTHONIOENCODING": "utf-8",
}  # fmt: skip


class CheckerFailed(Exception):
    """The program ended without answers: what it said last."""


def run_checker(program: Path, folder: Path, questions: dict[str, Any]) -> dict[str, Any]:
    """What the program says of an exported folder. Raises CheckerFailed where it cannot open or ask
    it."""
    with tempfile.TemporaryDirectory() as place:
        questions_file, answers = Path(place, "questions.json"), Path(place, "answers.json")
        questions_file.write_text(json.dumps(questions), encoding="utf-8")
        environment = {name: os.environ[name] for name in KEPT if name in os.environ} | QUIET
        done = subprocess.run(
            # -B: what it imports of the folder would leave compiled files there, with our paths
            [sys.executable, "-I", "-B",
             *map(str, (program.resolve(), folder.resolve(), questions_file, answers))],
            cwd=place, env=environment, stdin=subprocess.DEVNULL, capture_output=True,
        )  # fmt: skip
        errors = done.stderr.decode("utf-8", errors="replace").strip().splitlines()
        if done.returncode or not answers.is_file():
            last = shorten(errors[-1], 400) if errors else f"it ended with status {done.returncode}"
            raise CheckerFailed(last)
        return read_json(answers)
