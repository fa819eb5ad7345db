"""A process apart that loads runs and exports again: a folder a line on standard input, for each a
line with the faults as a JSON list.

    python -m benchmarks.architectures.reload
"""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


class Reloader:
    """Such a process, started once for many runs."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "benchmarks.architectures.reload"]
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, text=True, encoding="utf-8",
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip

    def faults(self, run: Path) -> list[str]:
        """What is wrong with a finished run, or with an export of cells.py, loaded there."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{run}\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        return json.loads(line) if line else ["the process that loads again has ended"]

    def close(self) -> None:
        """End the process."""
        self.process.communicate()


def main() -> None:
    """Answer until the input ends."""
    from benchmarks.architectures.cells import ANSWERS, reopened_faults
    from benchmarks.architectures.check import reloaded_faults

    for line in sys.stdin:
        folder = Path(line.rstrip("\n"))
        alone = (folder.parent / ANSWERS).is_file()
        try:
            faults = reopened_faults(folder) if alone else reloaded_faults(folder)
        except Exception as error:  # the one who asks has to hear of it
            faults = [f"loaded again: {type(error).__name__}: {error}"]
        print(json.dumps(faults), flush=True)


if __name__ == "__main__":
    main()
