"""Where a run's figures go: metrics.jsonl (one object a line), TensorBoard, and the console."""

import json
import math
import os
import sys
import time
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from engine.images import confusion_image
from engine.loop import StepResult
from engine.plan import Progress

PLAIN_LINES = 20  # lines of progress over a run where the output is not a terminal


class Tracker:
    """Appends to `folder/metrics.jsonl` and `folder/tensorboard`.

    `resume_at` is the size that metrics.jsonl had at the checkpoint the run goes on from: whatever
    a killed process wrote after it, a torn last line included, is cut off.
    """

    def __init__(
        self, folder: Path, start: int, total_steps: int, log_every: int, resume_at: int | None
    ):
        self.path = folder / "metrics.jsonl"
        if resume_at is not None and self.path.exists():
            os.truncate(self.path, min(resume_at, self.path.stat().st_size))
        self.file = self.path.open("a", encoding="utf-8")
        self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=start + 1)
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
        line = {k: v if math.isfinite(v) else None for k, v in values.items()}  # NaN is not JSON
        self.file.write(json.dumps({"step": step, **line}) + "\n")
        self.file.flush()
        for name, value in values.items():
            self.board.add_scalar(name, value, step)

    def log_confusion(self, step: int, part: str, confusion: list, label_names: list[str]) -> None:
        """The confusion matrix as an image."""
        image = confusion_image(confusion, label_names)
        self.board.add_image(f"{part}/confusion", image, step, dataformats="HWC")

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
        self.board.add_hparams(plain, metrics, run_name=".")

    def say(self, text: str) -> None:
        """A line on the console that does not tear the progress bar."""
        tqdm.write(text, file=sys.stdout)
        sys.stdout.flush()

    def position(self) -> int:
        """Bytes of metrics.jsonl so far, all of them on the disk."""
        self.file.flush()
        os.fsync(self.file.fileno())
        return self.path.stat().st_size

    def close(self) -> None:
        """Finish the bar and the files."""
        self.bar.close()
        self.file.close()
        self.board.close()
