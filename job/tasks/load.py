"""A finished run of any task, opened to be asked."""

import sys
from dataclasses import astuple
from pathlib import Path
from typing import Any

from job.folder import Folder, finished_config
from job.speed import set_up_torch
from job.tasks.table import task_of
from report.plan import replaced_lines


def load_predictor(
    run: str | Path, device: str | None, allow_code: bool, base: str | Path | None,
    verbose: bool = False, allow_network: bool = False,
) -> Any:  # fmt: skip
    """What answers for a finished run folder that check_run has passed, of classify a Predictor.
    Raises ValueError as Task.load does. One line on standard error says which run answers;
    `verbose` adds kernels, threads and fast paths."""
    folder = Folder(Path(run))
    config = finished_config(folder)
    details = set_up_torch(config)
    predictor, speed = task_of(config).load(folder, device, allow_code, base, allow_network)
    precision = predictor.precision
    print(f"openloop: {folder.path} on {precision.device} in {precision.dtype}", file=sys.stderr)
    if verbose:
        paths = replaced_lines([astuple(row) for row in speed.replaced])
        lines = [*details, *speed.notes, *speed.details, *paths]
        print("".join(f"{line}\n" for line in lines), end="", file=sys.stderr)
    return predictor
