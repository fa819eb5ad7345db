"""Where a run's figures go: metrics.jsonl (one object a line), TensorBoard, and the console."""

import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from tqdm import tqdm

from engine.board import Board
from engine.images import confusion_image
from engine.loop import StepResult
from engine.plan import Progress
from files.publish import free_name
from files.read import parse_json
from files.verify import sha256_of_start
from files.write import open_in_place, replace_text, to_json

LOG = "metrics.jsonl"
PLAIN_LINES = 20  # lines of progress over a run where the output is not a terminal


def read_log(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a metrics.jsonl. Raises ValueError, naming the line, where one is no object with
    a step."""
    with path.open("rb") as file:
        for number, content in enumerate(file, start=1):
            yield parse_line(content, f"{path}, line {number}")


def parse_line(content: bytes, name: str) -> dict[str, Any]:
    """A line of metrics.jsonl. Raises ValueError, beginning with `name`, where it is no object with
    a step."""
    line = parse_json(content, name)
    if not isinstance(line, dict) or not isinstance(line.get("step"), int):
        raise ValueError(f"{name}, is no object with a step")
    return line


def mend_log(folder: Path, mark: dict[str, Any], step: int) -> tuple[int, list[str]]:
    """Hold `folder/metrics.jsonl` against the `mark` of the checkpoint of `step`: the size to go on
    from, and what to say of it.

    A log that is not as it was then is kept beside as metrics.jsonl.damaged-N, and the lines of it
    that can still be read go on: it is a record of the training, which does not need it.
    """
    path = folder / LOG
    if path.exists() and sha256_of_start(path, mark["bytes"]) == mark["sha256"]:
        return mark["bytes"], []
    if not path.exists():
        return 0, [f"WARNING: {path} is missing; it begins again after step {step}"]
    aside = free_name(path, "damaged")
    shutil.copyfile(path, aside)
    whole, count = [], 0
    for content in aside.read_bytes().splitlines(keepends=True):
        count += 1
        try:
            line = parse_line(content, str(path))
        except ValueError:
            continue
        if line["step"] <= step:
            whole.append(json.dumps(line) + "\n")
    with replace_text(path) as file:
        file.writelines(whole)
    return path.stat().st_size, [
        f"WARNING: {path} was changed after the checkpoint; it is kept as {aside.name}, and the "
        f"{len(whole)} of its {count} lines that can be read go on. Training does not need it"
    ]


class Tracker:
    """Appends to `folder/metrics.jsonl` and `folder/tensorboard`.

    `resume_at` is the size that metrics.jsonl had at the checkpoint the run goes on from: whatever
    a killed process wrote after it, a torn last line included, is cut off. Raises ValueError where
    one of the two is a link.
    """

    def __init__(
        self, folder: Path, start: int, total_steps: int, log_every: int, resume_at: int | None
    ):
        self.path = folder / LOG
        self.file = open_in_place(self.path)
        if resume_at is not None:
            self.file.truncate(min(resume_at, self.path.stat().st_size))
        self.file.seek(0)
        self.digest = hashlib.file_digest(self.file, "sha256")  # of what the file holds
        self.board = Board(folder / "tensorboard", start + 1)
        self.log_every, self.total_steps = log_every, total_steps
        live = sys.stderr.isatty()
        self.bar = tqdm(total=total_steps, initial=start, unit="step", disable=not live)
        self.plain_every = None if live else max(1, total_steps // PLAIN_LINES)
        self.clock = time.perf_counter()
        self.tokens_per_s: list[float] = []

    def restart_clock(self) -> None:
        """Leave what happened since the last step (an evaluation, a save) out of its timing."""
        self.clock = time.perf_counter()

    def log_step(self, result: StepResult, progress: Progress, rate: float) -> None:
        """One optimizer step. A skipped one is printed; it has no line of its own."""
        seconds = time.perf_counter() - self.clock
        self.restart_clock()
        if result.skipped:
            self.say(f"step {progress.step}: fp16 gradient overflow, skipped ({progress.skipped})")
            return
        step, speed = progress.step, result.tokens / seconds
        self.tokens_per_s.append(speed)
        if step % self.log_every == 0 or step == self.total_steps:
            values = {
                "train/loss": result.loss,
                "train/lr": rate,
                "train/grad_norm": result.grad_norm,
                "train/tokens_per_s": round(speed, 1),
            }
            self.write(step, values)
        self.bar.set_postfix_str(
            f"loss {result.loss:.4f}, lr {rate:.2e}, {speed:,.0f} tokens/s", refresh=False
        )
        self.bar.update()
        if self.plain_every and step % self.plain_every == 0:
            print(
                f"step {step}/{self.total_steps}: loss {result.loss:.4f}, lr {rate:.2e}, "
                f"{speed:,.0f} tokens/s",
                flush=True,
            )

    def log_evaluation(self, step: int, part: str, metrics: dict[str, Any]) -> None:
        """Scalars of an evaluation under `part` ("eval" or "test"), with n and the interval."""
        scalars = {f"{part}/{k}": v for k, v in metrics.items() if isinstance(v, int | float)}
        if "interval" in metrics:
            low, high = metrics["interval"]
            scalars |= {f"{part}/accuracy_low": low, f"{part}/accuracy_high": high}
        self.write(step, scalars)

    def write(self, step: int, values: dict[str, float]) -> None:
        """One line of metrics.jsonl and one TensorBoard point a value."""
        content = (to_json({"step": step, **values}) + "\n").encode()
        self.file.write(content)
        self.file.flush()
        self.digest.update(content)
        self.board.add_scalars(values, step)

    def log_confusion(
        self, step: int, part: str, metrics: dict[str, Any], label_names: Sequence[str]
    ) -> None:
        """The confusion matrix of an evaluation as an image, where there is one."""
        if "confusion" in metrics:
            names = [label_names[i] for i in metrics["confused"]]
            image = confusion_image(metrics["confusion"], names)
            self.board.add_image(f"{part}/confusion", image, step)

    def log_text(self, step: int, name: str, text: str) -> None:
        """A text, shown by TensorBoard as Markdown (indented: as it is)."""
        indented = "\n".join("    " + line for line in text.splitlines())
        self.board.add_text(name, indented, step)

    def log_hyperparameters(self, config: dict[str, Any], metrics: dict[str, float]) -> None:
        """The settings beside the final metrics, for TensorBoard's comparison of runs."""
        plain = {
            k: v if isinstance(v, bool | int | float | str) else json.dumps(v)
            for k, v in config.items()
        }
        self.board.add_settings(plain, metrics)

    def say(self, text: str) -> None:
        """A line on the console that does not tear the progress bar."""
        tqdm.write(text, file=sys.stdout)
        sys.stdout.flush()

    def mark(self) -> dict[str, Any]:
        """Size and sha256 of metrics.jsonl so far, all of it on the disk."""
        self.file.flush()
        os.fsync(self.file.fileno())
        return {"bytes": self.path.stat().st_size, "sha256": self.digest.hexdigest()}

    def close(self) -> None:
        """Finish the bar and the files."""
        with closing(self.board), closing(self.file), closing(self.bar):
            pass
