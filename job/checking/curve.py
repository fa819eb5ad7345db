"""What more rows would be worth: a run trained again on 12, 25 and 50 % of its training rows.

The rows of a share are among those of every larger one, and the test rows are those of the run, so
each doubling is measured row by row.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from configs.read import difference, parse_config, trajectory
from configs.schema import Config
from data.prepare import learnt_rows, load_data
from job.folder import Folder, finished_config, run_folder, saved_config
from job.reporting.compare import Finished, compare_pair, open_finished
from job.rows import data_args, refuse_stream
from report.check import CurvePoint

SHARES = (12.5, 25, 50)  # percent
LEAST = 4  # training rows of the smallest share
COMPARED = ("accuracy", "rmse")  # figures whose difference on the same rows is known


def learning_curve(run: Path, train: Callable[[Config, bool], None]) -> list[CurvePoint]:
    """The run's test figure on each share and on all of its training rows, and what each doubling
    adds: the accuracy, of numbers the RMSE.

    `train` makes a run of a config in a folder beside the run's, or goes on with it where it is
    told to. One of the same recipe that is finished is taken as it is. Raises ValueError, before
    anything is trained, where the run is not finished, has no such figure or too few rows, and
    where the folder of a share holds a run of another recipe.
    """
    whole = open_finished(run)
    config = finished_config(Folder(run))
    metric = next((name for name in COMPARED if name in whole.test), None)
    if metric is None:
        raise ValueError(f"--curve: {run} has no test figure to compare: {' or '.join(COMPARED)}")
    refuse_stream(config)
    data = load_data(data_args(config))
    if data.left_out is not None:
        raise ValueError(
            "--curve: the bag of n-grams learns from the rows too that data.subset keeps from the "
            'encoder; train a run with bag.rows = "train", or without data.subset'
        )
    rows = len(learnt_rows(data))
    counts = {share: int(rows * share / 100) for share in SHARES}
    if counts[SHARES[0]] < LEAST:
        raise ValueError(f"--curve: {run} has {rows} training rows; it takes {8 * LEAST} or more")
    shares = [share_config(config, run, share, count) for share, count in counts.items()]
    begun = [is_begun(smaller, run) for smaller in shares]
    runs = []
    for smaller, go_on, count in zip(shares, begun, counts.values(), strict=True):
        folder = run_folder(smaller)
        if not folder.result.exists():
            train(smaller, go_on)
        runs.append((count, open_finished(folder.path)))
    runs.append((rows, whole))
    return [_point(runs, i, metric) for i in range(len(runs))]


def is_begun(smaller: Config, run: Path) -> bool:
    """Whether the folder of a share holds a run, finished or not. Raises ValueError where that is
    one of another recipe."""
    folder = run_folder(smaller)
    if not (folder.config.exists() or folder.checkpoints.is_dir()):
        return False
    if lines := difference(trajectory(saved_config(folder)), trajectory(smaller)):
        shown = "\n".join(f"  {line}" for line in lines)
        raise ValueError(
            f"--curve: {folder.path} was trained from another recipe than {run} has now:\n{shown}\n"
            "It is not touched; move it away or remove it, and this share is trained again"
        )
    return True


def share_config(config: Config, run: Path, share: float, rows: int) -> Config:
    """The recipe of a run on so many of its training rows, drawn by the run's own seed."""
    tables: dict[str, Any] = config.model_dump(exclude_none=True)
    tables["run"] |= {"dir": str(run.parent), "name": f"{run.name}-{int(share)}percent"}
    tables["data"]["subset"] = {**tables["data"]["subset"], "train": rows}
    if "bag" in tables:
        tables["bag"]["rows"] = "train"  # which all rows were in the whole run too
    return parse_config(tables, f"{share:g} % of {run}")


def _point(runs: list[tuple[int, Finished]], i: int, metric: str) -> CurvePoint:
    rows, run = runs[i]
    value = float(run.test[metric])
    if i == 0:
        return CurvePoint(rows, metric, value, None)
    changes = compare_pair(runs[i - 1][1], run).differences
    gain = next(one for one in changes if one.metric == metric)
    return CurvePoint(rows, metric, value, (gain.difference, gain.low, gain.high))
