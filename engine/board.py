"""TensorBoard's event file, written in step with the run.

torch's SummaryWriter leaves writing to a thread of its own: on a full disk that thread ends with a
traceback of its own while training goes on. Here an error is raised to whoever logs.
"""

import os
import socket
import time
from pathlib import Path
from typing import Any

import numpy as np
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard import summary


class Board:
    """Appends to a new event file in `folder`; whatever earlier files hold from the step `purge`
    on is hidden. Raises OSError where it cannot be written, ValueError where it is a link."""

    def __init__(self, folder: Path, purge: int):
        if folder.is_symlink():
            raise ValueError(f"{folder} is a link, and nothing is written through one; remove it")
        folder.mkdir(exist_ok=True)
        name = f"events.out.tfevents.{time.time_ns()}.{socket.gethostname()}.{os.getpid()}"
        self.file = (folder / name).open("xb")
        self.records = RecordWriter(self.file)
        self.add_event(Event(file_version="brain.Event:2"), purge)
        self.add_event(Event(session_log=SessionLog(status=SessionLog.START)), purge)
        self.file.flush()

    def add_event(self, event: Event, step: int) -> None:
        """One record."""
        event.wall_time, event.step = time.time(), step
        self.records.write(event.SerializeToString())

    def add_scalars(self, values: dict[str, float], step: int) -> None:
        """A point of each curve, by name."""
        for name, value in values.items():
            self.add_event(Event(summary=summary.scalar(name, value)), step)
        self.file.flush()

    def add_image(self, name: str, image: np.ndarray, step: int) -> None:
        """A picture (H, W, 3) uint8."""
        self.add_event(Event(summary=summary.image(name, image, dataformats="HWC")), step)

    def add_histogram(self, name: str, values: np.ndarray, edges: np.ndarray, step: int) -> None:
        """How many of the values (N,) lie between each two of the edges."""
        self.add_event(Event(summary=summary.histogram(name, values, edges)), step)

    def add_pr_curve(self, name: str, held: np.ndarray, shares: np.ndarray, step: int) -> None:
        """Precision and recall by threshold: whether a class holds (N,) bool, and its shares (N,)
        from 0 to 1."""
        self.add_event(Event(summary=summary.pr_curve(name, held, shares)), step)

    def add_text(self, name: str, text: str, step: int) -> None:
        """A text in Markdown."""
        self.add_event(Event(summary=summary.text(name, text)), step)

    def add_settings(self, settings: dict[str, Any], metrics: dict[str, float]) -> None:
        """A row of TensorBoard's table of runs: settings (numbers and texts) beside figures."""
        for part in summary.hparams(settings, metrics):
            self.add_event(Event(summary=part), 0)
        self.add_scalars(metrics, 0)

    def close(self) -> None:
        """Bring it to its file. Raises OSError where that is not possible."""
        self.file.close()
