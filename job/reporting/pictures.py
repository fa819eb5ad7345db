"""What TensorBoard shows of a test beside its figures: how sure the answers are, whether that can
be trusted, and precision and recall by threshold."""

import numpy as np

from data.labels.settle import label_array
from engine.board import Board
from engine.calibrate import Bins
from engine.images import reliability_image
from job.job import Job
from job.reporting.figures import groups_of
from report.format import clean_line

MOST_DRAWN = 20  # classes: a curve each
EDGES = np.linspace(0, 1, 51)  # of the histogram


def log_pictures(
    job: Job, board: Board, step: int, shares: np.ndarray, sure: np.ndarray, right: np.ndarray
) -> None:
    """Of the test rows (N,): `shares` of each class (N, C), C = 0 where they are too many; of one
    class a row also how `sure` the answer is and whether it is `right`. Nothing of numbers."""
    if job.data.kind == "regression":
        return
    labels = label_array(job.data.splits["test"], job.data.kind)  # (N,) or (N, C)
    if job.data.kind == "single":
        board.add_histogram("test/confidence", sure, EDGES, step)
        bins = Bins()
        bins.add(sure, right > 0)
        groups = groups_of(bins)
        points = [(group.mean, group.rows, group.right, group.low, group.high) for group in groups]
        board.add_image("test/reliability", reliability_image(points), step)
        labels = labels[:, None] == np.arange(shares.shape[1])
    for place in range(shares.shape[1]):
        name = f"test/precision_recall/{clean_line(job.data.label_names[place])}"
        board.add_pr_curve(name, labels[:, place] > 0, shares[:, place], step)
