"""What a step is told, and how it says what it found."""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from files.write import save_text

Size = Literal["full", "quick", "dry"]


class Skipped(Exception):
    """The step cannot be done here; its text says why."""


class Failed(Exception):
    """The step was done, and what it must show does not hold; its text says what."""


@dataclass(frozen=True)
class Context:
    """`dry` walks a step on the CPU with tiny models; `quick` takes less of everything."""

    size: Size
    scratch: Path  # a folder of its own, gone after the step
    out: Path  # for what is to be kept besides figures
    result: Path
    deadline: float  # time.monotonic() at which the step is ended
    before: dict[str, Any]  # figures of the steps before, by name

    @property
    def device(self) -> str:
        """The device to work on."""
        return "cpu" if self.size == "dry" else "cuda"

    @property
    def dtype(self) -> str:
        """bf16, but on a CPU, which may compute it a hundred times slower."""
        return "fp32" if self.size == "dry" else "bf16"

    @property
    def compiled(self) -> bool:
        """Whether layers are compiled: a quick run has no time for it."""
        return self.size == "full"

    def seconds_left(self) -> float:
        """Until the step is ended."""
        return self.deadline - time.monotonic()

    def keep(self, figures: dict[str, Any], status: str = "cut off", reason: str = "") -> None:
        """Write what there is so far: a step that is ended leaves it behind."""
        write_json(self.result, {"status": status, "reason": reason, "figures": figures})


def write_json(path: Path, content: Any) -> None:
    """Replace the file in one step: an interruption leaves the old one or the new one."""
    save_text(path, json.dumps(content, indent=1) + "\n")
