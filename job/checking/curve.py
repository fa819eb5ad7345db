"""What more rows would be worth: a run trained again on 12, 25 and 50 % of its training rows.

The rows of a share are among those of every larger one, and the test rows are those of the run, so
each doubling is measured row by row.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from configs.read import parse_config
from configs.schema import Config
from data.prepare import learnt_rows, load_data
from job.folder import Folder, finished_config
from job.reporting.compare import Finished, compare_pair, open_finished
from job.rows import data_args
from report.check import CurvePoint

SHARES = (12.5, 25, 50)  # percent
LEAST = 4  # training rows of the smallest share


def learning_curve(run: Path, train: Callable[[Config], None]) -> list[CurvePoint]:
    """The run's test figure on each share and on all of its training rows, and what each doubling
    adds. `train` makes a run of a config, in a folder beside the run's; one that is finished is
    taken as it is.

    Raises ValueError where the run is not finished, has no test figure or too few rows.
    """
    whole = open_finished(run)
    config = finished_config(Folder(run))
    if whole.metric is None:
        raise ValueError(f"--curve: {run} has no test figure to compare")
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
    runs = []
    for share, count in counts.items():
        smaller = share_config(config, run, share, count)
        folder = Folder(Path(smaller.run.dir) / smaller.run.name)
        if not folder.result.exists():
            train(smaller)
        runs.append((count, open_finished(folder.path)))
    runs.append((rows, whole))
    return [_point(runs, i) for i in range(len(runs))]


def share_config(config: Config, run: Path, share: float, rows: int) -> Config:
    """The recipe of a run on so many of its training rows, drawn by the run's own seed."""
    tables: dict[str, Any] = config.model_dump(exclude_none=True)
    tables["run"] |= {"dir": str(run.parent), "name": f"{run.name}-{int(share)}percent"}
    tables["data"]["subset"] = {**tables["data"]["subset"], "train": rows}
    if "bag" in tables:
        tables["bag"]["rows"] = "train"  # which all rows were in the whole run too
    return parse_config(tables, f"{share:g} % of {run}")


def _point(runs: list[tuple[int, Finished]], i: int) -> CurvePoint:
    rows, run = runs[i]
    assert run.metric is not None
    value = float(run.test[run.metric])
    if i == 0:
        return CurvePoint(rows, run.metric, value, None)
    changes = compare_pair(runs[i - 1][1], run).differences
    gain = next(one for one in changes if one.metric == run.metric)
    return CurvePoint(rows, run.metric, value, (gain.difference, gain.low, gain.high))
